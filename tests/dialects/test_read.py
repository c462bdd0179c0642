"""Reading a request: the model, whether it streams, what is wanted; and never an error but BadRequest."""

import contextlib
import json
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.endpoints import ENDPOINTS
from gateway.dialects.names import canonical
from gateway.dialects.read import PROMPT_TOKENS_LIMIT, ZSTD_LIMIT_BYTES, model_named, read
from gateway.dialects.request import BLOCK_BYTES, BLOCK_TOKENS, InferenceRequest, Kind
from gateway.errors import BadRequest
from tests.builders import AUDIO, BOUNDARY, NATIVE, OPENAI, PATHS, TEXT, call
from tests.profiles import PROPERTY

FORM = f"multipart/form-data; boundary={BOUNDARY}"
JSON_PATHS = tuple(path for path in PATHS if not ENDPOINTS[path].multipart)


def told(path: str = "/api/generate", **fields: Any) -> InferenceRequest:
    """What is read from a JSON object."""
    return raw(json.dumps({"model": TEXT} | fields).encode(), path)


def raw(body: bytes, path: str = "/api/generate", content_type: str = "", encoding: str = "") -> InferenceRequest:
    """What is read from bytes."""
    return read(ENDPOINTS[path], body, "g1", content_type, encoding)


# -- requests about a model ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"model":"a"}', "a"),
        (b'{"name":" A:1 "}', " A:1 "),
        (b'{"model":"a","name":"b"}', "a"),
        (b'{"model":"","name":"b"}', "b"),
        (b'{"model":null,"Name":"b"} trailing', "b"),
        (b'{"model":"a","model":"b"}', "b"),
    ],
)
def test_the_model_that_is_named(body: bytes, expected: str) -> None:
    """By either key, in any case, the last of several."""
    assert model_named(body) == (expected, "", body)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "missing request body"),
        (b"{}", "model is required"),
        (b'{"name":""}', "model is required"),
        (b"[]", "must be a JSON object"),
        (b"{", "invalid JSON"),
        (b'{"model":1}', "must be a string"),
        (b'{"model":"a","Model":"b"}', "two spellings"),
    ],
)
def test_no_model_is_named(body: bytes, message: str) -> None:
    """What is wrong is said in Ollama's words where it has any."""
    with pytest.raises(BadRequest, match=message):
        model_named(body)


# -- the ordinary request -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
def test_an_ordinary_request(path: str) -> None:
    """The usual body of every path is read, and stays what it is."""
    sent = call(path)
    request = read(ENDPOINTS[path], sent.body, "g1", sent.headers["Content-Type"], "", "talk", "10.0.0.9")
    assert request.body is sent.body
    assert request.endpoint is ENDPOINTS[path]
    assert request.kind is Kind.INFER
    assert request.model == canonical(request.requested_model) != ""
    assert (request.id, request.session, request.client) == ("g1", "talk", "10.0.0.9")


STREAM = {"absent": {}, "null": {"stream": None}, "true": {"stream": True}, "false": {"stream": False}}


@pytest.mark.parametrize("given_", STREAM)
@pytest.mark.parametrize("path", JSON_PATHS)
def test_streaming_by_default(path: str, given_: str) -> None:
    """Native generate and chat stream unless told not to; everything else only when told to."""
    default = path in ("/api/generate", "/api/chat")
    assert told(path, **STREAM[given_]).stream is {"true": True, "false": False}.get(given_, default)


def test_blanks_around_values_change_nothing() -> None:
    """A pretty-printed body is read like any other."""
    request = raw(b' {\n "model" : "x" ,\n "prompt": "hi", "stream" :\tfalse }\n')
    assert (request.model, request.stream) == ("x:latest", False)


@pytest.mark.parametrize("body", [b"null", b" null\n"])
def test_null_has_no_fields(body: bytes) -> None:
    """Go leaves a struct as it is."""
    assert raw(body).requested_model == ""


def test_the_model_is_kept_as_it_was_sent() -> None:
    """Routing uses the canonical name; errors and last words the client's own spelling."""
    request = told(model=" Library/SmolLM2 ")
    assert (request.requested_model, request.model) == (" Library/SmolLM2 ", "smollm2:latest")


