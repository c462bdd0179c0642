"""Why a generation was not served: the errors that callers see, and the outcomes they are."""

from typing import Final

from gateway.dialects.request import InferenceRequest
from gateway.errors import (
    BadRequest,
    Cancelled,
    CorralError,
    DeadlineExceeded,
    HostsFailed,
    ModelNotFound,
    NoHost,
    ShuttingDown,
)
from gateway.record import CancelSource, GenerationRecord, Outcome
from gateway.routing.policy import Unroutable

BUSY: Final = (429, 503)
RETRY_AFTER_SECONDS: Final = 5.0
_MISSING: dict[int, type[CorralError]] = {404: ModelNotFound}
STOPPED: dict[CancelSource, type[CorralError]] = {
    CancelSource.CLIENT: Cancelled,
    CancelSource.OPERATOR: Cancelled,
    CancelSource.DEADLINE: DeadlineExceeded,
    CancelSource.SHUTDOWN: ShuttingDown,
    CancelSource.ORPHAN: Cancelled,
}
_OUTCOMES: Final = {
    "model_not_found": Outcome.CLIENT_ERROR,
    "bad_request": Outcome.CLIENT_ERROR,
    "no_host": Outcome.NO_HOST,
    "hosts_failed": Outcome.UPSTREAM_ERROR,
    "queue_full": Outcome.REJECTED,
    "deadline_unmet": Outcome.REJECTED,
}


def missing_model(status: int, message: str) -> CorralError:
    """A request without a model: what Ollama says of it differs by path."""
    return _MISSING.get(status, BadRequest)(message)


def outcome_of_error(error: CorralError) -> Outcome:
    """How a generation ended that ended in this error."""
    return _OUTCOMES.get(error.code, Outcome.GATEWAY_ERROR)


def unroutable(request: InferenceRequest, verdict: Unroutable, failures: list[str]) -> CorralError:
    """No host may take it, perhaps because those that may have failed it."""
    if failures:
        return hosts_failed(failures, 0)
    if verdict.unknown_model:
        where = f" on host {request.pin}" if request.pin else _hint(request.requested_model, verdict)
        return ModelNotFound(request.endpoint.not_found.format(request.requested_model) + where)
    reasons = "; ".join(f"{left_out.host} {left_out.why}" for left_out in verdict.rejected)
    why = reasons or "no host is configured or found now"
    return NoHost(f"no host can take {request.requested_model!r}: {why}", retry_after=RETRY_AFTER_SECONDS)


def _hint(asked: str, verdict: Unroutable) -> str:
    """For who writes ``model@host`` where that means nothing."""
    model, _, host = asked.rpartition("@")
    if not model or host not in {left_out.host for left_out in verdict.rejected}:
        return ""
    return f"; for {model!r} on host {host} set X-Corral-Host, or relay.model_at_host = true in Corral's configuration"


def hosts_failed(failures: list[str], status: int) -> HostsFailed:
    """Every host tried has failed; ``status`` of the last one's answer, 0 if it gave none."""
    tried = f"{len(failures)} hosts were tried and failed: " if len(failures) > 1 else ""
    return HostsFailed(
        tried + "; ".join(failures),
        status=status if status >= 400 else 502,
        retry_after=RETRY_AFTER_SECONDS if status in BUSY else None,
    )


def broken_off(record: GenerationRecord) -> CorralError:
    """What there is to say of an answer in one piece that never came whole."""
    if record.cancelled_by is not None:
        return STOPPED[record.cancelled_by](record.reason)
    return hosts_failed([record.reason], 0)
