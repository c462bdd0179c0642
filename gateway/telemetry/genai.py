"""The same generations under OpenTelemetry's names for generative AI, for dashboards that know those (``metrics.genai_semconv``).

The conventions are in development: the names are written out here and pinned by a test, so that nothing renames them behind anybody's back.
Their buckets end where a GPU service's patience does; a cold start of a local model takes longer, so the first token's go on to 120 s.
"""

from gateway.record import Accounting, GenerationRecord, Outcome
from gateway.telemetry.families import Family, Histogram, histogram

PROVIDER = "ollama"
_DURATION = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_FIRST = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 15, 20, 30, 60, 120)
_EACH = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5)
_TOKENS = tuple(4**power for power in range(14))
_LABELS = ("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model")


class GenAi:
    """Four families. ``error_type`` is the outcome, empty where all went well."""

    def __init__(self) -> None:
        self.duration = histogram(
            "gen_ai_server_request_duration_seconds",
            "From headers received to last byte sent.",
            _DURATION,
            *_LABELS,
            "error_type",
        )
        self.first_token = histogram(
            "gen_ai_server_time_to_first_token_seconds",
            "Streaming answers that came whole: headers received to first chunk sent.",
            _FIRST,
            *_LABELS,
        )
        self.output_token = histogram(
            "gen_ai_server_time_per_output_token_seconds",
            "Streaming answers that came whole: what followed the first chunk, by output tokens less one.",
            _EACH,
            *_LABELS,
        )
        self.tokens = histogram(
            "gen_ai_client_token_usage", "Tokens that the host reported.", _TOKENS, *_LABELS, "gen_ai_token_type"
        )

    def families(self) -> list[Family[Histogram]]:
        """All four."""
        return [self.duration, self.first_token, self.output_token, self.tokens]

    def observe(self, record: GenerationRecord, model: str) -> None:
        """Count one generation. ``model`` is its bounded name."""
        labels = (record.operation, PROVIDER, model)
        good = record.outcome is Outcome.OK
        self.duration.labels(*labels, "" if good else record.outcome).observe(record.duration_seconds)
        if good and (first := record.first_token_seconds) is not None:
            self.first_token.labels(*labels).observe(first)
            if (seconds := record.seconds_per_output_token) is not None:
                self.output_token.labels(*labels).observe(seconds)
        usage = record.usage
        if usage.accounting is Accounting.REPORTED:
            self.tokens.labels(*labels, "input").observe(usage.input_tokens)
            self.tokens.labels(*labels, "output").observe(usage.output_tokens)
