"""Usage is read from an answer's end, and from nothing that a model may have said."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.lines import KEEP_BYTES, Framing, Meter
from gateway.dialects.usage import usage_of
from gateway.record import Accounting, Usage
from tests.dialects.streams import event, line
from tests.profiles import PROPERTY

# -- usage ------------------------------------------------------------------------------------------------------------------------

NATIVE = line(
    model="x",
    done=True,
    total_duration=6_000_000_000,
    load_duration=2_000_000_000,
    prompt_eval_count=14,
    prompt_eval_duration=500_000_000,
    eval_count=24,
    eval_duration=3_000_000_000,
)
USAGES = {
    "native": (NATIVE, Usage(14, 24, Accounting.REPORTED, 2.0, 0.5, 3.0, 6.0)),
    "native, cut at its beginning": (b"1,2,3" + NATIVE[5:], Usage(14, 24, Accounting.REPORTED, 2.0, 0.5, 3.0, 6.0)),
    "native, zeros left out": (line(done=True, eval_count=1), Usage(0, 1, Accounting.REPORTED)),
    "native, no numbers": (line(done=True), Usage(0, 0, Accounting.REPORTED)),
    "native embedding": (line(embeddings=[[0.5]], prompt_eval_count=7), Usage(7, 0, Accounting.REPORTED)),
    "openai": (
        line(object="chat.completion", usage={"prompt_tokens": 14, "completion_tokens": 12, "total_tokens": 26}),
        Usage(14, 12, Accounting.REPORTED),
    ),
    "openai, streamed": (
        event(choices=[], usage={"prompt_tokens": 14, "completion_tokens": 12}) + b"data: [DONE]\n\n",
        Usage(14, 12, Accounting.REPORTED),
    ),
    "openai, zeros before": (
        event(text="a", usage={"prompt_tokens": 0, "completion_tokens": 0})
        + event(choices=[], usage={"prompt_tokens": 11, "completion_tokens": 7})
        + b"data: [DONE]\n\n",
        Usage(11, 7, Accounting.REPORTED),
    ),
    "openai, streamed without usage": (event(choices=[{"delta": {}}]) + b"data: [DONE]\n\n", Usage(output_tokens=5)),
    "openai, null usage": (line(usage=None), Usage(output_tokens=5)),
    "responses": (
        event(response={"usage": {"input_tokens": 12, "output_tokens": 6}}, type="response.completed"),
        Usage(12, 6, Accounting.REPORTED),
    ),
    "anthropic": (
        line(type="message", usage={"input_tokens": 3, "output_tokens": 4}),
        Usage(3, 4, Accounting.REPORTED),
    ),
    "anthropic, the estimate first": (
        event(type="message_start", message={"usage": {"input_tokens": 6, "output_tokens": 0}})
        + event(type="message_delta", usage={"input_tokens": 14, "output_tokens": 8}),
        Usage(14, 8, Accounting.REPORTED),
    ),
    "pretty-printed": (
        b'data: {\n "usage" : {\n "prompt_tokens": 1,\n "completion_tokens":  2}}',
        Usage(1, 2, Accounting.REPORTED),
    ),
    "in the text": (event(delta='{"eval_count":9,"prompt_tokens":9}') + b"data: [DONE]\n\n", Usage(output_tokens=5)),
    "nothing": (b"", Usage(output_tokens=5)),
    "no JSON": (b"Hello.", Usage(output_tokens=5)),
    "no object": (b"[1]", Usage(output_tokens=5)),
    "no UTF-8": (b'{"text":"\xff","eval_count":3}', Usage(0, 3, Accounting.REPORTED)),
}


@pytest.mark.parametrize(("tail", "usage"), USAGES.values(), ids=USAGES)
def test_usage(tail: bytes, usage: Usage) -> None:
    """What the host reports is taken from the end of its answer; where it reports nothing, tokens are as counted."""
    assert usage_of(tail, 5, complete=True) == usage


def test_an_answer_that_is_not_whole_reports_nothing() -> None:
    """Numbers in an answer that was cut are not its last."""
    assert usage_of(NATIVE, 5, complete=False) == Usage(output_tokens=5)


DEEP = b"[" * 1000 + b"]" * 1000
UNBELIEVABLE = {
    "less than nothing": b'{"done":true,"eval_count":-50,"prompt_eval_count":-7}',
    "less than nothing, v1": line(object="x", usage={"prompt_tokens": -1, "completion_tokens": -1}),
    "less than nothing, streamed": event(choices=[], usage={"prompt_tokens": -1}) + b"data: [DONE]\n\n",
    "19 digits": b'{"done":true,"eval_count":' + b"9" * 19 + b"}",
    "400 digits": b'{"done":true,"eval_count":' + b"9" * 400 + b"}",
    "400 digits, streamed": b'data: {"usage":{"prompt_tokens":' + b"9" * 400 + b"}}\n\n",
    "half of one": b'{"done":true,"eval_count":1.5}',
    "half of one, streamed": b'data: {"usage":{"prompt_tokens":1.5}}\n\n',
    "a word": b'{"done":true,"eval_count":"7"}',
    "deep": b'{"a":' + DEEP + b"}",
    "deep inside": b'{"eval_count":' + DEEP + b"}",
}


@pytest.mark.parametrize("tail", UNBELIEVABLE.values(), ids=UNBELIEVABLE)
def test_what_is_no_number_is_not_believed(tail: bytes) -> None:
    """Then tokens are those that were counted."""
    assert usage_of(tail, 5, complete=True) == Usage(output_tokens=5)


def test_usage_beside_what_is_too_deep() -> None:
    """Is found all the same."""
    assert usage_of(b'{"a":' + DEEP + b',"eval_count":3}', 5, complete=True) == Usage(0, 3, Accounting.REPORTED)


@given(st.text(), st.binary(max_size=40))
@PROPERTY
def test_text_cannot_pretend_to_be_usage(said: str, before: bytes) -> None:
    """Whatever a model says, even the words of a usage, its usage is what stands outside of its text."""
    words = said + '","eval_count":7,"prompt_tokens":7,"output_tokens":7,{"completion_tokens":7}'
    for tail in (event(choices=[{"delta": {"content": words}}]), event(type="x", delta={"text": words})):
        assert usage_of(before.replace(b"\\", b"") + tail, 5, complete=True) == Usage(output_tokens=5)


def test_the_long_last_line_of_generate() -> None:
    """A last line with a context of thousands of tokens is longer than what is kept; its usage is still found."""
    last = json.loads(NATIVE)
    whole = line(response="a", done=False) + line(context=list(range(4000)), **last)
    meter = Meter(Framing.NDJSON)
    meter.feed(whole, 0.0)
    assert len(meter.last_line) == KEEP_BYTES - 1
    assert usage_of(meter.last_line, 1, complete=True) == USAGES["native"][1]
