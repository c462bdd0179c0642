"""Corral itself: the process, its event loop, what it keeps, what it lost."""

from grafana import board as b
from grafana.board import Placed, Row
from grafana.panels import GREEN, ORANGE, RED, Json, Query, lines, split, stat, table, thresholds
from grafana.queries import increase, of, over, quantile, rate

YES_NO = {1: ("yes", GREEN), 0: ("no", RED)}


def board() -> Json:
    """The dashboard."""
    rows = [
        Row("Now", [Placed(_instances(), b.HALF, b.FLAT * 2), *(Placed(panel, b.EIGHTH, b.FLAT) for panel in _now())]),
        Row("Process", [Placed(panel, b.QUARTER) for panel in _process()]),
        Row("Event loop", [Placed(panel, b.QUARTER) for panel in _loop()]),
        Row("Database", [Placed(panel, b.QUARTER) for panel in _database()]),
        Row("Sessions and detached answers", [Placed(panel) for panel in _answers()]),
        Row("Lost, and other gateways", [Placed(panel, b.QUARTER) for panel in _lost()]),
    ]
    return b.board("corral", "Corral itself", "The gateway's own process, its database and what it lost.", rows)


def _instances() -> Json:
    started = f"{over(of('process_start_time_seconds'), 'instance', 'max')} * 1000"
    loaded = f"{over(of('corral_config_last_reload_success_timestamp_seconds'), 'instance', 'max')} * 1000"
    columns = {
        "Started": Query(started, unit="dateTimeFromNow"),
        "Configuration": Query(loaded, unit="dateTimeFromNow"),
    }
    labels = {"instance": "Instance", "version": "Version", "build": "How built", "python": "Python"}
    return table(
        "Gateways",
        "Gateways of one fleet should have one version. Started lately, and you did not: it crashed, see its log.",
        columns,
        labels,
        over(of("corral_build_info"), "instance, version, build, python", "max"),
    )


def _now() -> list[Json]:
    return [
        stat(
            "Answers scrapes",
            "Gateways that Prometheus reaches. Fewer than there are: CorralDown says what to do.",
            "none",
            Query(over(of("up"))),
            limits=thresholds((1, GREEN), base=RED),
        ),
        stat(
            "Database up",
            "no: nothing is kept now, and relaying goes on. GET /healthz/storage says why.",
            "none",
            Query(over(of("corral_db_up"), how="min")),
            words=YES_NO,
        ),
        stat(
            "Configuration in force",
            "no: the file has a mistake and the one before is in force. corral check names it.",
            "none",
            Query(over(of("corral_config_last_reload_successful"), how="min")),
            words=YES_NO,
        ),
        stat(
            "Failed tasks",
            "Background tasks that ended in an error in the last day. Each is a bug: the log has the traceback.",
            "none",
            Query(increase("corral_task_failures_total", window="1d")),
            limits=thresholds((1, RED)),
            decimals=0,
        ),
        stat(
            "Gateways on the database",
            "As they know each other. Fewer than run: some cannot reach the database, or use another.",
            "none",
            Query(over(of("corral_replicas"), how="min")),
        ),
        stat(
            "Bus up",
            "no: gateways cannot stop each other's requests at once, and know of each other's slots late. See the log.",
            "none",
            Query(over(of("corral_replica_bus_up"), how="min")),
            words=YES_NO,
        ),
        stat(
            "Samples a scrape",
            "Grows with models and hosts. Over 20,000: fewer hosts a gateway, or drop families in Prometheus.",
            "short",
            Query(over(of("scrape_samples_scraped"), how="max")),
            limits=thresholds((20_000, ORANGE)),
        ),
    ]


def _process() -> list[Json]:
    return [
        lines(
            "CPU",
            "Cores. The process uses one at most: over 0.8, run a second gateway.",
            "percentunit",
            split(rate, "process_cpu_seconds_total", by="instance"),
            limits=thresholds((0.8, RED)),
        ),
        lines(
            "Memory",
            "Resident and virtual bytes. Everything in Corral is bounded; a steady climb over days is a bug worth telling us.",
            "bytes",
            split(over, of("process_resident_memory_bytes"), by="instance"),
            Query(over(of("process_virtual_memory_bytes"), "instance"), "{{instance}} virtual"),
        ),
        lines(
            "Open files",
            "Connections, mostly: two for each stream. Near the limit new ones fail: raise it (ulimit -n).",
            "none",
            split(over, of("process_open_fds"), by="instance"),
            Query(over(of("process_max_fds"), "instance"), "{{instance}} limit"),
        ),
        lines(
            "Python's collector",
            "Runs each second, what they freed, and what they could not. The oldest generation often: many long-lived objects are made.",
            "short",
            Query(rate("python_gc_collections_total", by="generation"), "runs of generation {{generation}}"),
            Query(rate("python_gc_objects_collected_total"), "objects freed"),
            Query(rate("python_gc_objects_uncollectable_total"), "objects that cannot be"),
        ),
    ]


