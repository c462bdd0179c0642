"""Models: slow, split between GPU and CPU, in and out of memory; and what is good to know of the fleet."""

from grafana.queries import ruled
from grafana.rules.rule import INFO, TICKET, Alert, summed

DECODE = ruled("model_host:corral_decode_tokens_per_second:ratio_rate5m")
FIRST = ruled("host_le:corral_time_to_first_token_seconds_bucket:rate5m")
GAP, WITHIN_5S = "corral_max_chunk_gap_seconds", 'le="5.0"'
PINNED = 'kind="pin"'
BY_CALLER, FAILED = 'source="client_disconnect"', 'outcome=~"failed|partial"'

MODELS = [
    Alert(
        "CorralSlowDecode",
        TICKET,
        "15m",
        f"{DECODE} < 0.5 * avg_over_time({DECODE}[1d])",
        "{{ $labels.model }} on {{ $labels.host }} is half as fast as it was",
        "{{ $value | humanize }} tokens a second.",
    ),
    Alert(
        "CorralHostSlowerThanPeers",
        TICKET,
        "10m",
        f"(histogram_quantile(0.9, {FIRST}) > 2) > on (job) group_left () (3 * min by (job) (histogram_quantile(0.9, {FIRST})))",
        "First tokens of {{ $labels.host }} take three times as long as elsewhere",
        "{{ $value | humanizeDuration }} at the 90th percentile.",
    ),
    Alert(
        "CorralModelPartlyOnCpu",
        INFO,
        "10m",
        f"max by (job, host, model) ({ruled('corral_model_vram_bytes')}) / (max by (job, host, model) "
        f"({ruled('corral_model_size_bytes')}) > 0) < 0.98",
        "{{ $labels.model }} is partly on the CPU of {{ $labels.host }}",
        "{{ $value | humanizePercentage }} of it are in VRAM.",
    ),
    Alert(
        "CorralModelThrash",
        TICKET,
        "0s",
        summed("increase", "job, host", "30m", "corral_model_loads_total") + " > 12",
        "Models go in and out of the memory of {{ $labels.host }}",
        "{{ $value | humanize }} loads in half an hour.",
    ),
    Alert(
        "CorralPinnedModelMissing",
        TICKET,
        "10m",
        f"max by (job, host, model) ({ruled('corral_model_kept', PINNED)}) == 0 "
        f"and on (job, host) max by (job, host) ({ruled('corral_host_up')}) == 1 "
        f"unless on (job, host) max by (job, host) ({ruled('corral_host_draining')}) == 1",
        "{{ $labels.model }} is pinned to {{ $labels.host }} and not in its memory",
        "For ten minutes; who asks for it there waits for a load.",
    ),
    Alert(
        "CorralModelLoadSlow",
        TICKET,
        "0s",
        f"histogram_quantile(0.9, {summed('rate', 'job, host, le', '30m', 'corral_model_load_duration_seconds_bucket')}) > 60",
        "Cold starts on {{ $labels.host }} take over a minute",
        "{{ $value | humanizeDuration }} at the 90th percentile.",
    ),
    Alert(
        "CorralStreamsStall",
        TICKET,
        "10m",
        f"1 - ({summed('rate', 'job, host', '10m', f'{GAP}_bucket', WITHIN_5S)} / "
        f"({summed('rate', 'job, host', '10m', f'{GAP}_count')} > 0)) > 0.05",
        "Answers of {{ $labels.host }} hang",
        "{{ $value | humanizePercentage }} of its streams were silent for over 5 s.",
    ),
    Alert(
        "CorralCancellationsHigh",
        INFO,
        "15m",
        f"{summed('rate', 'job', '15m', 'corral_cancellations_total', BY_CALLER)} / "
        f"({summed('rate', 'job', '15m', 'corral_requests_total')} > 0.05) > 0.25",
        "Many callers leave before their answer is there",
        "{{ $value | humanizePercentage }} of requests.",
    ),
    Alert(
        "CorralFleetAmiss",
        INFO,
        "1h",
        f"max by (job, kind) ({ruled('corral_fleet_findings')}) > 0",
        "Amiss with the fleet: {{ $labels.kind }}",
        "{{ $value }} times; GET /api/fleet tells where.",
    ),
    Alert(
        "CorralHostDrainedLong",
        INFO,
        "1d",
        f"max by (job, host) ({ruled('corral_host_draining')}) == 1",
        "{{ $labels.host }} has been draining for a day",
        "It takes no new requests until somebody resumes it.",
    ),
    Alert(
        "CorralJobsFail",
        INFO,
        "0s",
        summed("increase", "job, kind", "1h", "corral_jobs_total", FAILED) + " > 0",
        "A {{ $labels.kind }} failed on some host",
        "{{ $value | humanize }} in an hour.",
    ),
]
