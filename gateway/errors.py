"""The error tree. Every error says its HTTP status, a stable code for programs, and whose fault it is.

Foreign exceptions are mapped to these at one edge (relay/upstream.py for hosts, api/middleware.py for clients); the dialects
render them. ``docs/errors.md`` lists the codes.
"""

from enum import StrEnum


class Fault(StrEnum):
    """Who has to act: the caller, a host, or Corral's operator."""

    CLIENT = "client"
    HOST = "host"
    GATEWAY = "gateway"


class CorralError(Exception):
    """A fault of Corral's: the log has the details.

    The root of all errors that can be told to a caller. ``retry_after`` is in seconds; ``generation``: the id of one that is in the way.
    """

    status = 500
    code = "internal"
    fault = Fault.GATEWAY
    again = True  # False: clients that retry by themselves are told not to
    closes = False  # True: the connection is of no more use

    place: int | None = None  # in the queue, had it waited
    wait_seconds: float | None = None  # as was foretold
    headers: tuple[tuple[str, str], ...] = ()  # of the answer, beside those that every error has

    def __init__(self, message: str, *, retry_after: float | None = None, generation: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.retry_after = retry_after
        self.generation = generation


def internal() -> CorralError:
    """What nobody has thought of; whoever catches it logs it."""
    return CorralError("internal error; the log has the details")


class ConfigError(CorralError):
    """The configuration cannot be used; the message says which key and how to mend it."""

    code = "config"


class BadRequest(CorralError):
    """The body or a header cannot be read."""

    status = 400
    code = "bad_request"
    fault = Fault.CLIENT


class NotHttp(CorralError):
    """What was sent is not HTTP/1.1 or 1.0, or its head could be read in two ways. The connection is closed."""

    status = 400
    code = "not_http"
    fault = Fault.CLIENT
    closes = True


class HeadTooLarge(CorralError):
    """A line of the request's head is over 8190 bytes, or all of it over 64 KB. The connection is closed."""

    status = 431
    code = "head_too_large"
    fault = Fault.CLIENT
    closes = True


class TooSlow(CorralError):
    """The request's head or body does not come, or comes too slowly (`connections.head_seconds`, `connections.body_seconds`). The connection is closed."""

    status = 408
    code = "too_slow"
    fault = Fault.CLIENT
    closes = True


class TooManyConnections(CorralError):
    """So many connections are open, in all or of that address (`connections.total`, `connections.per_address`), that this one is closed."""

    status = 503
    code = "too_many_connections"
    closes = True


class Forbidden(CorralError):
    """A web page of another site asks, or the Host header is not let in (no body, as with Ollama); the log says which."""

    status = 403
    code = "forbidden"
    fault = Fault.CLIENT


class Unauthorized(CorralError):
    """A key is missing, unknown or has expired."""

    status = 401
    code = "unauthorized"
    fault = Fault.CLIENT


class NotAllowed(CorralError):
    """The key is good, but not for this."""

    status = 403
    code = "not_allowed"
    fault = Fault.CLIENT


class RateLimited(CorralError):
    """The key may send no more just now (`--rpm`, `--tpm`, `--concurrency`); `RateLimit` says of each limit what is left."""

    status = 429
    code = "rate_limit_exceeded"
    fault = Fault.CLIENT


class OverBudget(RateLimited):
    """The key has used up its tokens of this day or month (`--budget`). `x-should-retry: false` tells OpenAI's and Anthropic's clients not to try again by themselves."""

    code = "insufficient_quota"
    again = False


class TooLarge(CorralError):
    """The body is over the configured limit."""

    status = 413
    code = "too_large"
    fault = Fault.CLIENT


class BodiesFull(CorralError):
    """Large bodies of other requests hold all the memory that is meant for them (`relay.bodies_bytes`). Small ones are served."""

    status = 503
    code = "bodies_full"


class ModelNotFound(CorralError):
    """No host has the model."""

    status = 404
    code = "model_not_found"
    fault = Fault.CLIENT


class NotFound(CorralError):
    """A thing of Corral's own (a generation, a host) does not exist."""

    status = 404
    code = "not_found"
    fault = Fault.CLIENT


class Gone(CorralError):
    """An answer was too large to be kept for its readers."""

    status = 410
    code = "gone"
    fault = Fault.CLIENT


class NoHost(CorralError):
    """The model may exist, but no host can take the request."""

    status = 503
    code = "no_host"
    fault = Fault.HOST


class Conflict(CorralError):
    """What was asked does not go together with what is under way."""

    status = 409
    code = "conflict"
    fault = Fault.CLIENT


class StoreUnavailable(CorralError):
    """The database cannot be reached now; nothing that needs it can be promised. Relaying goes on."""

    status = 503
    code = "store_unavailable"


class StoreNewer(StoreUnavailable):
    """The database was made by a newer version: nothing is written to it."""

    code = "store_newer"


class StoreSlow(CorralError):
    """The database is there, but what was asked takes too long: ask for a shorter time or with fewer filters."""

    status = 504
    code = "store_slow"
    fault = Fault.GATEWAY


class QueueFull(CorralError):
    """The waiting room is full, or holds as many requests of this principal as may wait (`queue.per_principal`)."""

    status = 503
    code = "queue_full"


class DeadlineUnmet(CorralError):
    """The first byte would come later than the caller waits (`X-Corral-Deadline`, `queue.deadline_seconds`), as far as can be told: it was not let in, or waits no more. Without a `Retry-After` no free host would help. A deadline of the caller's own is the caller's to miss: the record says `cancelled`."""

    status = 503
    code = "deadline_unmet"


class ShuttingDown(CorralError):
    """The gateway is stopping and takes no new work."""

    status = 503
    code = "shutting_down"


class Loop(CorralError):
    """The request came back to the Corral that sent it on: one of its hosts is itself."""

    status = 508
    code = "loop"
    fault = Fault.GATEWAY


class HostsFailed(CorralError):
    """Every host tried failed before its first byte; the message names each and why. The status is that of the last one's answer if it gave one: 404 (of a model that it had listed), 429, 500, 503 or 504."""

    status = 502
    code = "hosts_failed"
    fault = Fault.HOST

    def __init__(self, message: str, *, status: int = 502, retry_after: float | None = None) -> None:
        super().__init__(message, retry_after=retry_after)
        self.status = status


class Cancelled(CorralError):
    """The generation was stopped by an operator or a session before its first byte."""

    status = 499
    code = "cancelled"
    fault = Fault.CLIENT


class DeadlineExceeded(CorralError):
    """The generation's deadline passed before its first byte. `x-should-retry: false` tells OpenAI's and Anthropic's clients, which retry a 504, not to."""

    status = 504
    again = False
    code = "deadline"
    fault = Fault.GATEWAY
