"""Which headers pass, and how heads are written.

A host must see its own address as Host (a loopback-bound Ollama answers 403 otherwise), no Origin (CORS is the gateway's business)
and none of the caller's credentials (Ollama would pass them on to its cloud). Hop-by-hop headers end at each hop.
"""

from collections.abc import Sequence
from http import HTTPStatus
from typing import ClassVar, Final

RawHeaders = Sequence[tuple[bytes, bytes]]

_HOP_BY_HOP: Final = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"content-length",
    )
)
_NOT_TO_HOSTS: Final = _HOP_BY_HOP | {
    b"host",
    b"expect",
    b"accept-encoding",  # nothing between us and the host shall compress what the meter reads
    b"origin",
    b"access-control-request-method",
    b"access-control-request-headers",
    b"authorization",
    b"proxy-authorization",
    b"x-api-key",
    b"cookie",
    b"api-key",  # as other services' clients send theirs
    b"x-auth-token",
    b"x-goog-api-key",
    b"referer",  # where a key may be in the path, these repeat it
    b"x-original-uri",
    b"x-original-url",
    b"x-rewrite-url",
    b"x-forwarded-uri",
    b"x-forwarded-prefix",  # Ollama would build redirects from it
    b"traceparent",  # each attempt has its own
    b"tracestate",
    b"baggage",  # may hold anything of the caller's
}
_NOT_TO_CLIENTS: Final = _HOP_BY_HOP | {
    b"access-control-allow-origin",
    b"access-control-allow-credentials",
    b"access-control-allow-headers",
    b"access-control-allow-methods",
    b"access-control-expose-headers",
    b"access-control-max-age",
    b"x-request-id",  # ours
    b"traceresponse",
}
OURS: Final = b"x-corral-"
NUM_CTX: Final = b"X-Corral-Num-Ctx"  # what was sent in place of the num_ctx that was asked for

_STATUS_LINES: Final = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
_STATUS_LINES[499] = b"HTTP/1.1 499 Client Closed Request\r\n"


class _Roles(dict[bytes, str]):
    """What a header is to us, by its name as written: worked out once for each spelling that is seen, for at most LIMIT."""

    LIMIT: ClassVar[int] = 1024

    def __init__(self, dropped: frozenset[bytes], noted: frozenset[bytes] = frozenset()) -> None:
        super().__init__()
        self._dropped = dropped
        self._noted = noted

    def __missing__(self, name: bytes) -> str:
        low = name.lower()
        passes = low not in self._dropped and not low.startswith(OURS)
        role = (NOTED_PASSING if passes else NOTED) if low in self._noted else PASSING if passes else DROPPED
        if len(self) < self.LIMIT:
            self[name] = role
        return role


PASSING, NOTED_PASSING, NOTED, DROPPED = "passing", "noted and passing", "noted", "dropped"
_LOOKED_AT: Final = {
    b"connection": "connection",
    b"content-type": "content_type",
    b"content-encoding": "content_encoding",
    b"expect": "expect",
    b"x-corral-session": "session",
    b"x-corral-host": "pin",
    b"x-corral-generation": "generation",
    b"x-corral-detach": "detach",
    b"x-corral-priority": "priority",
    b"x-corral-deadline": "deadline",
    b"x-corral-user": "user",
    b"traceparent": "traceparent",
    b"tracestate": "tracestate",
    b"x-request-id": "request_id",
}
_from_client: Final = _Roles(_NOT_TO_HOSTS, frozenset(_LOOKED_AT))
_from_host: Final = _Roles(_NOT_TO_CLIENTS)
_from_host[NUM_CTX] = PASSING  # of ours, or of a Corral behind this one


