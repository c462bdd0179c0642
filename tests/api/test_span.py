"""The time that a question is about: what may be written, what it means, and what is refused in words that help."""

from typing import Any

import pytest

from gateway.api.span import MOST_POINTS, Span, bucket_of, moment, said, seconds, span, step_of
from gateway.errors import BadRequest

NOW = 1_795_354_517.0
DAY = 86400


@pytest.mark.parametrize(
    ("query", "since", "until"),
    [
        ({}, NOW - DAY, NOW),
        ({"range": "15m"}, NOW - 900, NOW),
        ({"range": "2w"}, NOW - 14 * DAY, NOW),
        ({"from": "1795350000"}, 1_795_350_000, NOW),
        ({"from": "1795350000", "to": "1795351000", "range": "1w"}, 1_795_350_000, 1_795_351_000),
        ({"from": "1795350000", "to": "1795351000.5"}, 1_795_350_000, 1_795_351_000.5),
        ({"from": "1795350000", "range": "1h"}, 1_795_350_000, 1_795_353_600),
        ({"to": "1795350000", "range": "1h"}, 1_795_346_400, 1_795_350_000),
        ({"to": "1795350000"}, 1_795_350_000 - DAY, 1_795_350_000),
        ({"range": "9999w"}, 0, NOW),
        ({"range": "1h", "to": "1999999999"}, None, None),
        ({"from": "2026-11-22T14:00:00Z", "to": "2026-11-22T15:00:00"}, 1_795_356_000 - 86400 * 0, None),
    ],
)
def test_spans(query: dict[str, str], since: float | None, until: float | None) -> None:
    """Two of range, from and to say all; the future is left out."""
    if since is None:
        with pytest.raises(BadRequest, match="no time between"):
            span(query, NOW)
        return
    now = NOW if until is not None else NOW + DAY
    made = span(query, now)
    assert (made.since, made.until) == (since, until or since + 3600)


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2026-11-22", 1_795_305_600),
        ("2026-11-22T14:00:00Z", 1_795_356_000),
        ("2026-11-22T14:00:00+02:00", 1_795_348_800),
        ("2026-11-22T14:00:00 02:00", 1_795_348_800),
        ("0", 0),
    ],
)
def test_moments(text: str, at: float) -> None:
    """ISO 8601, also where a + became a space on its way; or Unix seconds."""
    assert moment(text, "from") == at


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"range": "1y"}, "range='1y': write it like 15m"),
        ({"range": "0h"}, "range"),
        ({"range": "1" * 400 + "d"}, "range"),
        ({"range": "٣h"}, "range"),
        ({"from": "yesterday"}, "2026-11-22T14:00:00Z"),
        ({"from": "9" * 30}, "from"),
        ({"from": "1960-01-01"}, "before 1970"),
        ({"from": "0001-01-01T00:00:00+14:00"}, "from"),
        ({"from": "9999-12-31T23:59:59"}, "too far away"),
        ({"from": "nan"}, "from"),
        ({"from": "200", "to": "100"}, "no time between"),
    ],
)
def test_spans_that_cannot_be(query: dict[str, str], words: str) -> None:
    """Each is told which word is wrong, and how to write it."""
    with pytest.raises(BadRequest, match=words):
        span(query, NOW)


def test_whole_steps() -> None:
    """A span is widened to them, and stays if it has them."""
    assert Span(61.0, 119.0).widened(60) == Span(60, 120)
    assert Span(60.0, 120.0).widened(60) == Span(60, 120)


@pytest.mark.parametrize(
    ("query", "hours", "step"),
    [
        ({}, 1, 60),
        ({}, 6, 300),
        ({}, 24, 300),
        ({}, 72, 900),
        ({}, 24 * 7, 3600),
        ({}, 24 * 20, 21600),
        ({}, 24 * 400, 172800),
        ({"step": "1m"}, 6, 60),
        ({"step": "45m"}, 24, 2700),
        ({"step": "2h"}, 24 * 30, 7200),
    ],
)
def test_steps(query: dict[str, str], hours: int, step: int) -> None:
    """Some hundred points where nothing is said."""
    asked = Span(NOW - hours * 3600, NOW)
    made = step_of(query, asked, NOW, 14)
    assert made == step
    assert hours * 3600 / made <= MOST_POINTS


@pytest.mark.parametrize(
    ("step", "days", "words"),
    [
        ("1m", 7, "10,080 points, and 1,000 are the most"),
        ("5m", 15, "kept for 14 days: ask with step=1h"),
        ("90m", 1, "whole hours"),
        ("1s", 1, "write it like"),
    ],
)
def test_steps_that_cannot_be(step: str, days: int, words: str) -> None:
    """Too many points, minutes that are gone, steps that no sum has."""
    with pytest.raises(BadRequest, match=words):
        step_of({"step": step}, Span(NOW - days * DAY, NOW), NOW, 14)


@pytest.mark.parametrize(("ago", "length", "bucket"), [(3600, 3600, 60), (DAY, DAY, 3600), (15 * DAY, 3600, 3600)])
def test_buckets(ago: int, length: int, bucket: int) -> None:
    """Short and recent spans are summed by the minute."""
    assert bucket_of(Span(NOW - ago, NOW - ago + length), NOW, 14) == bucket


def test_words_to_look_for() -> None:
    """Whatever a query holds, a database takes it."""
    query: dict[str, Any] = {"host": "gpu\0\ud800"}
    assert (said(query, "host"), said(query, "model")) == ("gpu?", None)
    assert seconds("3h", "step") == 10800
