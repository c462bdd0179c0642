"""What one kind of request touches: its counters and histograms, looked up once."""

from collections.abc import Callable
from typing import Final

from gateway.record import Accounting, AttemptOutcome, GenerationRecord, Route
from gateway.telemetry.catalogue import Catalogue
from gateway.telemetry.families import Counter

_OK: Final = AttemptOutcome.OK
_REPORTED: Final = Accounting.REPORTED

_EVAL: Final = ("load", "prompt_eval", "eval")


class Series:
    """The children for one operation, model, outcome and host. ``label`` bounds the names of hosts."""

    def __init__(
        self, catalogue: Catalogue, label: Callable[[str], str], operation: str, model: str, outcome: str, host: str
    ) -> None:
        self._catalogue = catalogue
        self._label = label
        catalogue.expect_requests(operation, model)
        self._requests = catalogue.requests.labels(operation, model, outcome)
        self._duration = catalogue.duration.labels(operation, model, outcome)
        self._overhead = catalogue.overhead.labels(operation)
        self._bytes_in = catalogue.body_bytes.labels(operation, "in")
        self._bytes_out = catalogue.body_bytes.labels(operation, "out")
        self._wait = catalogue.queue_wait.labels(model, _wait_outcome(outcome, host))
        self._decisions: dict[tuple[str, str], Counter] = {}
        self._excluded: dict[tuple[str, str], Counter] = {}
        if host:
            self._ok = catalogue.attempts.labels(host, _OK)
            self._ok_duration = catalogue.attempt_duration.labels(host, _OK)
            self._ttft = catalogue.ttft.labels(model, host)
            self._tpot = catalogue.tpot.labels(model, host)
            self._gap = catalogue.gap.labels(model, host)
            self._early = catalogue.prediction_error.labels(host, "early")
            self._late = catalogue.prediction_error.labels(host, "late")
            self._loading = catalogue.load_duration.labels(host)
            self._input = {one: catalogue.tokens.labels(model, host, "input", one) for one in Accounting}
            self._output = {one: catalogue.tokens.labels(model, host, "output", one) for one in Accounting}
            self._input_size = catalogue.request_tokens.labels(model, "input")
            self._output_size = catalogue.request_tokens.labels(model, "output")
            self._load, self._prompt, self._eval = [catalogue.eval_seconds.labels(model, host, one) for one in _EVAL]

    def observe(self, record: GenerationRecord, trace: str) -> None:
        """Count one of them. ``trace``: the id of its trace if that is kept."""
        duration = record.duration_seconds
        self._requests.inc()
        self._duration.observe(duration)
        self._overhead.observe(record.overhead_seconds)
        self._wait.observe(record.queue_seconds)
        self._bytes_in.inc(record.bytes_in)
        self._bytes_out.inc(record.bytes_out)
        if record.route is not None:
            self._observe_route(record.route)
        if not record.attempts:
            if trace:
                self._duration.exemplify(duration, trace, record.received_at + duration)
            return
        last = record.attempts[-1]
        if last.outcome is _OK:
            self._ok.inc()
            self._ok_duration.observe(last.seconds)
        if (first := record.first_token_seconds) is not None:
            self._ttft.observe(first)
            self._gap.observe(record.max_gap_seconds)
            if (tpot := record.seconds_per_output_token) is not None:
                self._tpot.observe(tpot)
        if (error := record.prediction_error_seconds) is not None:
            (self._late if error >= 0 else self._early).observe(abs(error))
        self._observe_usage(record)
        if trace:
            self._exemplify(record, trace)

    def _observe_usage(self, record: GenerationRecord) -> None:
        usage = record.usage
        accounting, tokens_in, tokens_out = usage.accounting, usage.input_tokens, usage.output_tokens
        if tokens_in:
            self._input[accounting].inc(tokens_in)
        if tokens_out:
            self._output[accounting].inc(tokens_out)
        if accounting is _REPORTED:
            if tokens_in or tokens_out:
                self._input_size.observe(tokens_in)
                self._output_size.observe(tokens_out)
            load = usage.load_seconds
            self._load.inc(load)
            self._prompt.inc(usage.prefill_seconds)
            self._eval.inc(usage.decode_seconds)
            if load and record.cold:
                self._loading.observe(load)

    def _observe_route(self, route: Route) -> None:
        where = (route.host, route.reason)
        decision = self._decisions.get(where)
        if decision is None:
            decision = self._decisions[where] = self._catalogue.decisions.labels(self._label(route.host), route.reason)
        decision.inc()
        for left_out in route.rejected:
            key = (left_out.host, left_out.code)
            excluded = self._excluded.get(key)
            if excluded is None:
                excluded = self._excluded[key] = self._catalogue.excluded.labels(
                    self._label(left_out.host), left_out.code
                )
            excluded.inc()

    def _exemplify(self, record: GenerationRecord, trace: str) -> None:
        """Where the trace is worth following: what took long."""
        at = record.received_at + record.duration_seconds
        self._duration.exemplify(record.duration_seconds, trace, at)
        last = record.attempts[-1]
        duration = self._catalogue.attempt_duration.labels(self._label(last.host), last.outcome)
        duration.exemplify(last.seconds, trace, at)
        if (first := record.first_token_seconds) is not None:
            self._ttft.exemplify(first, trace, at)
        if record.cold and record.usage.load_seconds:
            self._loading.exemplify(record.usage.load_seconds, trace, at)


def _wait_outcome(outcome: str, host: str) -> str:
    if host:
        return "admitted"
    return {"cancelled": "cancelled", "timeout": "timeout"}.get(outcome, "refused")
