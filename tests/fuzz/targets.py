"""What any bytes at all are fed to, and what must hold then. A target raises AssertionError, or anything that it should not."""

import json
import re
from collections.abc import Callable, Iterator
from email.message import Message
from email.parser import BytesParser
from typing import Any

from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpRequestParser
from aiohttp.http_exceptions import HttpProcessingError

from gateway.api.framing import amiss
from gateway.dialects.endpoints import ENDPOINTS
from gateway.dialects.forms import field_of
from gateway.dialects.lines import KEEP_BYTES, Framing, Meter
from gateway.dialects.names import canonical
from gateway.dialects.read import NAME_LIMIT, model_named, read
from gateway.dialects.usage import usage_of
from gateway.errors import BadRequest
from gateway.relay.headers import inbound
from tests.contract.cases import CASES
from tests.dialects.streams import STREAMS
from tests.fuzz.golang import Refused, field, members
from tests.relay.receivers import answered

_PATHS = [path for path, endpoint in ENDPOINTS.items() if not endpoint.multipart]
_BAD = re.compile("\ufffd+")
FORM = "multipart/form-data; boundary=B"


def reader(data: bytes) -> None:
    """The reader's model and stream are those that Ollama obeys, or nothing is forwarded; and it raises BadRequest alone."""
    endpoint = ENDPOINTS[_PATHS[data[0] % len(_PATHS)]] if data else ENDPOINTS[_PATHS[0]]
    body = data[1:]
    try:
        request = read(endpoint, body, "g1")
    except BadRequest:
        return
    try:
        found = members(body)
    except Refused:
        return  # and so does Ollama
    model = field(found, "model")
    if not isinstance(model, str | None):
        return  # idem: a number has become a text here
    # Of "a" and then null Go keeps "a", and we take nothing: such a request is refused later, as one without a model.
    assert _plain(request.requested_model) in {_plain(model or ""), ""}
    stream = field(found, "stream")
    nulls = any(value is None for _, value in found)
    if isinstance(stream, bool) and not nulls:
        assert request.stream is stream


def naming(data: bytes) -> None:
    """What managing requests are about is what Ollama changes."""
    try:
        name, _, _ = model_named(data)
    except BadRequest:
        return
    try:
        found = members(data)
    except Refused:
        return
    told = [field(found, key) for key in ("model", "name")]
    if any(value is None for _, value in found) or not all(isinstance(value, str | None) for value in told):
        return
    assert _plain(name) == _plain(told[0] or told[1] or "")
    canonical(name)


def _plain(text: str) -> str:
    """Python and Go replace what is no UTF-8, and half characters, by other numbers of signs."""
    return _BAD.sub("\ufffd", re.sub("[\ud800-\udfff]", "\ufffd", text))


def form(data: bytes) -> None:
    """A model that is read of a form is the only one that another reader finds there."""
    try:
        model = field_of(data, FORM, "", "model", NAME_LIMIT)
    except BadRequest:
        return
    if not model:
        return
    parsed = BytesParser().parsebytes(b"Content-Type: " + FORM.encode() + b"\r\n\r\n" + data)
    fields = [part for part in _parts(parsed) if part.get_param("name", header="content-disposition") == "model"]
    assert len(fields) == 1
    payload = fields[0].get_payload(decode=True)
    assert isinstance(payload, bytes)
    assert payload[:NAME_LIMIT].decode("utf-8", errors="replace") == model


def _parts(parsed: Message) -> Iterator[Message]:
    payload = parsed.get_payload()
    return (part for part in payload if isinstance(part, Message)) if isinstance(payload, list) else iter(())


def meter(data: bytes) -> None:
    """However the bytes are cut, the same ones come out, no piece ends within a line, and what is counted is what a plain count says."""
    framing = list(Framing)[data[0] % len(Framing)] if data else Framing.NDJSON
    body = data[2:]
    whole, out = Meter(framing), b""
    for piece in _cut(body, data[1] if len(data) > 1 else 0):
        passed = whole.feed(piece, 0.0)
        assert not passed or passed.endswith(whole.terminator) or not whole.whole_lines
        out += passed
    out += whole.flush()
    assert out == body
    assert (whole.size, whole.newlines) == (len(body), body.count(b"\n"))
    assert whole.tail == body[-KEEP_BYTES:]
    for endpoint in ENDPOINTS.values():
        ending = endpoint.ending(whole.tail)
        assert ending.extra_events >= 0
    usage = usage_of(whole.tail, 3, complete=True)
    assert min(usage.input_tokens, usage.output_tokens) >= 0
    _as_plainly(body, usage.output_tokens)


