"""Fleet overview: is all well, and if not, in which direction to look."""

from grafana import board as b
from grafana.board import Placed, Row
from grafana.panels import GREEN, ORANGE, RED, YELLOW, Json, Query, lines, percentiles, split, stat, thresholds
from grafana.queries import (
    AVAILABILITY,
    BAD,
    COUNTED,
    FIRING,
    IN_TIME,
    TTFT_BUDGET,
    TTFT_SECONDS,
    TTFT_SHARE,
    increase,
    of,
    over,
    quantile,
    rate,
    recorded,
)

TTFT = "corral_time_to_first_token_seconds"
FAILED = b.traces("Kept traces of failed requests", '{ span.corral.kept != "" && status = error }')
SLOW = b.traces(
    "Kept traces of slow first tokens",
    f"{{ span.corral.time_to_first_byte > {TTFT_SECONDS:g} }}",
)


def board() -> Json:
    """The dashboard."""
    rows = [
        Row("Now", [Placed(panel, b.EIGHTH, b.FLAT) for panel in (*_served(), *_standing())]),
        Row("Traffic", [Placed(panel) for panel in _traffic()]),
        Row("Latency", [Placed(panel) for panel in _latency()]),
        Row("Queue, routing, cancellations", [Placed(panel) for panel in _routing()]),
        Row("The gateway itself", [Placed(panel, b.QUARTER) for panel in _gateway()]),
    ]
    return b.board("fleet", "Fleet overview", "Traffic, latency and faults of the whole fleet.", rows)


def _served() -> list[Json]:
    good = f"1 - ({rate('corral_requests_total', BAD)} / ({rate('corral_requests_total', COUNTED)} > 0))"
    return [
        stat(
            "Requests",
            "Requests that ended, each second, however they ended. None at all while callers are about: look whether they reach "
            "Corral, and at Queued.",
            "reqps",
            Query(rate("corral_requests_total")),
        ),
        stat(
            "Good share",
            f"Requests that were not failed by a host or by Corral; the objective is {AVAILABILITY}. Below it: see By outcome here, then "
            "Failed attempts on the hosts' board.",
            "percentunit",
            Query(good),
            limits=thresholds((0.99, ORANGE), (0.995, GREEN), base=RED),
            decimals=2,
        ),
        stat(
            "First token, p95",
            f"Of streaming requests, from the headers received to the first chunk sent; the objective is {TTFT_SECONDS:g} s for {TTFT_SHARE}. "
            "Above it: queue, cold start or a slow host? The row Latency tells.",
            "s",
            Query(quantile(0.95, TTFT)),
            limits=thresholds((TTFT_SECONDS, ORANGE), (10, RED)),
        ),
        stat(
            "Output tokens",
            "Tokens each second that hosts generated. Falls while requests do not: hosts are slower, see decode speed on the models' "
            "board.",
            "short",
            Query(rate("corral_tokens_total", 'type="output"')),
        ),
    ]


def _standing() -> list[Json]:
    return [
        stat(
            "Hosts up",
            "Hosts that some gateway can use. Fewer than there are: the hosts' board says which one and why.",
            "none",
            Query(over(f"max by (host) ({of('corral_host_up')})")),
            limits=thresholds((1, GREEN), base=RED),
        ),
        stat(
            "In flight",
            "Requests that hosts serve now. At the sum of all slots the next one waits.",
            "none",
            Query(f"{over(of('corral_requests_in_flight'))} or vector(0)"),
        ),
        stat(
            "Queued",
            "Requests that wait for a slot. More than now and then: the fleet is too small for its load, or a model is on too few hosts.",
            "none",
            Query(f"{over(of('corral_queue_depth'))} or vector(0)"),
            limits=thresholds((1, YELLOW), (20, ORANGE), (100, RED)),
        ),
        stat(
            "Alerts",
            "Alerts that fire. What each means and what to do is in docs/operations.md.",
            "none",
            Query(f"count({recorded('ALERTS', FIRING)}) or vector(0)"),
            limits=thresholds((1, RED)),
        ),
    ]


def _traffic() -> list[Json]:
    return [
        lines(
            "By outcome",
            "How requests end. upstream_error: see the hosts' board. rejected and no_host: capacity. client_error: tell the caller.",
            "reqps",
            split(rate, "corral_requests_total", by="outcome"),
            stacked=True,
            links=[FAILED],
        ),
        lines(
            "By model",
            "What is asked for. _unknown: callers ask for models that no host has; pull them, or tell the callers.",
            "reqps",
            Query(f"topk(10, {rate('corral_requests_total', by='model')})", "{{model}}"),
            stacked=True,
        ),
        lines(
            "By status",
            "All HTTP responses, of every route. 503 is a refusal, 499 a caller that left, 502 a host that failed.",
            "reqps",
            split(rate, "corral_http_responses_total", by="code"),
            stacked=True,
        ),
    ]


