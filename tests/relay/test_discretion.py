"""What of a host's error is told to others than its caller: nothing that the request says."""

import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.dialects.endpoints import ENDPOINTS
from gateway.dialects.request import InferenceRequest, Kind
from gateway.relay.discretion import LEFT_OUT, SEARCHED_BYTES, SHARED_LEAST, discreet

MODEL = "hf.co/somebody/a-model-with-a-long-name:Q4_K_M"
ASKED = 'My password is hunter2, and "John" has the flu.\nТолько между нами'


def asking(body: bytes, model: str = MODEL) -> InferenceRequest:
    """A request with this body."""
    return InferenceRequest("id", ENDPOINTS["/api/chat"], Kind.INFER, model, model, True, (), 0, (), body)


def body(prompt: str) -> bytes:
    """As Python writes it: what is not ASCII is escaped."""
    return json.dumps({"model": MODEL, "prompt": prompt, "keep_alive": "my secret words"}).encode()


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("llama runner process has terminated: exit status 2", "llama runner process has terminated: exit status 2"),
        (f"model '{MODEL}' not found", f"model '{MODEL}' not found"),
        ("cannot tokenize My password is hunter2, and more", f"cannot tokenize {LEFT_OUT}more"),
        ('time: invalid duration "my secret words"', f"time: invalid duration {LEFT_OUT}"),
        ("no: Только между нами", f"no: {LEFT_OUT}"),
        (f"cannot use '{'x' * 80}' here", f"cannot use {LEFT_OUT} here"),
        ("error parsing tool call: raw='an answer'", f"error parsing tool call: {LEFT_OUT}"),
        ("", ""),
    ],
)
def test_errors(said: str, told: str) -> None:
    """What is the host's own stays, so does the model's name."""
    assert discreet(said, asking(body(ASKED))) == told


def test_an_echo() -> None:
    """Of the whole request, in whatever spelling of JSON."""
    request = asking(body(ASKED))
    for echo in (request.body.decode(), msgspec.json.encode(json.loads(request.body)).decode()):
        said = discreet(f"llama runner process has terminated: {echo}", request)
        assert said.startswith("llama runner process has terminated:")
        assert not any(words in said for words in ("password", "hunter2", "has the flu", "secret"))


def test_what_is_no_json() -> None:
    """A form, and what cannot be decoded."""
    assert (
        discreet("cannot read my secret words", asking(b'a\r\n\r\nmy secret words\xff\r\n--"'))
        == f"cannot read {LEFT_OUT}"
    )


def test_a_long_request() -> None:
    """Is searched at its beginning and at its end, where the words are: pictures are between."""
    long = body("the first words of it " + "A" * SEARCHED_BYTES + " and the last words of it")
    said = discreet("no: the first words of it, and the last words of it", asking(long))
    assert "first words" not in said
    assert "last words" not in said


@settings(deadline=None)
@given(st.text("abc ", max_size=60), st.text("abc ", max_size=20), st.text("abc ", max_size=60))
def test_nothing_shared_stays(before: str, shared: str, after: str) -> None:
    """Of what stands in both in a row, less than SHARED_LEAST characters are told; what is told was said."""
    request = asking(body(shared), model="")
    told = discreet(before + shared + after, request)
    pieces = told.split(LEFT_OUT)
    for piece in pieces:
        assert piece in before + shared + after
        assert not any(piece[at : at + SHARED_LEAST] in shared for at in range(len(piece) - SHARED_LEAST + 1))