def _loop() -> list[Json]:
    return [
        lines(
            "Lag",
            "How late a timer fires. Everything waits as long: over 50 ms streams stutter.",
            "s",
            *(
                Query(quantile(q, "corral_event_loop_lag_seconds", by="instance"), f"{{{{instance}}}} p{q * 100:g}")
                for q in (0.5, 0.99)
            ),
            limits=thresholds((0.1, RED)),
        ),
        lines(
            "Pauses of the collector, p99",
            "Nothing moves meanwhile. Over 50 ms: the lag above is this.",
            "s",
            Query(
                quantile(0.99, "corral_gc_pause_seconds", by="instance, generation"),
                "{{instance}} generation {{generation}}",
            ),
        ),
        lines(
            "Scrapes",
            "What a scrape takes as Prometheus sees it. Corral needs some milliseconds; more is the network or the lag.",
            "s",
            split(over, of("scrape_duration_seconds"), by="instance", how="max"),
        ),
        lines(
            "Time in the gateway, p99",
            "Per request, without queue and hosts, by kind of request. Embeddings of many texts are large bodies and take longest.",
            "s",
            split(quantile, 0.99, "corral_gateway_overhead_seconds", by="operation"),
        ),
        lines(
            "Responses by route",
            "Every route, also management and scrapes. A dashboard or script that polls too often shows here.",
            "reqps",
            Query(f"topk(10, {rate('corral_http_responses_total', by='route')})", "{{route}}"),
        ),
    ]


def _database() -> list[Json]:
    age = f"time() - {over(of('corral_db_oldest_timestamp_seconds'), 'instance', 'min')}"
    waited = f"time() - {over(of('corral_db_last_flush_timestamp_seconds'), 'instance', 'max')}"
    return [
        lines(
            "Records",
            "What became of each request's record. dropped_full: the database was away for too long. summed: its disk is nearly full.",
            "short",
            split(rate, "corral_db_records_total", by="outcome"),
            axis="records/s",
            stacked=True,
        ),
        lines(
            "Waiting",
            "Records that are not yet written, and how many may wait. At the limit they are dropped.",
            "none",
            split(over, of("corral_db_queue_depth"), by="instance"),
            Query(over(of("corral_db_queue_limit"), "instance"), "{{instance}} limit"),
        ),
        lines(
            "Writing a batch, p95",
            "At most 500 records. Over a second: the disk or the database server is slow.",
            "s",
            split(quantile, 0.95, "corral_db_flush_duration_seconds", by="instance"),
        ),
        lines(
            "Since the last batch",
            "Rises while there is nothing to write, too: compare with Waiting.",
            "s",
            Query(waited, "{{instance}}"),
        ),
        lines(
            "Age of the oldest request",
            "Should end at database.requests_days. Beyond it: nothing deletes, see Deleted.",
            "s",
            Query(age, "{{instance}}"),
        ),
        lines(
            "Deleted",
            "Rows each second that went for their age or number.",
            "short",
            split(rate, "corral_db_deleted_rows_total", by="table"),
            axis="rows/s",
        ),
        lines(
            "Free on the disk",
            "Of an SQLite file. Below 5 % only sums are kept.",
            "bytes",
            split(over, of("corral_db_free_bytes"), by="instance"),
        ),
    ]


def _answers() -> list[Json]:
    return [
        lines(
            "Answers in sessions",
            "How they ended. unkept: the database was away for too long, and the answer is in nobody's session.",
            "short",
            split(increase, "corral_turns_total", by="outcome"),
            stacked=True,
        ),
        lines(
            "Answers in sessions, under way",
            "Being generated or kept.",
            "none",
            split(over, of("corral_turns_in_flight"), by="instance"),
        ),
        lines(
            "Conversations",
            "Of several models: that began, and that ended, by why. error: nobody could answer, or the database was away; the log tells which.",
            "short",
            Query(increase("corral_conversations_started_total"), "began"),
            split(increase, "corral_conversations_total", by="mode, outcome"),
        ),
        lines(
            "Turns of conversations",
            "How they ended. error: a host failed in it, or its model is gone; the others go on.",
            "short",
            split(increase, "corral_conversation_turns_total", by="mode, outcome"),
            stacked=True,
        ),
        lines(
            "Detached generations",
            "Whose answers can be read, and who reads. Many that ended: callers do not fetch them.",
            "none",
            split(over, of("corral_detached_generations"), by="state"),
            Query(over(of("corral_detached_readers")), "readers"),
        ),
        lines(
            "Held for readers",
            "Bytes of detached answers, at most generations.held_bytes. Chunks that did not fit are lost to late readers.",
            "bytes",
            split(over, of("corral_detached_held_bytes"), by="instance"),
            Query(increase("corral_detached_chunks_dropped_total"), "chunks dropped", unit="short"),
        ),
    ]


def _lost() -> list[Json]:
    return [
        lines(
            "Log lines lost",
            "Their writer could not keep up: a slow disk or a full pipe behind standard output.",
            "short",
            split(increase, "corral_log_lines_dropped_total", by="instance"),
        ),
        lines(
            "Spans lost",
            "over_limit: more traces were worth keeping than tracing.per_second lets through. queue_full, export_failed: the collector is slow or away.",
            "short",
            split(increase, "corral_spans_dropped_total", by="reason"),
            stacked=True,
        ),
        lines(
            "Labels folded into _other",
            "More models or hosts than are told apart. Which models those are, the history of requests knows.",
            "short",
            split(increase, "corral_label_overflow_total", by="label"),
        ),
        lines(
            "Bus between gateways",
            "Times it was connected. Again and again: the database server cuts idle connections, or a proxy does.",
            "short",
            split(increase, "corral_replica_bus_connections_total", by="instance"),
        ),
        lines(
            "Configuration read",
            "Well and in vain. failed: corral check names the mistake.",
            "short",
            split(increase, "corral_config_reloads_total", by="outcome"),
        ),
    ]
