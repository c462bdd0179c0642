"""Reading a request: just enough of the body to route it. The body itself stays bytes and is sent on unchanged.

Ollama's JSON decoder matches keys in any case and lets the last duplicate win; so do we, and a body with one key in two
spellings, which could be read in two ways, is refused. Bytes after the first JSON value are ignored, as Ollama does.
"""

import re
from collections.abc import Collection
from typing import Any, Final

import msgspec
import zstandard

from gateway.dialects.forms import TWICE, field_of
from gateway.dialects.names import canonical
from gateway.dialects.request import (
    BLOCK_BYTES,
    BYTES_PER_TOKEN,
    EMBEDDINGS,
    Endpoint,
    InferenceRequest,
    Kind,
    Priority,
)
from gateway.dialects.urgency import Background
from gateway.errors import BadRequest
from gateway.record import NO_TRACE, Trace

_INFER: Final = Kind.INFER
_NORMAL: Final = Priority.NORMAL

ZSTD_LIMIT_BYTES: Final = 20 * 1024 * 1024  # as Ollama: middleware/cloud_proxy.go
RUNNER_KEYS: Final = ("num_ctx", "num_batch", "num_gpu", "main_gpu", "use_mmap", "num_thread", "draft_num_predict")
RUNNER_KEYS_SET: Final = frozenset(RUNNER_KEYS)
PROMPT_TOKENS_LIMIT: Final = 32768  # an estimate; images in the body must not make it absurd
BLANKS_LIMIT: Final = 64  # an empty list may have blanks in it; a longer one has more
# Keys that are plainly in lower case, so that most bodies need no look at each.
_LOWER: Final = frozenset(
    [
        "model",
        "prompt",
        "messages",
        "input",
        "stream",
        "options",
        "keep_alive",
        "format",
        "system",
        "tools",
        "think",
        "raw",
        "images",
        "max_tokens",
        "temperature",
    ]
)
TOO_DEEP: Final = "invalid JSON in the request body: nested too deeply"
_EMPTY: Final = (b'""', b"[]", b"null")
# Go's time.ParseDuration: each number has its unit, except a lone 0. No part can match in two ways: matching is linear.
_ZERO_DURATION: Final = re.compile(r"[+-]?(?:0|(?:(?:0+(?:\.0*)?|\.0+)(?:ns|us|µs|μs|ms|s|m|h))+)\Z")
SMALL_BYTES: Final = 128  # of a number, a word, a truth or a duration
# of a model, as sent; the longest that Ollama knows has some 600 characters, but blanks may stand around it
NAME_LIMIT: Final = 4096
_TRAILING: Final = re.compile(r"trailing characters \(byte (\d+)\)")
_INT64: Final = 2**63


