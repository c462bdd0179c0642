"""Models that come and go: each coming and each going is told once, with why, whoever notices it first."""

from datetime import UTC, datetime
from typing import Any

import pytest

from gateway.fleet.host import LoadedModel
from gateway.fleet.residence import Load, Residence, Trigger, Unload, UnloadReason, expiry
from tests.builders import OTHER, TEXT
from tests.fleet.builders import digest_of, loaded

WALL = 1_795_354_517.0
REQUEST, PRELOAD, ELSEWHERE = Trigger.REQUEST, Trigger.PRELOAD, Trigger.ELSEWHERE


def until(seconds: float, model: str = TEXT, context: int = 4096) -> LoadedModel:
    """A model that stays for so long after WALL."""
    at = datetime.fromtimestamp(WALL + seconds, UTC).isoformat()
    return loaded(model, expires_at=at, context=context)


class Watched:
    """A residence at a host, and what it told."""

    def __init__(self) -> None:
        self.told: list[Load | Unload] = []
        self.residence = Residence(self.told.append)

    def proved(self, now: float, since: float | None = None, model: str = TEXT, trigger: Trigger = REQUEST) -> None:
        """An answer's first byte."""
        self.residence.proved("gpu1", digest_of(model), model, trigger, since=since, now=now)

    def seen(self, now: float, *models: LoadedModel, loading: tuple[str, ...] = (), began: float | None = None) -> None:
        """A poll."""
        start = now - 0.01 if began is None else began
        self.residence.seen("gpu1", models, [digest_of(one) for one in loading], began=start, now=now, wall=WALL + now)

    def take(self) -> list[Any]:
        """What was told since the last time, without what is always the same."""
        told, self.told[:] = list(self.told), []
        return [(one.model, one.trigger if isinstance(one, Load) else one.reason) for one in told]


@pytest.fixture
def watched() -> Watched:
    """Nothing is known yet."""
    return Watched()


def test_a_cold_start(watched: Watched) -> None:
    """Is one load, though the poll after it sees the model as well, and others were leased as cold beside it."""
    watched.proved(5.0, since=1.0)
    assert watched.take() == [(TEXT, REQUEST)]
    watched.proved(5.1, since=2.0)
    watched.seen(6.0, until(300))
    watched.proved(7.0)
    assert watched.take() == []


def test_a_poll_that_sees_it_first(watched: Watched) -> None:
    """Knows that a request waits for it; the answer then tells nothing new."""
    watched.seen(4.0, until(300), loading=(TEXT,))
    assert watched.take() == [(TEXT, REQUEST)]
    watched.proved(5.0, since=1.0)
    assert watched.take() == []


def test_a_preload(watched: Watched) -> None:
    """Is told as such."""
    watched.proved(5.0, since=1.0, trigger=PRELOAD)
    assert watched.take() == [(TEXT, PRELOAD)]


def test_what_others_load(watched: Watched) -> None:
    """Is not ours; nor is a model that is answered though nobody knew that it is there."""
    watched.seen(1.0, until(300), until(300, OTHER))
    assert watched.take() == [(TEXT, ELSEWHERE), (OTHER, ELSEWHERE)]


def test_a_model_that_came_unseen(watched: Watched) -> None:
    """Was thought to be warm, and answers: it was loaded for that."""
    watched.proved(5.0)
    assert watched.take() == [(TEXT, REQUEST)]


def test_other_options(watched: Watched) -> None:
    """Are a reload, once: by an answer whose lease was cold though the model was there, or by a poll that sees another context."""
    watched.proved(1.0, since=0.5)
    watched.seen(2.0, until(300))
    watched.take()
    watched.proved(5.0, since=3.0)
    assert watched.take() == [(TEXT, UnloadReason.RELOADED), (TEXT, REQUEST)]
    watched.seen(6.0, until(300, context=8192))
    assert watched.take() == []
    watched.seen(7.0, until(300, context=2048))
    assert watched.take() == [(TEXT, UnloadReason.RELOADED), (TEXT, ELSEWHERE)]


@pytest.mark.parametrize(
    ("stays", "reason"),
    [
        pytest.param(10.0, UnloadReason.EXPIRED, id="its time was up"),
        pytest.param(300.0, UnloadReason.EVICTED, id="it could have stayed"),
    ],
)
def test_a_model_that_is_gone(watched: Watched, stays: float, reason: UnloadReason) -> None:
    """Expired, or had to make room."""
    watched.seen(1.0, until(stays))
    watched.take()
    watched.seen(12.0)
    watched.seen(13.0)
    assert watched.take() == [(TEXT, reason)]


def test_a_model_that_goes_while_another_is_loaded(watched: Watched) -> None:
    """Had to make room for it, where nobody was told how long it would have stayed."""
    watched.proved(1.0, since=0.5)
    watched.take()
    watched.seen(2.0, loading=(OTHER,))
    assert watched.take() == [(TEXT, UnloadReason.EVICTED)]


def test_a_model_that_never_was_polled(watched: Watched) -> None:
    """And is gone was not kept for long."""
    watched.proved(1.0, since=0.5)
    watched.take()
    watched.seen(2.0)
    assert watched.take() == [(TEXT, UnloadReason.EXPIRED)]


