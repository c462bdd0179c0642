"""Painting what grows. Nothing here decides anything.

An answer is cut into blocks of Markdown at blank lines, some of which make a piece; only the last piece is drawn again. ``live`` paints in a loop inside one run of a fragment, so
that widgets of the page (Stop above all) are not held up: those run in the page's main script.
"""

import re
import time
from collections.abc import Callable, Iterator

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from dashboard.edge import fragment

FRAMES_PER_SECOND = 20
SLICE_SECONDS = 1.5
PIECE_CHARACTERS = 800
_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})")
_CONTINUES = re.compile(r"^(\s|[-*+>|] |\d+[.)] )")


def blocks(text: str) -> tuple[list[str], str]:
    """The blocks that are whole, and the last one. Never cut: code, formulas, a list, a table."""
    done: list[str] = []
    current: list[str] = []
    fence, formula = "", False
    lines = text.split("\n")
    for number, line in enumerate(lines):
        if found := _FENCE.match(line):
            mark = found[1]
            fence = "" if fence and mark.startswith(fence) else fence or mark
        elif not fence and line.count("$$") % 2:
            formula = not formula
        whole = False
        if not line.strip() and not fence and not formula:
            following = next((one for one in lines[number + 1 :] if one.strip()), "")
            whole = bool(following) and not _CONTINUES.match(following)
        if whole and any(one.strip() for one in current):
            done.append("\n".join(current).strip("\n"))
            current = []
        else:
            current.append(line)
    return done, "\n".join(current)


def gathered(done: list[str], tail: str) -> tuple[list[str], str]:
    """Short blocks together, up to PIECE_CHARACTERS: what is finished, and the rest. A browser looks at every element of the page for each change."""
    pieces: list[str] = []
    rest: list[str] = []
    for block in done:
        rest.append(block)
        if sum(map(len, rest)) >= PIECE_CHARACTERS:
            pieces.append("\n\n".join(rest))
            rest = []
    return pieces, "\n\n".join([*rest, tail])


class Growing:
    """Markdown that grows: an element for each piece, only the last is drawn again, in place."""

    def __init__(self, parent: DeltaGenerator, cursor: str = " ▌") -> None:
        self._box = parent.container(gap="small")
        self._parts: list[DeltaGenerator] = []
        self._cursor = cursor
        self._shown = "", True

    def show(self, text: str, *, growing: bool = True) -> None:
        """``text`` instead of what was there."""
        if (text, growing) == self._shown:
            return
        self._shown = text, growing
        done, tail = gathered(*blocks(text))
        last = tail.rsplit("\n", 1)[-1].strip()
        cursor = self._cursor if growing and last and last[0] not in "|`~$" else ""
        wanted = [*done, tail + cursor]
        for index in range(max(0, len(self._parts) - 1), len(wanted)):
            if index < len(self._parts):
                self._parts[index].markdown(wanted[index])
            else:
                self._parts.append(self._box.markdown(wanted[index]))


def live(draw: Callable[[], Iterator[bool]]) -> None:
    """Paint frame by frame what ``draw`` yields True for; at its end the page runs once more, and shows it as what it is."""
    first = [True]

    @fragment(every=0.05)
    def loop() -> None:
        frame, until = draw(), time.monotonic() + SLICE_SECONDS
        while next(frame):
            if (
                first or time.monotonic() > until
            ):  # let the page's script end; later, let other fragments have their turn
                first.clear()
                return
            st.session_state.get("_tick")  # where Streamlit stops a script: Stop, a closed tab
            time.sleep(1 / FRAMES_PER_SECOND)
        st.rerun()

    loop()
