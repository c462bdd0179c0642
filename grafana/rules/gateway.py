"""Corral itself: held up, not writing, losing things."""

from grafana.queries import ruled
from grafana.rules.rule import INFO, TICKET, Alert, summed

LAG = "corral_event_loop_lag_seconds"
UNSENT = 'reason=~"queue_full|export_failed"'
DROPPED, SUMMED, UNKEPT = 'outcome=~"dropped_.+"', 'outcome="summed"', 'outcome="unkept"'

GATEWAY = [
    Alert(
        "CorralEventLoopLag",
        TICKET,
        "5m",
        f"histogram_quantile(0.99, {summed('rate', 'job, instance, le', '5m', f'{LAG}_bucket')}) > 0.1",
        "Corral on {{ $labels.instance }} is held up",
        "Timers fire {{ $value | humanizeDuration }} late at the 99th percentile: streams stutter.",
    ),
    Alert(
        "CorralOverheadHigh",
        TICKET,
        "10m",
        f"histogram_quantile(0.95, {summed('rate', 'job, le', '10m', 'corral_gateway_overhead_seconds_bucket')}) > 0.025",
        "Requests spend long in Corral itself",
        "{{ $value | humanizeDuration }} at the 95th percentile.",
    ),
    Alert(
        "CorralDbDown",
        TICKET,
        "5m",
        f"{ruled('corral_db_up')} == 0",
        "The database of {{ $labels.instance }} is away",
        "Requests are served; sessions and history are not.",
    ),
    Alert(
        "CorralDbBacklog",
        TICKET,
        "5m",
        f"{ruled('corral_db_queue_depth')} / on (job, instance) ({ruled('corral_db_queue_limit')} > 0) > 0.5",
        "Records wait for the database of {{ $labels.instance }}",
        "{{ $value | humanizePercentage }} of as many as may; what comes beyond that is dropped.",
    ),
    Alert(
        "CorralDbDrops",
        TICKET,
        "0s",
        summed("increase", "job, outcome", "10m", "corral_db_records_total", DROPPED) + " > 0",
        "History is lost: {{ $labels.outcome }}",
        "{{ $value | humanize }} records in ten minutes.",
    ),
    Alert(
        "CorralDbStalled",
        TICKET,
        "1m",
        f"time() - {ruled('corral_db_last_flush_timestamp_seconds')} > 120 and on (job, instance) {ruled('corral_db_queue_depth')} > 0",
        "Nothing is written to the database of {{ $labels.instance }}",
        "For {{ $value | humanizeDuration }}, with records waiting.",
    ),
    Alert(
        "CorralDbDiskLow",
        TICKET,
        "0s",
        summed("increase", "job", "10m", "corral_db_records_total", SUMMED) + " > 0",
        "The database's disk is nearly full",
        "Of requests only sums are kept.",
    ),
    Alert(
        "CorralAnswersUnkept",
        TICKET,
        "0s",
        summed("increase", "job", "10m", "corral_turns_total", UNKEPT) + " > 0",
        "Answers are missing in sessions",
        "{{ $value | humanize }} could not be written in time.",
    ),
    Alert(
        "CorralReplicaBusDown",
        TICKET,
        "5m",
        f"{ruled('corral_replica_bus_up')} == 0",
        "{{ $labels.instance }} and the other gateways do not hear each other",
        "Stopping a request that another gateway runs is slow, and slots held elsewhere are not known.",
    ),
    Alert(
        "CorralConfigReloadFailed",
        TICKET,
        "5m",
        f"{ruled('corral_config_last_reload_successful')} == 0",
        "The configuration of {{ $labels.instance }} has a mistake",
        "The one before it is in force.",
    ),
    Alert(
        "CorralTaskFailed",
        TICKET,
        "0s",
        summed("increase", "job, instance", "1h", "corral_task_failures_total") + " > 0",
        "A background task of {{ $labels.instance }} failed",
        "{{ $value | humanize }} in an hour; the log has the traceback.",
    ),
    Alert(
        "CorralLabelOverflow",
        INFO,
        "0s",
        summed("increase", "job, label", "1h", "corral_label_overflow_total") + " > 0",
        "More values of {{ $labels.label }} than metrics tell apart",
        "What comes now is counted as _other.",
    ),
    Alert(
        "CorralSpansDropped",
        INFO,
        "10m",
        summed("increase", "job, reason", "10m", "corral_spans_dropped_total", UNSENT) + " > 0",
        "Traces are lost: {{ $labels.reason }}",
        "{{ $value | humanize }} spans in ten minutes.",
    ),
    Alert(
        "CorralLogLinesDropped",
        INFO,
        "0s",
        summed("increase", "job, instance", "10m", "corral_log_lines_dropped_total") + " > 0",
        "{{ $labels.instance }} loses log lines",
        "{{ $value | humanize }} in ten minutes.",
    ),
]
