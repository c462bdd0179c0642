"""Recorded and made-up answers as one piece of bytes, every way to cut them, and how clients read them."""

import json
from typing import Any

from hypothesis import strategies as st

from gateway.dialects.endpoints import ENDPOINTS
from gateway.dialects.lines import HEAD_BYTES, KEEP_BYTES, Framing, framing_of
from gateway.dialects.request import Endpoint, Farewell
from tests.contract.cases import CASES

STREAMS = {
    name: b"".join(chunk for chunk in case.chunks if isinstance(chunk, bytes))
    for name, case in CASES.items()
    if case.streams and case.path in ENDPOINTS
}
"""The recorded streams of inference by case, each as one piece."""


def endpoint_of(name: str) -> Endpoint:
    """The endpoint that a recorded case called."""
    return ENDPOINTS[CASES[name].path]


def framing_in(name: str) -> Framing:
    """How a recorded answer is framed."""
    return framing_of(dict(CASES[name].answer_headers)["Content-Type"].encode())


@st.composite
def cuts(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """``data`` in pieces, some of them empty."""
    places = sorted(draw(st.lists(st.integers(0, len(data)), max_size=12)))
    return [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)]


def line(**fields: object) -> bytes:
    """One NDJSON line."""
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def event(name: str = "", /, **fields: object) -> bytes:
    """One SSE event."""
    return (f"event: {name}\n".encode() if name else b"") + b"data: " + line(**fields) + b"\n"


def lines_of(stream: bytes) -> list[Any]:
    """What a client reads of NDJSON: each line whole, each a JSON value, none empty."""
    assert stream.endswith(b"\n") or not stream
    return [json.loads(text) for text in stream.decode().split("\n")[:-1]]


def events_of(stream: bytes) -> list[tuple[str, Any]]:
    """What a client reads of SSE: (event name, data); the data is JSON but for ``[DONE]``."""
    assert stream.endswith(b"\n\n") or not stream
    found = []
    for text in stream.decode().split("\n\n")[:-1]:
        fields = dict(row.split(": ", 1) for row in text.split("\n"))
        assert set(fields) <= {"event", "data"}
        data = fields["data"]
        found.append((fields.get("event", ""), data if data == "[DONE]" else json.loads(data)))
    return found


def words(seen: bytes = b"", **changes: Any) -> Farewell:
    """What there is to say at the end of what was seen."""
    usual = {
        "id": "0192f3a4b5c6",
        "model": "SmolLM2",
        "message": "host gpu1 closed the connection",
        "code": "host_failed",
        "tokens": 7,
        "now": "2026-11-22T13:35:17.199062Z",
        "unix": 1795354517,
    }
    return Farewell(**(usual | changes), head=seen[:HEAD_BYTES], tail=seen[-KEEP_BYTES:])  # type: ignore[arg-type]
