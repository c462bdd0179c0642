"""Hosts and their GPUs: used, full, failing, for each host."""

from grafana import board as b
from grafana.board import Placed, Row
from grafana.panels import (
    GREEN,
    GREY,
    ORANGE,
    RED,
    YELLOW,
    Json,
    Query,
    lines,
    percentiles,
    split,
    stat,
    table,
    thresholds,
    timeline,
)
from grafana.queries import FAULTY, HOST, increase, of, over, quantile, rate

STATES = {
    0: ("healthy", GREEN),
    1: ("suspect", YELLOW),
    2: ("trial", ORANGE),
    3: ("ejected", RED),
    **dict.fromkeys(range(4, 8), ("draining", GREY)),
}
KEPT = b.traces(
    "Kept traces of this host's failures",
    '{ span.corral.host = "${__field.labels.host}" && status = error }',
)


def board() -> Json:
    """The dashboard."""
    rows = [
        Row(
            "State",
            [Placed(_states(), b.HALF), Placed(_facts(), b.HALF), *(Placed(each, b.QUARTER) for each in _amiss())],
        ),
        Row("Use", [Placed(panel, b.QUARTER) for panel in _use()]),
        Row("Work", [Placed(panel) for panel in _work()]),
        Row("Faults", [Placed(panel) for panel in _faults()]),
        Row("Polls, loads, jobs", [Placed(panel, b.QUARTER) for panel in _polls()]),
    ]
    return b.board("hosts", "Hosts", "Use, saturation and errors of each host.", rows, [b.hosts()])


def _states() -> Json:
    ranks = " or ".join(of("corral_host_state", HOST, f'state="{STATES[rank][0]}"') + f" * {rank}" for rank in range(4))
    draining = over(of("corral_host_draining", HOST), "host", "max")
    return timeline(
        "State",
        "The worst that any gateway thinks of the host. ejected: it does not answer or failed three times in a row; the log says why.",
        Query(f"max by (host) ({ranks}) + 4 * {draining}", "{{host}}"),
        STATES,
    )


def _facts() -> Json:
    def each(metric: str, how: str = "max") -> str:
        return over(of(metric, HOST), "host", how)

    last = f"{each('corral_host_last_success_timestamp_seconds')} * 1000"
    columns = {
        "Last good poll": Query(last, unit="dateTimeFromNow"),
        "Slots": Query(each("corral_host_concurrency_limit"), unit="none"),
        "Up": Query(each("corral_host_up", "min"), unit="bool_yes_no"),
    }
    return table(
        "Facts",
        "Hosts with different versions of Ollama behave differently: keep them alike. A last good poll long ago: the host is away.",
        columns,
        {"host": "Host", "ollama_version": "Ollama"},
        over(of("corral_host_info", HOST), "host, ollama_version", "max"),
    )


def _amiss() -> list[Json]:
    return [
        lines(
            "Amiss with the fleet",
            "What GET /api/fleet finds: differing versions, one name for different models, models on one host only. It says which.",
            "none",
            split(over, of("corral_fleet_findings"), by="kind", how="max"),
        ),
        stat(
            "Draining",
            "Hosts that take no new requests because somebody said so. Forgotten? POST /api/hosts/{name}/resume.",
            "none",
            Query(over(f"max by (host) ({of('corral_host_draining', HOST)})")),
            limits=thresholds((1, YELLOW)),
        ),
    ]


def _use() -> list[Json]:
    slots = over(of("corral_host_concurrency_limit", HOST), "host", "max")
    used = over(of("corral_host_vram_used_bytes", HOST), "host", "max")
    held = over(of("corral_model_vram_bytes", HOST), "host, model", "max")
    size = over(of("corral_model_size_bytes", HOST), "host, model", "max")
    return [
        lines(
            "Slots in use",
            "Of all gateways together. All hosts at 100 % and a queue: more hosts. One alone: its model is nowhere else.",
            "percentunit",
            Query(f"{over(of('corral_host_leases', HOST), 'host')} / ({slots} > 0)", "{{host}}"),
            top=1,
        ),
        lines(
            "Slots held, and by other gateways",
            "elsewhere is what this gateway was told by others; it does not count when it is older than five seconds.",
            "none",
            split(over, of("corral_host_leases", HOST), by="host"),
            Query(
                over(of("corral_host_leases_elsewhere", HOST), "host, instance"),
                "{{host}} elsewhere, as {{instance}} knows",
            ),
        ),
        lines(
            "VRAM of models",
            "What models hold, and what the configuration says there is. Near the total, the next model evicts one.",
            "bytes",
            Query(used, "{{host}}"),
            Query(over(of("corral_host_vram_total_bytes", HOST), "host", "max"), "{{host}} has"),
        ),
        lines(
            "VRAM by model",
            "What is in each GPU's memory.",
            "bytes",
            Query(held, "{{model}} on {{host}}"),
            stacked=True,
        ),
        lines(
            "Share of a model in VRAM",
            "Below 100 %: the rest is on the CPU, and decoding several times slower. A smaller context or quantisation, or a larger GPU.",
            "percentunit",
            Query(f"{held} / ({size} > 0)", "{{model}} on {{host}}"),
            top=1,
        ),
    ]


