"""Hosts, the queue and the way in: what is wrong with the fleet as a whole or with one host."""

from grafana.queries import FAULTY, ruled
from grafana.rules.rule import PAGE, TICKET, Alert, Recording, summed

TTFT = "corral_time_to_first_token_seconds"
NOT_CANCELLED, OVERLOAD = 'outcome!="cancelled"', 'reason=~"queue_full|draining"'

_GENERATED = ruled("corral_tokens_total", 'type="output"', 'accounting="reported"')
_DECODING = ruled("corral_host_eval_seconds_total", 'phase="eval"')
_USED, _SLOTS = ruled("corral_host_leases"), ruled("corral_host_concurrency_limit")
_OPEN = (  # hosts that some gateway may send requests to
    f"max by (job, host) ({ruled('corral_host_up')} == 1 unless on (job, instance, host) {ruled('corral_host_draining')} == 1)"
)
RATIOS = [
    Recording(
        "host_le:corral_time_to_first_token_seconds_bucket:rate5m",
        f"sum by (job, host, le) (rate({ruled(f'{TTFT}_bucket')}[5m]))",
    ),
    Recording(
        "model_host:corral_decode_tokens_per_second:ratio_rate5m",
        f"sum by (job, model, host) (rate({_GENERATED}[5m])) / (sum by (job, model, host) (rate({_DECODING}[5m])) > 0)",
    ),
    Recording(
        "host:corral_slot_utilisation:ratio",
        f"sum by (job, host) ({_USED}) / (max by (job, host) ({_SLOTS}) > 0)",
    ),
    Recording(
        "job:corral_queue_utilisation:ratio",
        f"sum by (job) ({ruled('corral_queue_depth')}) / (sum by (job) ({ruled('corral_queue_limit')}) > 0)",
    ),
]

FLEET = [
    Alert(
        "CorralDown",
        PAGE,
        "1m",
        f"{ruled('up')} == 0",
        "Corral on {{ $labels.instance }} does not answer",
        "Prometheus cannot scrape it.",
    ),
    Alert(
        "CorralAbsent", PAGE, "5m", f"absent({ruled('up')})", "Prometheus knows of no Corral", "No target has this job."
    ),
    Alert(
        "CorralNoHealthyHost",
        PAGE,
        "30s",
        f"sum by (job) ({ruled('corral_host_up')}) == 0",
        "No host can be used",
        "Every host is ejected or has never answered: requests fail, or wait until one comes back.",
    ),
    Alert(
        "CorralHostDown",
        TICKET,
        "2m",
        f"min by (job, host) ({ruled('corral_host_up')}) == 0 unless on (job, host) "
        f"max by (job, host) ({ruled('corral_host_draining')}) == 1",
        "{{ $labels.host }} is down",
        "At least one gateway cannot use it: it does not answer, or its requests fail.",
        "5m",
    ),
    Alert(
        "CorralHostFlapping",
        TICKET,
        "0s",
        f"max by (job, host) (changes({ruled('corral_host_up')}[30m])) > 6",
        "{{ $labels.host }} comes and goes",
        "It went up or down {{ $value }} times in half an hour.",
    ),
    Alert(
        "CorralHostPollStale",
        TICKET,
        "1m",
        f"time() - {ruled('corral_host_last_success_timestamp_seconds')} > 120 and on (job, instance, host) {ruled('corral_host_up')} == 1",
        "{{ $labels.host }} counts as up and is not polled",
        "Its last good poll was {{ $value | humanizeDuration }} ago.",
    ),
    Alert(
        "CorralHostErrors",
        TICKET,
        "5m",
        f"{summed('rate', 'job, host', '5m', 'corral_upstream_attempts_total', FAULTY)} / "
        f"({summed('rate', 'job, host', '5m', 'corral_upstream_attempts_total', NOT_CANCELLED)} > 0.05) > 0.1",
        "{{ $labels.host }} fails requests",
        "{{ $value | humanizePercentage }} of its attempts.",
    ),
    Alert(
        "CorralRetriesExhausted",
        TICKET,
        "0s",
        summed("increase", "job, model", "10m", "corral_retries_exhausted_total") + " > 3",
        "Requests for {{ $labels.model }} fail on every host",
        "{{ $value | humanize }} in ten minutes.",
    ),
    Alert(
        "CorralQueueNearlyFull",
        TICKET,
        "2m",
        f"{ruled('job:corral_queue_utilisation:ratio')} > 0.8",
        "The queue is nearly full",
        "{{ $value | humanizePercentage }} of the places in it are taken; when all are, callers are refused.",
    ),
    Alert(
        "CorralFleetFull",
        TICKET,
        "30m",
        f"min by (job) ({ruled('host:corral_slot_utilisation:ratio')} and on (job, host) {_OPEN}) >= 1",
        "Every slot of every host is taken that is up and not draining",
        "For half an hour. What comes now waits.",
    ),
    Alert(
        "CorralQueueStuck",
        PAGE,
        "1m",
        f"{ruled('corral_queue_oldest_seconds')} > 60 and on (job, instance) sum by (job, instance) ({ruled('corral_host_leases')}) == 0",
        "Requests wait on {{ $labels.instance }}, and nothing runs",
        "The oldest for {{ $value | humanizeDuration }}.",
    ),
    Alert(
        "CorralRejecting",
        TICKET,
        "5m",
        summed("rate", "job, reason", "5m", "corral_requests_rejected_total", OVERLOAD) + " > 0",
        "Callers are refused: {{ $labels.reason }}",
        "{{ $value | humanize }} requests each second.",
    ),
]