def read(
    endpoint: Endpoint,
    body: bytes,
    id_: str,
    content_type: str = "",
    content_encoding: str = "",
    session: str | None = None,
    client: str = "",
    pin: str = "",
    at_hosts: Collection[str] = (),
    trace: Trace = NO_TRACE,
    priority: Priority | None = None,
    background: Background | None = None,
    deadline_seconds: float = 0.0,
    query: str = "",
) -> InferenceRequest:
    """Read ``body`` for ``endpoint``. Raises BadRequest with the text Ollama would use where it has one.

    ``at_hosts``: the hosts that a model may end in, as in ``llama3@gpu1``, which pins the request and is taken out of the body. ``query``: of the
    URL, where Ollama looks for a form's fields first. ``priority``: as its caller said; None: ``background`` knows which nobody waits for.
    """
    if endpoint.multipart:
        requested = field_of(body, content_type, query, "model", NAME_LIMIT)
        fields: dict[str, Any] = {}
    else:
        fields = _fields(endpoint, body, content_encoding)
        requested = text_of(fields, "model")
    requested, named = at_host(requested, at_hosts)
    if named:
        if endpoint.multipart or content_encoding:
            raise BadRequest(f"a body of this kind cannot name a host: set X-Corral-Host: {named}")
        pin = agreed(pin, named)
        body = renamed(fields, "model", requested)
    if len(requested) > NAME_LIMIT:
        raise BadRequest(f"the model's name is over {NAME_LIMIT} characters")
    prompt = [memoryview(fields[key]) for key in endpoint.prompt_keys if key in fields]
    size = sum(map(len, prompt))
    name = canonical(requested)
    if priority is None:
        idle = background is not None and background.knows(endpoint, body, fields)
        priority = Priority.BACKGROUND if idle else _NORMAL
    kind = _kind(endpoint, fields) if endpoint.load_key else _INFER
    return InferenceRequest(
        id_,
        endpoint,
        kind,
        requested,
        name,
        flag_of(fields, "stream", default=endpoint.streams_by_default),
        _runner_options(fields) if "options" in fields or "shift" in fields else (),
        min(size // BYTES_PER_TOKEN, PROMPT_TOKENS_LIMIT),
        () if size < BLOCK_BYTES or endpoint.operation == EMBEDDINGS else _prefix(name, prompt),
        body,
        session,
        client,
        pin,
        trace,
        priority,
        deadline_seconds if kind is _INFER else 0.0,  # to load a model takes its time
    )


def _fields(endpoint: Endpoint, body: bytes, encoding: str) -> dict[str, Any]:
    text = plain(endpoint, body, encoding)
    if not text and endpoint.dialect != "ollama":
        raise BadRequest("EOF")
    return fields_of(text)


def model_named(body: bytes, at_hosts: Collection[str] = ()) -> tuple[str, str, bytes]:
    """(model, host, body) of a request about a model: ``model``, else ``name``, as sent. Raises BadRequest as Ollama words it.

    ``at_hosts``: as for ``read``; "" where the name does not end in one.
    """
    fields = fields_of(body)
    key = model_key(fields)
    name, host = at_host(text_of(fields, key), at_hosts)
    if not name:
        raise BadRequest("model is required")
    return name, host, renamed(fields, key, name) if host else body


def model_key(fields: dict[str, Any]) -> str:
    """Where a request about a model names it."""
    return "model" if text_of(fields, "model") else "name"


def at_host(requested: str, at_hosts: Collection[str]) -> tuple[str, str]:
    """A model's name like ``llama3@gpu1`` as (``llama3``, ``gpu1``); no host where it has none, or where there are no ``at_hosts``.

    Raises BadRequest for a host that is none of these: no model's name has an @.
    """
    model, _, host = requested.rpartition("@")
    if not model or not at_hosts:
        return requested, ""
    if host not in at_hosts:
        raise BadRequest(f"no host is named {host!r}; there are: {', '.join(at_hosts)}")
    return model, host


def agreed(header: str, named: str) -> str:
    """The one host that X-Corral-Host and a model's name mean; "" where neither names one. Raises BadRequest where they differ."""
    if header and named and header != named:
        raise BadRequest(
            f"X-Corral-Host names {header!r}, and the model's name ends in @{named}: one of them has to go"
        )
    return header or named


def renamed(fields: dict[str, Any], key: str, model: str) -> bytes:
    """The body of ``fields`` with another model in it."""
    fields[key] = msgspec.Raw(msgspec.json.encode(model))
    return msgspec.json.encode(fields)


def plain(endpoint: Endpoint, body: bytes, encoding: str) -> bytes:
    """A body as it was before it was packed. Raises BadRequest."""
    if encoding.strip().lower() == "zstd" and endpoint.path.startswith("/v1/"):
        try:
            with zstandard.ZstdDecompressor().stream_reader(body, read_across_frames=True) as reader:
                text = reader.read(ZSTD_LIMIT_BYTES + 1)
        except zstandard.ZstdError:
            raise BadRequest("the body is not valid zstd") from None
        if len(text) > ZSTD_LIMIT_BYTES:
            raise BadRequest(f"the body is over {ZSTD_LIMIT_BYTES} bytes when decompressed")
        return text
    return body


_decode_fields: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def fields_of(body: bytes) -> dict[str, Any]:
    """The keys of a JSON object, in lower case, with their values unparsed; none for null, as Go reads it. Raises BadRequest."""
    if not body:
        raise BadRequest("missing request body")
    try:
        fields: dict[str, Any] = _decode_fields(body)
    except RecursionError:
        raise BadRequest(TOO_DEEP) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        fields = _fields_leniently(body, str(error))
    if not _LOWER.issuperset(fields) and not all(key.isascii() and key.islower() for key in fields):
        return _folded(fields)
    return fields


def _fields_leniently(body: bytes, complaint: str) -> dict[str, Any]:
    """As Go reads it: ignore what follows the first value, replace what is no UTF-8. Values stay as they were written."""
    for mended in (body, body.decode("utf-8", errors="replace").encode()):
        try:
            return _decode_fields(mended)
        except RecursionError:
            raise BadRequest(TOO_DEEP) from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            complaint = str(error)
        if trailing := _TRAILING.search(complaint):
            try:
                return _decode_fields(mended[: int(trailing[1]) - 1])
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                complaint = str(error)
    if complaint == "Expected `object`, got `null`":
        return {}
    if complaint.startswith("Expected `object`"):
        raise BadRequest("the request body must be a JSON object")
    raise BadRequest(f"invalid JSON in the request body: {complaint}")


def _folded(fields: dict[str, Any]) -> dict[str, Any]:
    """With keys as Go compares them: the Kelvin sign is a k to it, as it is to Python, and a long s an s."""
    folded: dict[str, Any] = {}
    for key, value in fields.items():
        low = key.lower().replace("\u017f", "s")
        if low in folded:
            raise BadRequest(f"the key {low!r} is there in two spellings: {TWICE}")
        folded[low] = value
    return folded


def _options(raw: Any) -> dict[str, Any]:
    try:
        return _decode_options(raw) or {}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}  # Ollama will refuse it


