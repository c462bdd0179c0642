"""A look as a picture: what is on it, and that it fits."""

import dataclasses
from io import StringIO

import pytest
from rich.cells import cell_len
from rich.console import Console

from gateway.top.desk import Act, Choice, Desk, Verb
from gateway.top.look import SeenFinding, SeenKept, SeenReadiness
from gateway.top.picture import Picture, painted, shared, window
from gateway.top.rates import rates
from tests.top.builders import generation, host, look, model

URL = "http://127.0.0.1:11434"


def drawn(picture: Picture, width: int = 80, height: int | None = None) -> list[str]:
    """The lines that are drawn, without styles."""
    console = Console(file=StringIO(), width=width, height=height or 100, color_system=None, legacy_windows=False)
    with console.capture() as captured:
        console.print(painted(picture, width, height))
    lines = captured.get().splitlines()
    assert all(cell_len(line) <= width for line in lines)
    return [line.rstrip() for line in lines]


BUSY = look(
    host("gpu1", leases=2, slots=2, models_loaded=(model(expires_at="2027-01-15T08:04:05Z"),)),
    host("gpu2", draining=True),
    host("gpu3", health="ejected", why="cannot connect: Connection refused", version="", seen_seconds_ago=None),
    at=10.0,
    generations=(
        generation("0199aaaaaa", age_seconds=12.0, tokens=340, client="10.0.0.9"),
        generation("0199bbbbbb", "qwen3:30b", phase="queued", host=None, age_seconds=1.5),
    ),
    findings=(SeenFinding("few_copies", "llama3:8b is on gpu1 only"),),
    outcomes={"ok": 40, "timeout": 2},
    tokens={"gpu1": 160},
    first_token={0.1: 0, 1.0: 40, float("inf"): 40},
)
BEFORE = dataclasses.replace(look(at=0.0), generations=(generation("0199aaaaaa", tokens=100),))


def test_a_busy_gateway() -> None:
    """Everything that is asked for is on it, on 80 columns."""
    desk = Desk(Choice("0199bbbbbb", host=False), 4)
    assert drawn(Picture(URL, BUSY, rates((BEFORE, BUSY)), desk=desk)) == [
        "Corral 1.2 (compiled)  http://127.0.0.1:11434  ready  storage up  up 1m50s",
        "in flight 1  queued 1  40.0 tok/s  errors 2/42  TTFT 550 ms p95 955 ms  in 10s …",
        "gpu3 ejected: cannot connect: Connection refused",
        "llama3:8b is on gpu1 only",
        "",
        "  HOST                            HEALTH    OLLAMA  LATENCY  SLOTS  TOK/S   SEEN",
        "  gpu1                            healthy   0.33.0     3 ms    2/2   40.0   1.0s",
        "  gpu2                            draining  0.33.0     3 ms    0/1          1.0s",
        "  gpu3                            ejected                      0/1         never",
        "",
        "  LOADED MODEL                           HOST     VRAM  ON GPU  CONTEXT  EXPIRES",
        "  llama3:8b                              gpu1  6.0 GiB   100 %     8192    3m55s",
        "",
        "  IN FLIGHT                         ID      HOST  PHASE       AGE  TOKENS  TOK/S",
        "  llama3:8b                         aaaaaa  gpu1  streaming   12s     340   24.0",
        "▸ qwen3:30b                         bbbbbb        queued     1.5s       0",
        "↑↓ choose   tab other table   c cancel   d drain/resume   q quit",
    ]


def test_what_is_to_stay() -> None:
    """Pinned and warm models say so, and how it stands with those that are not there."""
    keeps = (SeenKept("llama3:8b", "pin", "loaded"), SeenKept("m:1b", "warm", "due"), SeenKept("n:1b", "pin", "failed"))
    one = look(host("gpu1", models_loaded=(model("LLaMA3:8b"), model("other:1b")), models_kept=keeps))
    lines = drawn(Picture(URL, one))
    start = next(number for number, line in enumerate(lines) if "LOADED MODEL" in line)
    assert lines[start : start + 5] == [
        "  LOADED MODEL              HOST     VRAM  ON GPU  CONTEXT  EXPIRES  KEPT",
        "  LLaMA3:8b                 gpu1  6.0 GiB   100 %     8192        ?  pin",
        "  other:1b                  gpu1  6.0 GiB   100 %     8192        ?",
        "  m:1b                      gpu1                                     warm, due",
        "  n:1b                      gpu1                                     pin, failed",
    ]