def _work() -> list[Json]:
    return [
        lines(
            "Output tokens",
            "Each second, of all requests on a host. The same GPUs should do the same.",
            "short",
            split(rate, "corral_tokens_total", HOST, 'type="output"', by="host"),
            axis="tokens/s",
            stacked=True,
        ),
        lines(
            "Share of traffic",
            "Where requests went. A fast host gets more; a healthy one that gets none lacks the models that are asked for.",
            "percentunit",
            Query(
                f"{rate('corral_routing_decisions_total', HOST, by='host')} / scalar({rate('corral_routing_decisions_total', HOST)} > 0)",
                "{{host}}",
            ),
            stacked=True,
            top=1,
        ),
        lines(
            "First token, p95",
            "One host far above its peers: hot, shared, swapping, or badly connected.",
            "s",
            split(quantile, 0.95, "corral_time_to_first_token_seconds", HOST, by="host", exemplar=True),
        ),
        lines(
            "Each output token, p95",
            "The same model is slower here than there: see the share in VRAM.",
            "s",
            split(quantile, 0.95, "corral_time_per_output_token_seconds", HOST, by="host"),
        ),
        lines(
            "Longest silence, p95",
            "Answers that hang on one host: its GPU is shared, or the network drops packets.",
            "s",
            split(quantile, 0.95, "corral_max_chunk_gap_seconds", HOST, by="host"),
        ),
        lines(
            "Predicted too early, p90",
            "How much later the first byte came than routing predicted. High for one host: its learned speeds are stale, or its load is hidden.",
            "s",
            split(quantile, 0.9, "corral_route_error_seconds", HOST, 'error="late"', by="host"),
        ),
    ]


def _faults() -> list[Json]:
    return [
        lines(
            "Failed attempts",
            "connect_error and reset: the host is down, restarts or is unreachable. http_5xx: its runner dies; see its own log.",
            "reqps",
            split(rate, "corral_upstream_attempts_total", HOST, FAULTY, by="host, outcome"),
            links=[KEPT],
        ),
        lines(
            "Attempts, p95",
            "One try, from sent to its end. Long and failed: the host takes requests and does not serve them.",
            "s",
            split(quantile, 0.95, "corral_upstream_attempt_duration_seconds", HOST, by="host, outcome"),
        ),
        lines(
            "Retried elsewhere",
            "What callers did not notice. Steady for one host: drain it and look.",
            "reqps",
            split(rate, "corral_retries_total", HOST, by="host, reason"),
            links=[KEPT],
        ),
        lines(
            "Passed over",
            "Hosts that could not be chosen, and why.",
            "reqps",
            split(rate, "corral_host_excluded_total", HOST, by="host, reason"),
        ),
        lines(
            "Why that host",
            "How each host came to its requests. cold_load for one only: its memory is too small for what it is asked for.",
            "reqps",
            split(rate, "corral_routing_decisions_total", HOST, by="host, reason"),
            stacked=True,
        ),
        lines(
            "Cancelled, until the host knows",
            "From noticing a cancellation to the host's connection closed. Over 50 ms GPUs work for nobody: see the event loop.",
            "s",
            *percentiles("corral_cancel_propagation_seconds", at=(0.5, 0.99)),
        ),
    ]


def _polls() -> list[Json]:
    return [
        lines(
            "Polls, p95",
            "A host that takes long to answer /api/ps is overloaded on its CPU, or far away.",
            "s",
            split(quantile, 0.95, "corral_host_poll_duration_seconds", HOST, by="host"),
        ),
        lines(
            "Failed polls",
            "By endpoint and reason. Some now and then do no harm; three in a row eject the host.",
            "short",
            split(increase, "corral_host_poll_errors_total", HOST, by="host, endpoint, reason"),
            links=[KEPT],
        ),
        lines(
            "Models out of memory, an hour",
            "evicted: another model needed the room. expired: keep_alive ran out (where no poll had seen when it would: no other came after it). host_lost: it restarted.",
            "short",
            split(increase, "corral_model_unloads_total", HOST, by="host, reason", window="1h"),
            axis="unloads/h",
        ),
        lines(
            "Models into memory, an hour",
            "For each host. More than a few: see the models' board for which.",
            "short",
            split(increase, "corral_model_loads_total", HOST, by="host", window="1h"),
            axis="loads/h",
        ),
        lines(
            "Pinned and warm models",
            "Loads of the gateway's own. The same host again and again: what is to stay there does not fit together. failed: the log says why.",
            "short",
            split(increase, "corral_preloads_total", HOST, by="host, kind, outcome", window="1h"),
            axis="loads/h",
        ),
        lines(
            "Pinned and warm models, in memory",
            "1 while a model is there that is to be. 0 for long: models_kept of the host's row says why.",
            "none",
            Query(over(of("corral_model_kept", HOST), "host, model, kind", "max"), "{{model}} on {{host}} ({{kind}})"),
            top=1,
        ),
        lines(
            "Uploads",
            "Bytes each second of blobs that were handed to hosts.",
            "Bps",
            split(rate, "corral_blob_bytes_total", HOST, by="host"),
        ),
        lines(
            "Jobs",
            "Pulls, copies, deletes and the like: what runs, and how it ended. failed: the log has a line with each host's words.",
            "short",
            Query(over(of("corral_jobs_in_flight"), "kind"), "{{kind}} runs"),
            split(increase, "corral_jobs_total", by="outcome"),
        ),
        lines(
            "Jobs, p95",
            "By kind. A pull of an hour: the registry or the host's disk is slow.",
            "s",
            split(quantile, 0.95, "corral_job_duration_seconds", by="kind", window="1h"),
        ),
    ]