@pytest.mark.parametrize(("fields", "model"), [({"model": None}, ""), ({"model": ""}, ""), ({}, "")])
def test_no_model(fields: dict[str, Any], model: str) -> None:
    """An absent, null or empty model is no error here: what is said of it is the path's own affair."""
    assert raw(json.dumps(fields | {"prompt": "x"}).encode()).model == model


# -- keys -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["model", "Model", "MODEL", "mOdEl"])
def test_keys_in_any_case(key: str) -> None:
    """Ollama's decoder matches keys in any case, so do we."""
    request = raw(json.dumps({key: "x", "STREAM": False, "Prompt": "hi"}).encode())
    assert (request.model, request.stream, request.kind) == ("x:latest", False, Kind.INFER)


@pytest.mark.parametrize(
    "body", [b'{"model":"a","Model":"b"}', b'{"MODEL":"a","model":"a"}', b'{"stream":1,"Stream":2}']
)
def test_one_key_in_two_spellings(body: bytes) -> None:
    """What could be read in two ways is refused."""
    with pytest.raises(BadRequest, match="in two spellings"):
        raw(body)


@pytest.mark.parametrize("key", ["model", "Model"])
def test_the_last_of_equal_keys_wins(key: str) -> None:
    """As in Ollama's decoder."""
    assert raw(b'{"%b":"a","%b":"b"}' % (key.encode(), key.encode())).model == "b:latest"


text = st.text(st.characters(exclude_categories=["Cs"]))
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)
USED = ("model", "options", "shift", "keep_alive")
others = st.lists(
    st.tuples(text | st.sampled_from(["prompt", "stream", "messages", "input", "system"]), values),
    max_size=5,
    unique_by=lambda pair: pair[0].lower(),
).filter(lambda pairs: not any(key.lower() in USED for key, _ in pairs))


@given(
    model=text,
    key=st.sampled_from(["model", "Model", "MODEL"]),
    pairs=others,
    position=st.integers(0, 5),
    after=st.binary(max_size=8).filter(lambda data: not data or data[:1] in b" }{x\n"),
    path=st.sampled_from(JSON_PATHS),
    ascii_=st.booleans(),
)
@PROPERTY
def test_the_model_is_found_wherever_it_stands(
    model: str, key: str, pairs: list[tuple[str, Any]], position: int, after: bytes, path: str, ascii_: bool
) -> None:
    """Order and spelling of the keys, what else is in the object and what follows it do not change the model."""
    pairs.insert(position, (key, model))
    request = raw(json.dumps(dict(pairs), ensure_ascii=ascii_).encode() + after, path)
    assert request.requested_model == model
    assert request.model == canonical(model)


@given(
    body=st.binary() | text.map(str.encode) | values.map(lambda value: json.dumps(value).encode()),
    path=st.sampled_from(PATHS),
    content_type=st.sampled_from(
        ["", "application/json", FORM, "multipart/form-data", 'multipart/form-data; boundary=""']
    ),
    encoding=st.sampled_from(["", "zstd", "gzip"]),
)
@PROPERTY
def test_anything_is_read_or_refused(body: bytes, path: str, content_type: str, encoding: str) -> None:
    """Whatever is sent, the only error is BadRequest."""
    with contextlib.suppress(BadRequest):
        raw(body, path, content_type, encoding)


