"""Which headers pass, and how heads are written.

A host must see its own address as Host (a loopback-bound Ollama answers 403 otherwise), no Origin (CORS is the gateway's business)
and none of the caller's credentials (Ollama would pass them on to its cloud). Hop-by-hop headers end at each hop.
"""

from collections.abc import Iterable
from http import HTTPStatus

RawHeaders = Iterable[tuple[bytes, bytes]]

_HOP_BY_HOP = frozenset(
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
_NOT_TO_HOSTS = _HOP_BY_HOP | {
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
    b"x-forwarded-prefix",  # Ollama would build redirects from it
}
_NOT_TO_CLIENTS = _HOP_BY_HOP | {
    b"access-control-allow-origin",
    b"access-control-allow-credentials",
    b"access-control-allow-headers",
    b"access-control-allow-methods",
    b"access-control-expose-headers",
    b"access-control-max-age",
}
OURS = b"x-corral-"

_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
_STATUS_LINES[499] = b"HTTP/1.1 499 Client Closed Request\r\n"


def request_head(path: str, query: str, authority: str, headers: RawHeaders, length: int, generation: str) -> bytes:
    """The head of a POST to a host. ``headers`` are the client's, unfiltered; ``length`` of the body in bytes."""
    target = f"{path}?{query}" if query else path
    lines = [
        f"POST {target} HTTP/1.1\r\nHost: {authority}\r\nContent-Length: {length}\r\nX-Corral-Generation: {generation}\r\n".encode(
            "latin-1"
        )
    ]
    named: frozenset[bytes] | None = None
    for name, value in headers:
        low = name.lower()
        if low in _NOT_TO_HOSTS or low.startswith(OURS):
            if low == b"connection":
                named = frozenset(token.strip().lower() for token in value.split(b",")) - {b"keep-alive", b"close"}
            continue
        lines.append(b"%b: %b\r\n" % (name, value))
    if named:
        lines = [line for line in lines if line.partition(b":")[0].lower() not in named]
    lines.append(b"\r\n")
    return b"".join(lines)


def response_head(status: int, headers: RawHeaders, framing: bytes, ours: bytes) -> bytes:
    """The head of an answer: the host's headers less what ends here, ``framing`` (a whole header line) and ``ours`` (whole lines)."""
    lines = [_STATUS_LINES.get(status) or b"HTTP/1.1 %d Status\r\n" % status]
    for name, value in headers:
        low = name.lower()
        if low not in _NOT_TO_CLIENTS and not low.startswith(OURS):
            lines.append(b"%b: %b\r\n" % (name, value))
    lines.append(framing)
    lines.append(ours)
    lines.append(b"\r\n")
    return b"".join(lines)


def passing(headers: RawHeaders) -> list[tuple[str, str]]:
    """The host's headers that pass, as text, for answers that a framework writes."""
    return [
        (name.decode("latin-1"), value.decode("latin-1"))
        for name, value in headers
        if name.lower() not in _NOT_TO_CLIENTS and not name.lower().startswith(OURS)
    ]


def value_of(headers: RawHeaders, wanted: bytes) -> bytes:
    """The first value of a header, or nothing. ``wanted`` in lower case."""
    for name, value in headers:
        if name.lower() == wanted:
            return value
    return b""
