"""Numbers and times in a few letters."""

import pytest

from gateway.top.words import duration, latency, left, plain, size, speed
from tests.top.builders import WALL


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0.0s"), (0.42, "0.4s"), (9.96, "9s"), (59.9, "59s"), (245, "4m05s"), (11520, "3h12m"), (439200, "5d2h")],
)
def test_durations(seconds: float, text: str) -> None:
    """At most six letters."""
    assert duration(seconds) == text


def test_other_numbers() -> None:
    """Each with its unit, or with that of its column."""
    assert [latency(0.0031), latency(0.9996), latency(2.04)] == ["3 ms", "1.0 s", "2.0 s"]
    assert [size(512 * 2**20), size(13.1 * 2**30)] == ["512 MiB", "13.1 GiB"]
    assert [speed(None), speed(8.31), speed(99.96), speed(128.4)] == ["", "8.3", "100", "128"]


@pytest.mark.parametrize(
    ("expires_at", "text"),
    [
        ("2027-01-15T08:05:00Z", "5m00s"),
        ("2027-01-15T09:05:00.123456789+01:00", "5m00s"),
        ("2027-01-15T08:05:00", "5m00s"),
        ("2318-01-15T08:05:00Z", "for ever"),
        ("2020-01-15T08:05:00Z", "0.0s"),
        ("soon", "?"),
        ("", "?"),
        (None, "?"),
    ],
)
def test_what_is_left(expires_at: str | None, text: str) -> None:
    """Of a model's time in memory."""
    assert left(expires_at, WALL) == text


def test_nothing_that_a_terminal_obeys() -> None:
    """Whoever names a model or writes an error does not write to the screen."""
    assert plain("a\x1b[2Jb\x07\n\x9bc") == "a\ufffd[2Jb\ufffd\ufffd\ufffdc"
    assert plain("gpu1 ä 模型") == "gpu1 ä 模型"