def _latency() -> list[Json]:
    tpot, duration = "corral_time_per_output_token_seconds", "corral_request_duration_seconds"
    late, early = (f'error="{which}"' for which in ("late", "early"))
    return [
        lines(
            "First token",
            "Queue, load and prompt are in it. p99 alone is high: cold starts. All are high: queue or slow hosts. The points are kept traces.",
            "s",
            *percentiles(TTFT, exemplar=True),
            limits=thresholds((TTFT_SECONDS, RED)),
            links=[SLOW],
        ),
        lines(
            "Each output token",
            "Seconds between tokens of a request, on average. Rises with more requests at a time on a host: fewer slots make each faster.",
            "s",
            *percentiles(tpot),
        ),
        lines(
            "Duration of good requests",
            "Headers received to last byte sent. Long answers are long: compare with the tokens of a request on the models' board.",
            "s",
            *percentiles(duration, 'outcome="ok"', exemplar=True),
        ),
        lines(
            "First token later than the objective",
            f"Streaming requests whose first token took longer than {TTFT_SECONDS:g} s. Steadily over {TTFT_BUDGET:.0%}: the objective is "
            "missed.",
            "percentunit",
            Query(f"1 - ({rate(f'{TTFT}_bucket', IN_TIME)} / ({rate(f'{TTFT}_count')} > 0))", "later"),
            limits=thresholds((TTFT_BUDGET, RED)),
            top=1,
        ),
        lines(
            "Longest silence, p95",
            "Of each request, the longest wait between two chunks. Over a second: people see the answer hang; see it by host.",
            "s",
            Query(quantile(0.95, "corral_max_chunk_gap_seconds"), "p95"),
        ),
        lines(
            "Error of predictions, p90",
            "Routing predicts the first byte in seconds; late: it came later than that. Late by seconds and more: routing knows too little of "
            "a host, see it by host there.",
            "s",
            Query(quantile(0.9, "corral_route_error_seconds", late), "later than predicted"),
            Query(quantile(0.9, "corral_route_error_seconds", early), "sooner than predicted"),
        ),
    ]


def _routing() -> list[Json]:
    return [
        lines(
            "Queue by model",
            "Requests that wait, and how many may. At the limit callers are refused: give the model to more hosts.",
            "none",
            split(over, of("corral_queue_depth"), by="model"),
            Query(over(of("corral_queue_limit")), "limit"),
        ),
        lines(
            "Wait for a slot",
            "Of those that ended. Oldest is the one that waits now: histograms are blind to it.",
            "s",
            Query(quantile(0.5, "corral_queue_wait_seconds"), "p50"),
            Query(quantile(0.95, "corral_queue_wait_seconds"), "p95"),
            Query(over(of("corral_queue_oldest_seconds"), how="max"), "oldest"),
        ),
        lines(
            "Why that host",
            "Much cold_load: models go in and out of memory, see cold starts. fallback: all hosts were ejected and one was used all the same.",
            "reqps",
            split(rate, "corral_routing_decisions_total", by="reason"),
            stacked=True,
        ),
        lines(
            "Retried, refused, no host",
            "Retried is invisible to callers; exhausted, refused and no host are not.",
            "reqps",
            Query(rate("corral_retries_total"), "retried"),
            Query(f"{rate('corral_retries_exhausted_total')} or vector(0)", "exhausted"),
            Query(rate("corral_requests_rejected_total", by="reason"), "refused: {{reason}}"),
            Query(rate("corral_requests_limited_total", by="limit"), "a key's limit: {{limit}}"),
            Query(rate("corral_http_turned_away_total", by="reason"), "at the door: {{reason}}"),
            Query(rate("corral_routing_failures_total", by="reason"), "no host: {{reason}}"),
            links=[FAILED],
        ),
        lines(
            "Cancellations",
            "Who stopped requests, and where they were. Many client_disconnect in prefill: people do not wait that long.",
            "reqps",
            Query(rate("corral_cancellations_total", by="source, phase"), "{{source}}, {{phase}}"),
            stacked=True,
        ),
        lines(
            "Tokens for nobody",
            "Output tokens each second that were generated and thrown away: the price of cancelling late and of hosts that fail in a stream.",
            "short",
            split(rate, "corral_wasted_tokens_total", by="reason"),
            axis="tokens/s",
            stacked=True,
        ),
    ]


def _gateway() -> list[Json]:
    written = increase("corral_db_records_total", by="outcome")
    return [
        lines(
            "Time in the gateway",
            "Per request, without queue and hosts. Over some milliseconds: see the event loop, and Corral's own board.",
            "s",
            *percentiles("corral_gateway_overhead_seconds"),
        ),
        lines(
            "Event loop lag, p99",
            "How late a timer fires. Over 50 ms streams stutter: the machine is too small, or something blocks.",
            "s",
            split(quantile, 0.99, "corral_event_loop_lag_seconds", by="instance"),
            limits=thresholds((0.1, RED)),
        ),
        lines(
            "CPU and memory",
            "Cores in use and bytes resident. One process cannot use more than one core: near it, run a second gateway.",
            "none",
            Query(rate("process_cpu_seconds_total"), "cores"),
            Query(over(of("process_resident_memory_bytes")), "memory", unit="bytes"),
        ),
        lines(
            "Records to the database",
            "What became of each request's record. dropped_*: history is lost. summed: the disk is nearly full.",
            "short",
            Query(written, "{{outcome}}"),
            stacked=True,
        ),
    ]