def test_a_model_that_never_was_polled_and_had_to_go(watched: Watched) -> None:
    """Another came after it, and is there: it made room for that."""
    watched.proved(1.0, since=0.5)
    watched.proved(1.5, since=1.2, model=OTHER)
    watched.take()
    watched.seen(2.0, until(300, OTHER))
    assert watched.take() == [(TEXT, UnloadReason.EVICTED)]
    watched.proved(3.0, since=2.5)
    watched.take()
    watched.seen(4.0, until(300, OTHER))
    assert watched.take() == [(TEXT, UnloadReason.EXPIRED)]  # the other was there before it


def test_a_model_whose_host_tells_no_time(watched: Watched) -> None:
    """Goes as others come, poll by poll: that is no expiry."""
    watched.seen(1.0, loaded(TEXT))
    watched.take()
    watched.seen(2.0, loaded(OTHER))
    assert watched.take() == [(OTHER, ELSEWHERE), (TEXT, UnloadReason.EVICTED)]
    watched.seen(3.0)
    assert watched.take() == [(OTHER, UnloadReason.EXPIRED)]


def test_a_model_that_is_there_twice(watched: Watched) -> None:
    """Was loaded once, whichever row stands first; with another context it is the one that was there that counts."""
    small, large = until(300), until(300, context=8192)
    watched.seen(1.0, small, small)
    assert watched.take() == [(TEXT, ELSEWHERE)]
    for now, rows in ((2.0, (small, large)), (3.0, (large, small)), (4.0, (small, small))):
        watched.seen(now, *rows)
    assert watched.take() == []
    watched.seen(5.0, large)
    assert watched.take() == [(TEXT, UnloadReason.RELOADED), (TEXT, ELSEWHERE)]


def test_a_reload_that_takes_longer_than_a_poll(watched: Watched) -> None:
    """A host lists no model that it loads anew: it has not left for good, and its load was ours."""
    watched.proved(1.0, since=0.0)
    watched.take()
    watched.seen(4.0, loading=(TEXT,))
    watched.seen(6.0, loading=(TEXT,))
    assert watched.take() == []
    watched.proved(7.0, since=3.0)
    assert watched.take() == [(TEXT, UnloadReason.RELOADED), (TEXT, REQUEST)]
    watched.seen(8.0, loading=(TEXT,))
    watched.seen(9.0)  # it was given up
    assert watched.take() == [(TEXT, UnloadReason.EXPIRED)]


def test_a_poll_that_is_older_than_the_answer(watched: Watched) -> None:
    """Proves nothing: the model came while it was on its way."""
    watched.proved(5.0, since=1.0)
    watched.take()
    watched.seen(5.5, began=4.9)
    assert watched.take() == []
    watched.seen(6.5)
    assert watched.take() == [(TEXT, UnloadReason.EXPIRED)]


def test_on_our_word(watched: Watched) -> None:
    """Once, and only what was there."""
    watched.seen(1.0, until(300))
    watched.take()
    for _ in range(2):
        watched.residence.unloaded("gpu1", digest_of(TEXT), 1.5)
    watched.residence.unloaded("gpu2", digest_of(TEXT), 1.5)
    watched.seen(2.0)
    assert watched.take() == [(TEXT, UnloadReason.REQUESTED)]


def test_a_poll_that_is_older_than_our_word(watched: Watched) -> None:
    """Lists what was there when it asked: nothing came back. The next one can be believed."""
    watched.seen(1.0, until(300))
    watched.take()
    watched.residence.unloaded("gpu1", digest_of(TEXT), 2.0)
    watched.seen(2.5, until(300), began=1.9)
    assert watched.take() == [(TEXT, UnloadReason.REQUESTED)]
    watched.seen(3.5, until(300))
    assert watched.take() == [(TEXT, ELSEWHERE)]


def test_a_poll_that_is_older_than_a_reload(watched: Watched) -> None:
    """Tells the context that was: no reason to take the next one's for another reload."""
    watched.seen(1.0, until(300))
    watched.proved(5.0, since=3.0)
    watched.take()
    watched.seen(5.5, until(300), began=4.9)
    watched.seen(6.5, until(300, context=8192))
    assert watched.take() == []


def test_a_host_that_is_lost(watched: Watched) -> None:
    """Loses all that it held, once."""
    watched.seen(1.0, until(300), until(300, OTHER))
    watched.take()
    watched.residence.lost("gpu1", 2.0)
    watched.residence.lost("gpu1", 2.0)
    assert watched.take() == [(TEXT, UnloadReason.HOST_LOST), (OTHER, UnloadReason.HOST_LOST)]


def test_a_host_that_is_removed(watched: Watched) -> None:
    """Is forgotten without a word."""
    watched.seen(1.0, until(300))
    watched.take()
    watched.residence.configure(["gpu2"])
    watched.residence.lost("gpu1", 2.0)
    assert watched.take() == []


@pytest.mark.parametrize(
    ("text", "unix"),
    [
        ("2026-11-22T13:40:16.579925016Z", 1_795_354_816.579925),
        ("2026-11-22T14:40:16+01:00", 1_795_354_816.0),
        ("", None),
        ("soon", None),
        ("0001-01-01T00:00:00", None),
    ],
)
def test_when_a_model_goes(text: str, unix: float | None) -> None:
    """As Ollama writes it, with nanoseconds; what is no time, or none that counts, is none."""
    assert expiry(text) == unix