class Inbound:
    """A client's headers, read in one pass: the ``lines`` that go to the host, and the few values that we look at."""

    connection = ""
    content_type = ""
    content_encoding = ""
    session = ""
    expect = ""
    pin = ""
    generation = ""  # of a Corral that sent this on
    detach = ""
    priority = ""
    deadline = ""
    user: str | None = None  # not there; empty is refused, as it names nobody
    traceparent = ""
    tracestate = ""
    request_id = ""

    def __init__(self, lines: bytes = b"") -> None:
        self.lines = lines


def inbound(headers: RawHeaders) -> Inbound:
    """Sort a client's headers."""
    lines: list[bytes] = []
    noted: list[tuple[bytes, bytes]] = []
    for header in headers:
        role = _from_client[header[0]]
        if role is PASSING:
            lines.append(b"%b: %b\r\n" % header)
        elif role is not DROPPED:
            noted.append(header)
            if role is NOTED_PASSING:
                lines.append(b"%b: %b\r\n" % header)
    return _with_noted(lines, noted) if noted else Inbound(b"".join(lines))


def _with_noted(lines: list[bytes], noted: list[tuple[bytes, bytes]]) -> Inbound:
    read = Inbound()
    for name, value in noted:
        field, text = _LOOKED_AT[name.lower()], value.decode("latin-1")
        if before := getattr(read, field):
            text = f"{before},{text}"
        setattr(read, field, text)
    hop = read.connection
    if hop and hop.lower() not in ("keep-alive", "close"):  # it names headers that are meant for this hop only
        named = {token.strip().lower() for token in hop.encode("latin-1").split(b",")}
        lines = [line for line in lines if line.partition(b":")[0].lower() not in named]
    read.lines = b"".join(lines)
    return read


def to_host(headers: RawHeaders) -> list[tuple[str, str]]:
    """A client's headers that pass, as text, for requests that a framework writes."""
    pairs = [line.partition(b": ") for line in inbound(headers).lines.split(b"\r\n")[:-1]]
    return [(name.decode("latin-1"), value.decode("utf-8", errors="replace")) for name, _, value in pairs]


class OfHost:
    """Headers that a host is sent with each request, as configured: their ``lines``, in place of a caller's of the same ``names`` (in lower case)."""

    def __init__(self, headers: Sequence[tuple[str, str]]) -> None:
        self.names = frozenset(name.lower().encode() for name, _ in headers)
        self.lines = b"".join([f"{name}: {value}\r\n".encode("latin-1") for name, value in headers])

    def among(self, lines: bytes) -> bytes:
        """A caller's ``lines`` with these."""
        others = [line for line in lines.splitlines(keepends=True) if line.partition(b":")[0].lower() not in self.names]
        return b"".join(others) + self.lines


def request_head(target: str, authority: str, lines: bytes, length: int, generation: str, trace: str = "") -> bytes:
    """The head of a POST to a host. ``target``: path and query; ``lines``: a caller's that pass; ``length`` of the body in bytes; ``trace``: whole lines."""
    ours = f"POST {target} HTTP/1.1\r\nHost: {authority}\r\nContent-Length: {length}\r\nX-Corral-Generation: {generation}\r\n{trace}"
    return b"%b%b\r\n" % (ours.encode("latin-1"), lines)


def response_head(status: int, headers: RawHeaders, framing: bytes, ours: bytes) -> bytes:
    """The head of an answer: the host's headers less what ends here, ``framing`` (a whole header line) and ``ours`` (whole lines)."""
    line = _STATUS_LINES.get(status) or b"HTTP/1.1 %d Status\r\n" % status
    passed = [b"%b: %b\r\n" % header for header in headers if _from_host[header[0]] is PASSING]
    return b"".join((line, *passed, framing, ours, b"\r\n"))


def passing(headers: RawHeaders) -> list[tuple[str, str]]:
    """The host's headers that pass, as text, for answers that a framework writes."""
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers if _from_host[name] is PASSING]


def value_of(headers: RawHeaders, wanted: bytes) -> bytes:
    """The first value of a header, or nothing. ``wanted`` in lower case."""
    for name, value in headers:
        if name.lower() == wanted:
            return value
    return b""