def test_room_for_more() -> None:
    """A wide screen names clients, and says which errors they were."""
    text = "\n".join(drawn(Picture(URL, BUSY, rates((BEFORE, BUSY))), 120))
    assert "10.0.0.9" in text
    assert "in 10s  timeout 2" in text
    assert "q quit" not in text, "nobody is there to press it"


@pytest.mark.parametrize("width", [20, 40, 79, 200])
@pytest.mark.parametrize("height", [1, 8, 14, 24])
def test_it_fits(width: int, height: int) -> None:
    """No line is wider, and from a dozen lines on it is no higher than the screen."""
    many = dataclasses.replace(
        look(*(host(f"gpu{n}", health="suspect", why="x" * 300, models_loaded=(model(),) * 3) for n in range(50))),
        generations=tuple(generation(f"{n:010}", "a" * 200) for n in range(500)),
    )
    lines = drawn(Picture(URL, many, desk=Desk()), width, height)
    assert len(lines) <= max(height, 10)


def test_what_does_not_fit_is_counted() -> None:
    """And those around the choice are shown."""
    many = look(generations=tuple(generation(f"{n:010}") for n in range(500)))
    chosen = Desk(Choice("0000000321", host=False), 322)
    lines = drawn(Picture(URL, many, desk=chosen), 80, 24)
    assert any(line.startswith("  IN FLIGHT (14 of 500)") for line in lines)
    assert [line for line in lines if line.startswith("▸") and "000321" in line]
    assert len(lines) == 24


def test_a_gateway_that_is_away() -> None:
    """Says so, and how old the rest is."""
    never = drawn(Picture(URL, down="Connection refused", desk=Desk()))
    assert never == [
        "Corral  http://127.0.0.1:11434",
        "no answer: Connection refused; trying again.",
        "↑↓ choose   tab other table   c cancel   d drain/resume   q quit",
    ]
    since = drawn(Picture(URL, BUSY, down="Connection refused", down_seconds=7.2))
    assert since[1] == "no answer: Connection refused; trying again. What follows is 7.2s old."
    assert any("gpu1" in line for line in since)
    assert drawn(Picture(URL))[1] == "asking …"


@pytest.mark.parametrize(
    ("readiness", "words"),
    [
        (SeenReadiness(ready=True, storage="degraded"), "ready  storage degraded"),
        (SeenReadiness(ready=False), "not ready"),
        (SeenReadiness(ready=False, draining=True), "stopping"),
    ],
)
def test_how_the_gateway_is(readiness: SeenReadiness, words: str) -> None:
    """In its first line."""
    assert words in drawn(Picture(URL, look(readiness=readiness)))[0]


def test_questions_and_notes() -> None:
    """Stand in the last line, in place of the keys."""
    question = Act(Verb.CANCEL, "x", "aaaaaa (llama3:8b on gpu1)")
    assert drawn(Picture(URL, BUSY, desk=Desk(question=question)))[-1] == (
        "Cancel aaaaaa (llama3:8b on gpu1)? y yes   any other key no"
    )
    assert drawn(Picture(URL, BUSY, desk=Desk(question=Act(Verb.DRAIN, "gpu1", "gpu1"))))[-1].startswith("Drain gpu1?")
    assert drawn(Picture(URL, BUSY, desk=Desk(note="gpu1: takes requests again")))[-1] == "gpu1: takes requests again"


def test_names_are_shown_and_not_obeyed() -> None:
    """Neither what a terminal would obey nor what rich would."""
    evil = look(
        host("gpu1", health="suspect", why="\x1b[31mred[/red]", models_loaded=(model("[bold]x\x1b]0;t\x07"),)),
        generations=(generation("a", "\x1b[2J[red]m"),),
    )
    text = "\n".join(drawn(Picture(URL, evil)))
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "[2J[red]m" in text
    assert "[bold]x" in text
    assert "[31mred[/red]" in text


def test_sharing_lines() -> None:
    """Small wants first, then the same for all."""
    assert shared(10, [2, 3, 100, 4]) == [2, 3, 3, 2]
    assert shared(3, [0, 9, 0, 9]) == [0, 2, 0, 1]
    assert shared(100, [1, 2, 3]) == [1, 2, 3]
    assert shared(-4, [1, 2]) == [0, 0]


def test_windows() -> None:
    """Around the chosen line, inside the table."""
    assert window(3, 5, 2) == (0, 3)
    assert window(10, 4, None) == window(10, 4, 0) == (0, 4)
    assert window(10, 4, 5) == (3, 7)
    assert window(10, 4, 9) == (6, 10)
