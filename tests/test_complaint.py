"""What is wrong with a value, as msgspec finds it and people are told it."""

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
import pytest
from msgspec import Meta

from gateway.complaint import in_words


class Inner(msgspec.Struct, forbid_unknown_fields=True):
    """One of a list."""

    a: int = 0


class Given(msgspec.Struct, forbid_unknown_fields=True):
    """Fields of all sorts."""

    limit: Annotated[int, Meta(ge=1, le=9)]
    share: Annotated[float, Meta(gt=0, lt=1)] | None = None
    exact: bool = False
    title: Annotated[str, Meta(max_length=3)] = ""
    range: Annotated[str, Meta(pattern="^[0-9]+h$")] = "1h"
    inner: Annotated[list[Inner], Meta(max_length=1)] = []
    kind: Literal["x", "y"] = "x"
    options: dict[str, Any] = {}
    at: datetime | None = None


WORDS = {
    '{"limit":"x"}': "limit must be a whole number, not a text",
    '{"limit":0}': "limit must be at least 1",
    '{"limit":10}': "limit must be at most 9",
    '{"limit":1,"share":1}': "share must be less than 1.0",
    '{"limit":1,"share":0}': "share must be more than 0.0",
    '{"limit":1,"share":"x"}': "share must be a number or null, not a text",
    '{"limit":1,"exact":1}': "exact must be true or false, not a whole number",
    '{"limit":1,"title":"abcd"}': "title must have at most 3 characters",
    '{"limit":1,"range":"1d"}': "range must be of the form ^[0-9]+h$",
    '{"limit":1,"inner":[{},{}]}': "inner must have at most 1 entries",
    '{"limit":1,"inner":[{"a":null}]}': "inner[0].a must be a whole number, not null",
    '{"limit":1,"inner":[{"b":1}]}': "there is no field inner[0].b",
    '{"limit":1,"kind":"z"}': "kind cannot be 'z'",
    '{"limit":1,"options":[]}': "options must be an object, not a list",
    '{"limit":1,"at":"noon"}': "at: Invalid RFC3339 encoded datetime",
    "{}": "limit is missing",
    '{"limits":1}': "there is no field limits",
    "[]": "it must be an object, not a list",
    "": "the JSON ends too soon",
    "x": "not JSON: invalid character (byte 0)",
}


@pytest.mark.parametrize(("text", "words"), WORDS.items())
def test_in_words(text: str, words: str) -> None:
    """Where it is, and what it should be, without msgspec's own terms."""
    with pytest.raises(msgspec.DecodeError) as caught:
        msgspec.json.decode(text, type=Given)
    assert in_words(caught.value) == words
