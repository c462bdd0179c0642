"""What a message says while nothing is said yet."""

import pytest

from dashboard.following import Following
from dashboard.views.messages import _doing


@pytest.mark.parametrize(
    ("phase", "told", "words"),
    [
        ("queued", {}, "Waiting for a free host…"),
        ("queued", {"place": 3}, "Waiting for a free host: 3 in the queue"),
        ("queued", {"place": 3, "waits": 12.3}, "Waiting for a free host: 3 in the queue, about 12 s"),
        ("connecting", {}, "Sent"),
        ("prefill", {"host": "gpu1", "loads": 4.0, "age": 1.0}, "gpu1 loads the model, about 4 s · 1 s"),
        ("prefill", {"host": "gpu1", "age": 1.0}, "gpu1 reads the question · 1 s"),
        (
            "streaming",
            {"host": "gpu1", "away": True},
            ":material/cloud_off: The gateway does not answer. It is tried again.",
        ),
    ],
)
def test_what_is_waited_for(phase: str, told: dict[str, object], words: str) -> None:
    """The place and the seconds in the queue, then the load, then the prompt."""
    following = Following("g1")
    following.phase = phase
    for name, value in told.items():
        setattr(following, name, value)
    assert _doing(following, following.answer) == words