REFUSED = {
    "nothing": (b"", "missing request body"),
    "half an object": (b'{"model": "x"', "invalid JSON"),
    "no JSON": (b"model=x", "invalid JSON"),
    "a list": (b'["model"]', "must be a JSON object"),
    "a number": (b"5", "must be a JSON object"),
    "a number for a model": (b'{"model": 5}', "'model' must be a string"),
    "a list for a model": (b'{"model": ["x"]}', "'model' must be a string"),
    "half a character in the model": (b'{"model": "\\ud800"}', "invalid JSON"),
    "a byte order mark": (b'\xef\xbb\xbf{"model": "x"}', "invalid JSON"),
    "not a number": (b'{"model": "x", "keep_alive": NaN}', "invalid JSON"),
    "lists in lists without end": (b'{"model": "x", "a": ' + b"[" * 100_000, "invalid JSON"),
    "lists in lists": (b'{"model": "x", "a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "invalid JSON"),
    "options in options": (b'{"model": "x", "options": ' + b"[" * 5000 + b"]" * 5000 + b"}", "JSON"),
}


@pytest.mark.parametrize(("body", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(body: bytes, message: str) -> None:
    """What cannot be read is the client's fault, and the message says why."""
    with pytest.raises(BadRequest, match=message):
        raw(body)


# -- load and unload ------------------------------------------------------------------------------------------------------------

KINDS = {
    "a prompt": ("/api/generate", {"prompt": "hi", "keep_alive": 0}, Kind.INFER),
    "a prompt of four letters": ("/api/generate", {"prompt": "null"}, Kind.INFER),
    "no prompt": ("/api/generate", {}, Kind.LOAD),
    "an empty prompt": ("/api/generate", {"prompt": ""}, Kind.LOAD),
    "a null prompt": ("/api/generate", {"prompt": None}, Kind.LOAD),
    "for an hour": ("/api/generate", {"keep_alive": "1h"}, Kind.LOAD),
    "for ever": ("/api/generate", {"keep_alive": -1}, Kind.LOAD),
    "for half a second": ("/api/generate", {"keep_alive": 0.5}, Kind.LOAD),
    "for 0 s as text of parts": ("/api/generate", {"keep_alive": "0h0m0.0s"}, Kind.UNLOAD),
    "for 0": ("/api/generate", {"keep_alive": 0}, Kind.UNLOAD),
    "for 0.0": ("/api/generate", {"keep_alive": 0.0}, Kind.UNLOAD),
    "for -0": ("/api/generate", {"keep_alive": "-0s"}, Kind.UNLOAD),
    "for 0 as text": ("/api/generate", {"keep_alive": "0"}, Kind.UNLOAD),
    "for 0 s": ("/api/generate", {"keep_alive": "0s"}, Kind.UNLOAD),
    "for 10 s, which begins like 1": ("/api/generate", {"keep_alive": "10s"}, Kind.LOAD),
    "for a word": ("/api/generate", {"keep_alive": "soon"}, Kind.LOAD),
    "messages": ("/api/chat", {"messages": [{"role": "user", "content": ""}]}, Kind.INFER),
    "no messages": ("/api/chat", {}, Kind.LOAD),
    "an empty list of messages": ("/api/chat", {"messages": []}, Kind.LOAD),
    "an empty list of messages for 0": ("/api/chat", {"messages": [], "keep_alive": 0}, Kind.UNLOAD),
    "an empty input": ("/api/embed", {"input": [], "keep_alive": 0}, Kind.INFER),
    "no messages in another dialect": ("/v1/chat/completions", {"keep_alive": 0}, Kind.INFER),
}


@pytest.mark.parametrize(("path", "fields", "kind"), KINDS.values(), ids=KINDS)
def test_what_is_wanted(path: str, fields: dict[str, Any], kind: Kind) -> None:
    """Without a prompt the native paths load a model, or unload it when it shall stay for no time."""
    assert told(path, **fields).kind is kind


def test_an_empty_list_with_a_blank_in_it() -> None:
    """An empty list is empty however it is written."""
    assert raw(b'{"model": "x", "messages": [ ], "keep_alive": 0}', "/api/chat").kind is Kind.UNLOAD


# -- runner options -------------------------------------------------------------------------------------------------------------

OPTIONS = {
    "none": ({}, ()),
    "sampling only": ({"options": {"temperature": 0.1, "seed": 1, "num_predict": 9}}, ()),
    "a context": ({"options": {"num_ctx": 8192, "temperature": 1}}, (("num_ctx", 8192),)),
    "in one order": ({"options": {"use_mmap": False, "num_ctx": 8}}, (("num_ctx", 8), ("use_mmap", False))),
    "shift": ({"shift": False}, (("shift", False),)),
    "shift and a context": ({"shift": True, "options": {"num_ctx": 8}}, (("num_ctx", 8),)),
    "of a wrong type": ({"options": {"num_ctx": "8192", "num_gpu": None}}, ()),
    "no object": ({"options": [1]}, ()),
    "null": ({"options": None, "shift": None}, ()),
    "in capitals, which Ollama ignores too": ({"options": {"NUM_CTX": 8}}, ()),
}


@pytest.mark.parametrize(("fields", "expected"), OPTIONS.values(), ids=OPTIONS)
def test_runner_options(fields: dict[str, Any], expected: tuple[tuple[str, Any], ...]) -> None:
    """What makes Ollama reload a model is read, in one order; what does not is left out."""
    assert told(prompt="x", **fields).runner_options == expected


# -- the prompt -----------------------------------------------------------------------------------------------------------------


def test_the_prompt_is_estimated() -> None:
    """Four bytes make a token, and no image makes more than the limit."""
    assert told(prompt="x" * 3998).prompt_tokens == 1000
    assert told(prompt="x", images=["A" * 4 * 1024 * 1024]).prompt_tokens == PROMPT_TOKENS_LIMIT
    assert told(system="x" * 398, prompt="y" * 398).prompt_tokens == 200


def turn(*said: str) -> dict[str, Any]:
    """A conversation of so many messages."""
    return {"messages": [{"role": "user", "content": content} for content in said]}


def test_a_conversation_keeps_its_prefix() -> None:
    """Each turn begins with the blocks of the turn before, and has more of its own; what is no prompt does not matter."""
    said = "word " * 500
    first = told("/api/chat", **turn(said)).prefix
    assert len(first) == len(said) // BLOCK_BYTES
    longer = told("/api/chat", **turn(said, "And then?", "Well. " * 500)).prefix
    assert longer[: len(first)] == first
    assert len(longer) > len(first)
    assert raw(json.dumps({**turn(said), "stream": True, "model": TEXT}).encode(), "/api/chat").prefix == first


@pytest.mark.parametrize(
    "other",
    [turn("Word " * 1000), turn("other " * 1000), {**turn("word " * 1000), "model": "other"}],
    ids=["another beginning", "other words", "another model"],
)
def test_another_conversation_has_another_prefix(other: dict[str, Any]) -> None:
    """A different beginning or model shares no block, even where later text is the same."""
    mine = told("/api/chat", **turn("word " * 1000)).prefix
    assert not set(told("/api/chat", **other).prefix) & set(mine)


def test_conversations_that_part_share_what_they_had() -> None:
    """An answer that is asked for again, or an edited question: the blocks before it are the same."""
    one, two = (told(prompt="same " * 1000 + end * 2000).prefix for end in "xy")
    shared = 5000 // BLOCK_BYTES
    assert one[:shared] == two[:shared]
    assert not set(one[shared:]) & set(two[shared:])


def test_a_short_prompt_has_no_prefix() -> None:
    """Short prompts save nothing."""
    assert told(prompt="x" * (BLOCK_BYTES - 3)).prefix == ()
    assert len(told(prompt="x" * (BLOCK_BYTES - 2)).prefix) == 1


def test_the_chain_is_bounded() -> None:
    """A prompt of any length has at most so many blocks."""
    assert len(told(prompt="x" * 4 * 1024 * 1024).prefix) == PROMPT_TOKENS_LIMIT // BLOCK_TOKENS


# -- zstd -----------------------------------------------------------------------------------------------------------------------


def test_a_zstd_body_is_read_and_kept() -> None:
    """On /v1 a compressed body is looked into, and relayed as it came."""
    body = zstandard.compress(json.dumps({"model": "x", "stream": True}).encode())
    request = raw(body, "/v1/responses", encoding="zstd")
    assert (request.model, request.stream, request.body) == ("x:latest", True, body)


@pytest.mark.parametrize("path", NATIVE)
def test_native_paths_take_no_zstd(path: str) -> None:
    """Ollama does not undo it there either."""
    with pytest.raises(BadRequest, match="invalid JSON"):
        raw(zstandard.compress(b'{"model":"x"}'), path, encoding="zstd")


ZSTD_REFUSED = {
    "no zstd": (b'{"model":"x"}', "not valid zstd"),
    "nothing": (b"", "EOF"),
    "half a frame": (zstandard.compress(b"{}" * 99)[:9], "EOF"),
    "a bomb": (zstandard.compress(b" " * (ZSTD_LIMIT_BYTES + 1)), "when decompressed"),
}


@pytest.mark.parametrize(("body", "message"), ZSTD_REFUSED.values(), ids=ZSTD_REFUSED)
def test_zstd_refused(body: bytes, message: str) -> None:
    """A body that cannot be undone, or that would fill the memory, is the client's fault."""
    with pytest.raises(BadRequest, match=message):
        raw(body, OPENAI[0], encoding="zstd")


# -- multipart ------------------------------------------------------------------------------------------------------------------

SPEECH = "/v1/audio/transcriptions"


def part(name: str, data: bytes, more: str = "") -> bytes:
    """One part of a form."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'
    return head.encode() + data + b"\r\n"


def form(*parts: bytes) -> bytes:
    """A whole form."""
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


FILE = part("file", b"RIFF\r\n\r\nWAVE", '; filename="a.wav"\r\nContent-Type: audio/wav')
MODEL = part("model", AUDIO.encode())
FORMS = {
    "first": (form(MODEL, FILE), AUDIO),
    "last": (form(FILE, MODEL), AUDIO),
    "between": (form(part("language", b"en"), MODEL, FILE), AUDIO),
    "not there": (form(FILE), ""),
    "empty": (form(part("model", b""), FILE), ""),
    "as a file's name": (form(part("file", b"x", '; filename="model"'), MODEL), AUDIO),
    "in the file": (form(part("file", b'\r\nname="model"\r\n\r\nfake\r\n'), MODEL), AUDIO),
    "in a longer name": (form(part("remodel", b"fake"), MODEL), AUDIO),
    "with more headers": (form(part("model", AUDIO.encode(), "\r\nContent-Type: text/plain")), AUDIO),
    "nowhere": (b"no form at all", ""),
}


@pytest.mark.parametrize(("body", "model"), FORMS.values(), ids=FORMS)
def test_the_model_of_a_form(body: bytes, model: str) -> None:
    """The model is a form field, wherever it stands."""
    request = raw(body, SPEECH, FORM)
    assert (request.requested_model, request.stream, request.kind) == (model, False, Kind.INFER)


def test_half_a_form() -> None:
    """A form that is cut off is none to Ollama either."""
    with pytest.raises(BadRequest, match="no end"):
        raw(form(FILE)[:-6] + part("model", AUDIO.encode())[:40], SPEECH, FORM)


@pytest.mark.parametrize(
    "content_type",
    [f'multipart/form-data; boundary="{BOUNDARY}"', f"multipart/form-data; charset=utf-8; boundary={BOUNDARY}; x=y"],
)
def test_boundaries(content_type: str) -> None:
    """A boundary may be quoted, and stand among other parameters."""
    assert raw(form(MODEL), SPEECH, content_type).requested_model == AUDIO


@pytest.mark.parametrize(
    "content_type", ["", "application/json", "multipart/form-data", f"text/x; boundary={BOUNDARY}"]
)
def test_no_form(content_type: str) -> None:
    """Audio comes as a form or not at all."""
    with pytest.raises(BadRequest, match="multipart/form-data"):
        raw(form(MODEL), SPEECH, content_type)


value = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=80)
content = st.binary(max_size=60).filter(lambda data: b"--" not in data)
fields = st.lists(
    st.tuples(st.from_regex(r"[a-z_]{1,9}", fullmatch=True).filter(lambda key: key != "model"), content), max_size=4
)


@given(model=value, before=fields, after=fields)
@PROPERTY
def test_the_model_of_any_form(model: str, before: list[tuple[str, bytes]], after: list[tuple[str, bytes]]) -> None:
    """Other fields, whatever they hold, do not change the model."""
    parts = [part(*field) for field in before], [part("model", model.encode())], [part(*field) for field in after]
    assert raw(form(*(one for group in parts for one in group)), SPEECH, FORM).requested_model == model


# -- pins ---------------------------------------------------------------------------------------------------------------------

AT: dict[str, tuple[str, tuple[str, str]]] = {
    "a host": ("llama3@gpu1", ("llama3", "gpu1")),
    "a tag and a host": ("llama3:8b@gpu1", ("llama3:8b", "gpu1")),
    "no host": ("llama3", ("llama3", "")),
    "no model": ("@gpu1", ("@gpu1", "")),
    "two": ("llama3@gpu1@gpu1", ("llama3@gpu1", "gpu1")),
}


@pytest.mark.parametrize(("given_", "expected"), AT.values(), ids=AT)
@pytest.mark.parametrize("path", JSON_PATHS)
def test_a_model_at_a_host(path: str, given_: str, expected: tuple[str, str]) -> None:
    """The host leaves the model's name and the body, where nothing else changes."""
    sent = call(path, given_, options={"seed": 2**63, "temperature": 0.1}, Other="Ä\u2028")
    request = read(ENDPOINTS[path], sent.body, "g1", at_hosts=("gpu1",))
    assert (request.requested_model, request.pin) == expected
    assert json.loads(request.body) == {
        key.lower() if expected[1] else key: value
        for key, value in (json.loads(sent.body) | {"model": expected[0]}).items()
    }


def test_a_header_and_a_model_at_a_host() -> None:
    """Both may name the same host; where they differ, nobody guesses."""
    sent = call("/api/chat", "m@gpu1").body
    request = read(ENDPOINTS["/api/chat"], sent, "g1", pin="gpu1", at_hosts=("gpu1",))
    assert (request.requested_model, request.pin) == ("m", "gpu1")
    with pytest.raises(BadRequest, match="X-Corral-Host names 'gpu2', and the model's name ends in @gpu1"):
        read(ENDPOINTS["/api/chat"], sent, "g1", pin="gpu2", at_hosts=("gpu1", "gpu2"))


def test_a_model_at_no_host() -> None:
    """Is told which hosts there are: no model's name has an @."""
    sent = call("/api/chat", "m@zz").body
    with pytest.raises(BadRequest, match="no host is named 'zz'; there are: gpu1, gpu2"):
        read(ENDPOINTS["/api/chat"], sent, "g1", at_hosts=("gpu1", "gpu2"))
    assert read(ENDPOINTS["/api/chat"], sent, "g1").requested_model == "m@zz"


def test_a_form_cannot_name_a_host() -> None:
    """Its body is not rewritten; the error says what to do instead."""
    sent = call("/v1/audio/transcriptions", "whisper@gpu1")
    with pytest.raises(BadRequest, match="X-Corral-Host: gpu1"):
        read(ENDPOINTS[sent.path], sent.body, "g1", sent.headers["Content-Type"], at_hosts=("gpu1",))


# -- what was sent to break it ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [40, 100, 5000])
@pytest.mark.parametrize("text", ["0" * 5000 + "x", "0." * 5000, "0h" * 5000 + "x", "0s0" * 5000])
def test_a_duration_is_read_at_once(size: int, text: str) -> None:
    """However many zeros it has: a pattern that can match in many ways would take for ever."""
    assert told("/api/generate", prompt="", keep_alive=text[:size] + "x").kind is Kind.LOAD


@pytest.mark.parametrize("text", ["0", "-0", "+0", "0s", "0.0s", ".0m", "0h0m0.000s", "0µs", "-0ms"])
def test_durations_of_nothing(text: str) -> None:
    """As Go reads them."""
    assert told("/api/generate", prompt="", keep_alive=text).kind is Kind.UNLOAD


@pytest.mark.parametrize("text", ["", "00", "0.0", "0 s", "s", ".s", "1s", "0s1ns", "0x", "zero"])
def test_what_is_no_duration_of_nothing(text: str) -> None:
    """Is Ollama's to judge; it does not unload."""
    assert told("/api/generate", prompt="", keep_alive=text).kind is Kind.LOAD


OPTIONS: dict[str, tuple[Any, tuple[tuple[str, Any], ...]]] = {
    "a whole number as a fraction": ({"num_ctx": 4096.0}, (("num_ctx", 4096),)),
    "a fraction": ({"num_ctx": 4096.7}, (("num_ctx", 4096),)),
    "beyond 64 bits": ({"num_ctx": 10**20}, ()),
    "beyond 64 bits, as a fraction": ({"num_ctx": 1e300}, ()),
    "a list": ({"num_ctx": [1]}, ()),
    "a very long one": ({"num_ctx": [0] * 5000, "num_gpu": 1}, (("num_gpu", 1),)),
    "not a map": ([1, 2], ()),
    "a truth": ({"use_mmap": False}, (("use_mmap", False),)),
}


@pytest.mark.parametrize(("options", "expected"), OPTIONS.values(), ids=OPTIONS)
def test_odd_runner_options(options: Any, expected: tuple[tuple[str, Any], ...]) -> None:
    """They are numbers and truths, of Ollama's own size, or none; their types do not depend on the spelling."""
    found = told("/api/generate", options=options).runner_options
    assert found == expected
    assert [type(value) for _, value in found] == [type(value) for _, value in expected]


def test_what_follows_a_value_is_not_read() -> None:
    """However much it is, nothing is made of it, and the values stay as they were written."""
    body = b'{"model": "x", "options": {"num_ctx": 4096}, "a": [' + b"{}," * 1000 + b"{}]} " + b"x" * 1000
    request = raw(body)
    assert (request.model, request.runner_options, request.body) == ("x:latest", (("num_ctx", 4096),), body)


def test_a_name_without_end() -> None:
    """Is refused before anything remembers it."""
    with pytest.raises(BadRequest, match="name is over"):
        told("/api/generate", model="x" * 4_000_000)


ZSTD = zstandard.ZstdCompressor().compress


@pytest.mark.parametrize("encoding", ["zstd", "ZSTD", " zstd "])
def test_frames(encoding: str) -> None:
    """A compressed body may have several, and the encoding's name is of any case."""
    body = ZSTD(b'{"model": "x",') + ZSTD(b' "stream": true}')
    request = read(ENDPOINTS["/v1/chat/completions"], body, "g1", "", encoding)
    assert (request.model, request.stream) == ("x:latest", True)


FORMS: dict[str, tuple[str, bytes, str]] = {
    "another case": (
        "Multipart/Form-Data; Boundary=B",
        b'--B\r\nContent-Disposition: Form-Data; Name="model"\r\n\r\nx\r\n--B--\r\n',
        "x",
    ),
    "no quotes": (
        "multipart/form-data; boundary=B",
        b"--B\r\nContent-Disposition: form-data; name=model\r\n\r\nx\r\n--B--\r\n",
        "x",
    ),
    "a boundary in a file": (
        "multipart/form-data; boundary=B",
        (
            b'--B\r\nContent-Disposition: form-data; name="file"\r\n\r\n..--B\r\nContent-Disposition: form-data; name="model"\r\n\r\n'
            b'other\r\n--B\r\nContent-Disposition: form-data; name="model"\r\n\r\nx\r\n--B--\r\n'
        ),
        "x",
    ),
    "another field that ends so": (
        "multipart/form-data; boundary=B",
        b'--B\r\nContent-Disposition: form-data; name="notmodel"\r\n\r\ny\r\n--B\r\nContent-Disposition: form-data; name="model"\r\n\r\nx\r\n--B--',
        "x",
    ),
}


@pytest.mark.parametrize(("content_type", "body", "model"), FORMS.values(), ids=FORMS)
def test_forms(content_type: str, body: bytes, model: str) -> None:
    """The field is found where the standard allows it to stand, and nowhere else."""
    assert raw(body, "/v1/audio/transcriptions", content_type).requested_model == model