def _as_plainly(body: bytes, tokens: int) -> None:
    """Of a whole answer in one line, ``eval_count`` is what a plain parse says."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return
    count = value.get("eval_count") if isinstance(value, dict) else None
    if (
        type(count) is int
        and 0 < count < 2**62
        and len(value) == 1
        and len(body) < KEEP_BYTES
        and body.count(b"eval_count") == 1
    ):
        assert tokens == count


def upstream(data: bytes) -> None:
    """An answer is heard alike however it is cut; never more of it than was framed; what is malformed is never whole."""
    size = data[0] if data else 0
    answer = data[1:]
    for line_end in (b"", b"\n"):
        whole, pooled = answered([answer] if answer else [], closed=True)
        cut, pooled_too = answered(_cut(answer, size), whole_lines=line_end, closed=True)
        assert cut.outcome == whole.outcome
        assert (
            pooled_too or not pooled
        )  # what comes after the end is seen when it is read with it, or else once it comes
    head, _, rest = answer.partition(b"\r\n\r\n")
    assert len(whole.body) <= len(answer)
    lengths = [
        line.partition(b":")[2].strip()
        for line in head.split(b"\r\n")[1:]
        if line.lower().startswith(b"content-length:")
    ]
    if (
        whole.complete
        and whole.status >= 200
        and len(lengths) == 1
        and b"HTTP/1.1 1" not in head
        and b"transfer-encoding" not in head.lower()
    ):
        if whole.status not in (204, 304):
            assert len(whole.body) == int(lengths[0])
        assert rest.startswith(whole.body)


class _Nobody(BaseProtocol):
    """Whom aiohttp's parser tells of what it buffers."""


def head(data: bytes) -> None:
    """Of a head that is let in, what is sent to hosts is header lines and nothing else."""
    loop: Any = object()  # nobody waits for anything; without one, aiohttp makes one
    parser = HttpRequestParser(_Nobody(loop), loop, 2**16)
    try:
        messages, _, _ = parser.feed_data(data)
    except (HttpProcessingError, UnicodeError, ValueError):
        return
    for message, _ in messages:
        if amiss(message, bulky=True) is None:
            for line in inbound(message.raw_headers).lines.split(b"\r\n")[:-1]:
                assert re.fullmatch(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+: [\t -~\x80-\xff]*", line), line


def _cut(data: bytes, size: int) -> list[bytes]:
    step = max(size % 32 + 1, len(data) // 64)
    return [data[at : at + step] for at in range(0, len(data), step)]


RECORDED = [bytes([at]) + b"\0" + stream for at, stream in enumerate(STREAMS.values())]
ANSWERS = [
    b"\x07HTTP/1.1 %d OK\r\n" % case.status
    + b"".join(
        f"{name}: {value}\r\n".encode() for name, value in case.answer_headers if name.lower() != "transfer-encoding"
    )
    + b"\r\n"
    + b"".join(chunk for chunk in case.chunks if isinstance(chunk, bytes))
    for case in CASES.values()
]
CHUNKED = b'\x05HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"a"}\r\n1\r\n\n\r\n0\r\n\r\n'
SEEDS: dict[str, list[bytes]] = {
    "reader": [
        b'\0{"model":"a","Model":"b","stream":true}',
        b'\1{"model":"a","model":null,"messages":[{}],"options":{"num_ctx":1}}x',
        b'\2{"\\u006dodel":"\\ud800","mes\xc5\xbfages":[],"keep_alive":"0s"}',
    ],
    "naming": [b'{"model":"a:b","name":"c"}', b'{"NAME":"\xff"}'],
    "form": [
        b'--B\r\nContent-Disposition: form-data; name="model"\r\n\r\nx\r\n--B\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\ny\r\n--B--\r\n',
        b"--B\r\nContent-Disposition: form-data; name*=utf-8''model; name=model\r\nContent-Type: text/plain\r\n\r\nx\r\n--B--",
    ],
    "meter": RECORDED,
    "upstream": [*ANSWERS, CHUNKED],
    "head": [b"POST /api/chat?x HTTP/1.1\r\nHost: a\r\nConnection: close, X\r\nX: y\r\nContent-Length: 2\r\n\r\n{}"],
}
TARGETS: dict[str, Callable[[bytes], None]] = {
    "reader": reader, "naming": naming, "form": form, "meter": meter, "upstream": upstream, "head": head,
}  # fmt: skip
