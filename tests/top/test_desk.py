"""What keys do."""

import pytest

from gateway.top.desk import Act, Choice, Desk, Verb, choices, pressed, settled
from gateway.top.keys import Key
from gateway.top.look import Look
from tests.top.builders import generation, host, look

TWO = look(host("gpu1"), host("gpu2"), generations=(generation("0000aaaaaa"), generation("0000bbbbbb", host=None)))
GPU1, GPU2 = Choice("gpu1", host=True), Choice("gpu2", host=True)
A, B = Choice("0000aaaaaa", host=False), Choice("0000bbbbbb", host=False)


def after(*keys: str, seen: Look | None = TWO) -> tuple[Desk, list[Act]]:
    """The desk after some keys, and the acts they led to."""
    desk, acts = settled(Desk(), seen), []
    for key in keys:
        desk, act = pressed(desk, key, seen)
        acts += [act] if act else []
    return desk, acts


@pytest.mark.parametrize(
    ("keys", "choice"),
    [
        ((), GPU1),
        ((Key.UP,), GPU1),
        ((Key.DOWN,), GPU2),
        (("j", "j", "k"), GPU2),
        ((Key.DOWN,) * 9, B),
        ((Key.TAB,), A),
        ((Key.DOWN, Key.TAB, Key.DOWN, Key.TAB), GPU1),
        (("x", Key.ESCAPE, Key.OTHER), GPU1),
    ],
)
def test_choosing(keys: tuple[str, ...], choice: Choice) -> None:
    """Through both tables, not beyond them."""
    assert after(*keys)[0].choice == choice


def test_cancelling_asks_once() -> None:
    """And says whom: yes is an act, anything else is none."""
    asked, none = after(Key.TAB, "c")
    assert (asked.question, none) == (Act(Verb.CANCEL, A.name, "aaaaaa (llama3:8b on gpu1)"), [])
    assert after(Key.TAB, "c", "y")[1] == [asked.question]
    for no in ("n", Key.ESCAPE, "q", "c"):
        desk, acts = after(Key.TAB, "c", no)
        assert (desk.question, acts) == (None, [])
    waiting = after(Key.TAB, Key.DOWN, "c")[0].question
    assert waiting is not None
    assert waiting.words == "bbbbbb (llama3:8b, which waits)"


def test_draining() -> None:
    """Asks once; to bring a host back needs no question."""
    assert after(Key.DOWN, "d", "y")[1] == [Act(Verb.DRAIN, "gpu2", "gpu2")]
    assert after(Key.DOWN, "d", "n")[1] == []
    drained = look(host("gpu1", draining=True))
    assert after("d", seen=drained)[1] == [Act(Verb.RESUME, "gpu1", "gpu1")]


def test_the_wrong_table() -> None:
    """Is told, and asks nothing."""
    desk, acts = after("c")
    assert (desk.question, acts, desk.note) == (None, [], "choose a generation to cancel, with the arrows")
    desk, acts = after(Key.TAB, "d")
    assert (desk.question, acts, desk.note) == (None, [], "choose a host to drain, with the arrows")
    assert after("c", Key.UP)[0].note == ""


def test_quitting() -> None:
    """Always, also with nothing to see."""
    assert after("q")[1] == after("q", seen=None)[1] == [Act(Verb.QUIT)]
    assert after("c", "d", Key.UP, seen=None) == (Desk(), [])


def test_what_is_gone() -> None:
    """The choice passes to the neighbour, and the question falls."""
    desk, _ = after(Key.TAB, Key.DOWN, "c")
    stays = settled(desk, TWO)
    assert stays == desk
    shorter = look(host("gpu1"), host("gpu2"), generations=(generation("0000aaaaaa"),))
    left = settled(desk, shorter)
    assert (left.choice, left.question, left.note) == (A, None, "bbbbbb (llama3:8b, which waits): it is gone")
    assert settled(desk, None).choice is None
    grown = look(host("gpu0"), host("gpu1"), host("gpu2"), generations=TWO.generations)
    assert settled(desk, grown).choice == B, "a choice is a thing, not a place"


def test_a_host_may_be_called_like_a_generation() -> None:
    """The two are never mixed up."""
    same = look(host("x"), generations=(generation("x"),))
    assert choices(same) == [Choice("x", host=True), Choice("x", host=False)]
    desk, acts = after(Key.DOWN, "c", "y", seen=same)
    assert [act.verb for act in acts] == [Verb.CANCEL]
    assert desk.choice == Choice("x", host=False)