def _number(value: Any) -> Any:
    """An int or a bool; None for anything else."""
    if isinstance(value, bool):  # on its own, or mypyc makes it an int
        return value
    if isinstance(value, float) and -_INT64 < value < _INT64:
        return int(value)
    return value if isinstance(value, int) and -_INT64 <= value < _INT64 else None


_decode_options: Final = msgspec.json.Decoder(dict[str, msgspec.Raw] | None).decode


def _value(fields: dict[str, Any], key: str) -> Any:
    """A number, a word, a truth or a duration; None where there is none, or something too long to be one."""
    raw = fields.get(key)
    if raw is None or len(raw) > SMALL_BYTES:
        return None
    try:
        return msgspec.json.decode(raw)
    except RecursionError:
        raise BadRequest(TOO_DEEP) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise BadRequest(f"the value of {key!r} is not valid JSON") from None


_decode_text: Final = msgspec.json.Decoder(str | None).decode


def text_of(fields: dict[str, Any], key: str) -> str:
    """A text, "" where there is none. Raises BadRequest for what is no text."""
    raw = fields.get(key)
    if raw is None:
        return ""
    try:
        return _decode_text(raw) or ""
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise BadRequest(f"{key!r} must be a string") from None


def flag_of(fields: dict[str, Any], key: str, *, default: bool) -> bool:
    """True or false; ``default`` where it is neither."""
    raw = fields.get(key)
    if raw is None:
        return default
    value = bytes(raw)
    return True if value == b"true" else False if value == b"false" else default


def _kind(endpoint: Endpoint, fields: dict[str, Any]) -> Kind:
    prompt = fields.get(endpoint.load_key)
    if prompt is not None and (len(prompt) >= BLANKS_LIMIT or bytes(prompt).translate(None, b" \t\r\n") not in _EMPTY):
        return _INFER
    keep_alive = _value(fields, "keep_alive")
    if isinstance(keep_alive, str):
        return Kind.UNLOAD if _ZERO_DURATION.match(keep_alive) else Kind.LOAD
    return Kind.UNLOAD if isinstance(keep_alive, (int, float)) and keep_alive == 0 else Kind.LOAD


def _runner_options(fields: dict[str, Any]) -> tuple[tuple[str, Any], ...]:
    """Those that make Ollama load anew when they change, as it reads them: 4096.0 is 4096. What is no number is its to refuse."""
    found: list[tuple[str, Any]] = []
    if "options" in fields:
        options = _options(fields["options"])
        if not RUNNER_KEYS_SET.isdisjoint(options):
            values = [(key, _number(_value(options, key))) for key in RUNNER_KEYS if key in options]
            found = [(key, value) for key, value in values if value is not None]
    if "shift" in fields and _value(fields, "shift") is False:  # true is what it is without a word
        found.append(("shift", False))
    return tuple(found)


def _prefix(name: str, prompt: list[memoryview]) -> tuple[int, ...]:
    """What stays the same while a conversation grows: its blocks from the beginning, each hash with all before it. Short prompts have none."""
    text = memoryview(b"".join(prompt)) if len(prompt) > 1 else prompt[0]
    most = min(len(text), PROMPT_TOKENS_LIMIT * BYTES_PER_TOKEN)
    chain: list[int] = []
    last = hash(name)
    for start in range(0, most - BLOCK_BYTES + 1, BLOCK_BYTES):
        last = hash((last, text[start : start + BLOCK_BYTES].tobytes()))
        chain.append(last)
    return tuple(chain)
