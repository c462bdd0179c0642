"""What is said in a conversation: what is over as it is kept, what is being said as it grows."""

from collections.abc import Iterator
from pathlib import Path

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from dashboard import markup, refused
from dashboard.conversation import Row, colors, newest, over, rounds, told, turns
from dashboard.edge import fragment
from dashboard.following import Following, Spoken
from dashboard.i18n import number, seconds, t
from dashboard.paint import Growing, live
from dashboard.state import attempted, gateway

AVATARS = Path(__file__).parent.parent / "assets" / "speakers"
SHOWN = 30
"""So many messages are shown at first."""
COLUMN_WIDTH = 240  # pixels: below it, answers side by side stand below each other


def _more() -> None:
    st.session_state["talk_shown"] = st.session_state.get("talk_shown", SHOWN) + SHOWN


def transcript(session: Row, rows: list[Row], following: Following | None, heard: int) -> None:
    """What is said now, and what comes after it, is painted; what was said before stands."""
    paint = colors(session["settings"])
    shown = rows[-st.session_state.get("talk_shown", SHOWN) :]
    if len(shown) < len(rows):
        st.button(t("Show earlier messages"), on_click=_more, type="tertiary")
    speaking = next((place for place, row in enumerate(shown) if row["state"] == "streaming"), len(shown))
    while following is not None and 0 < speaking < len(shown) and _at_once(shown[speaking - 1], shown[speaking]):
        speaking -= 1  # the others of its round stand beside it
    for spoken in rounds(shown[:speaking]):
        _round(spoken, paint)
    if following is None:
        _ended()
    elif following.over:
        _elsewhere(session)
    else:
        live(lambda: _speaking(following, max([heard, *(row["seq"] for row in rows)]), shown[speaking:], paint))


def as_it_was(session: Row, rows: list[Row], following: Following | None) -> None:
    """What has been read, where there is no gateway with which it could go on."""
    paint = colors(session["settings"])
    answers = (
        {} if following is None else {message: following.answers[turn] for turn, message in turns(following).items()}
    )
    shown = rows if following is None else told(rows, following)
    for spoken in rounds(shown[-st.session_state.get("talk_shown", SHOWN) :]):
        for message, place in _round(spoken, paint).items():
            if (answer := answers.get(message)) is not None:
                place.markdown(markup.shown(markup.split(answer.content, answer.thinking)[0]))


def _at_once(one: Row, other: Row) -> bool:
    return len(rounds([one, other])) == 1


def _round(spoken: list[Row], paint: dict[str, str]) -> dict[int, DeltaGenerator]:
    """Who speaks alone has all the width. The places of the answers that are being written, by their numbers."""
    if len(spoken) == 1:
        return _message(spoken[0], paint)
    places: dict[int, DeltaGenerator] = {}
    with st.grid(min(len(spoken), 4), min_column_width=COLUMN_WIDTH):
        for row in spoken:
            with st.container():
                places |= _message(row, paint)
    return places


def _message(row: Row, paint: dict[str, str]) -> dict[int, DeltaGenerator]:
    if row["role"] == "user":
        with st.chat_message("user"):
            st.markdown(markup.said(row["content"]))
        return {}
    name = row["name"] or row["model"] or ""
    color = paint.get(name, "gray")
    with st.chat_message(name, avatar=str(AVATARS / f"{color}.svg")):
        st.badge(name, color=color)  # type: ignore[arg-type]
        if row["state"] == "streaming":
            return {row["seq"]: st.container()}
        content, thinking = markup.split(row["content"], row["thinking"] or "")
        if thinking:
            with st.expander(t("Thoughts"), type="compact"):
                st.markdown(markup.shown(thinking))
        if content:
            st.markdown(markup.shown(content))
        if row["state"] == "stopped":
            st.caption(t("Stopped."))
        elif row["state"] == "error":
            st.caption(f":material/error: {refused.broken(row)}")
        st.caption(" · ".join(_facts(row)))
    return {}


def _facts(row: Row) -> list[str]:
    facts = [row["model"] or "", row["host"] or ""]
    timings, usage = row["timings"] or {}, row["usage"]
    if usage and timings.get("decode_seconds"):
        facts.append(t("{value} tokens/s", value=number(usage["output_tokens"] / timings["decode_seconds"], 1)))
    if usage:
        facts.append(t("{n} tokens", n=usage["output_tokens"]))
    return [fact for fact in facts if fact]


def _speaking(following: Following, heard: int, tail: list[Row], paint: dict[str, str]) -> Iterator[bool]:
    """Frame by frame, until somebody begins (a message after ``heard``) or ends: then the page shows what was said as what it is."""
    places: dict[int, DeltaGenerator] = {}
    for spoken in rounds(tail):
        places |= _round(spoken, paint)
    answers = {message: _Answer(place) for message, place in places.items()}
    if not answers:
        st.caption(t("It is about to go on…"))
    away = st.empty()
    takes_turns = (len(answers) + 1) // 2  # two answers a frame: a browser has no time for eight
    frame, told_away = 0, False
    while not following.over and not (over(following) & answers.keys()) and newest(following) <= heard:
        for turn, message in turns(following).items():
            if message in answers and (not frame or (frame + turn) % takes_turns == 0):
                answers[message].show(following.answers[turn])
        if following.away != told_away:
            told_away = following.away
            if told_away:
                away.caption(f":material/cloud_off: {t('The gateway does not answer.')} {t('It is tried again.')}")
            else:
                away.empty()
        frame += 1
        yield True
    if following.events and following.events[-1]["event"] == "end":
        st.session_state["talk_end"] = following.events[-1]
    yield False


class _Answer:
    """One answer that grows in its place."""

    def __init__(self, place: DeltaGenerator) -> None:
        self._thoughts = place.container()
        self._growing = Growing(place.container())
        self._status = place.empty()
        self._thinking: Growing | None = None
        self._chunks = 0
        self._waited = -1

    def show(self, answer: Spoken) -> None:
        """As it is now; what has not changed is not painted again."""
        if answer.first is None:
            if self._waited != int(answer.age):
                self._waited = int(answer.age)
                self._status.caption(t("Waits for its first word · {time}", time=seconds(self._waited)))
            return
        if self._chunks == answer.chunks:
            return
        if not self._chunks:
            self._status.empty()
        self._chunks = answer.chunks
        content, thinking = markup.split(answer.content, answer.thinking)
        if thinking and self._thinking is None:
            self._thinking = Growing(self._thoughts.expander(t("Thinking"), expanded=True, type="compact"))
        if self._thinking is not None:
            self._thinking.show(markup.shown(thinking), growing=not content)
        if content:
            self._growing.show(markup.shown(content))


def _ended() -> None:
    """Why, where that is to be said."""
    end = st.session_state.get("talk_end")
    if not end:
        return
    if end["winner"]:
        st.markdown(t("The judge has decided for **{name}**.", name=markup.shown(end["winner"])))
    if end["reason"] == "error":
        st.caption(f":material/error: {t('The conversation broke off: {why}', why=markup.plain(end['error'] or ''))}")
    elif end["reason"] == "cancelled":
        st.caption(t("The conversation was stopped."))


def _elsewhere(session: Row) -> None:
    """It runs, and cannot be read here: at another gateway, or not any more."""
    st.caption(t("It cannot be followed from here word by word; what is said appears once it is kept."))

    @fragment(every=1.0)
    def again() -> None:
        now = attempted(gateway().get, f"/api/sessions/{session['id']}")
        if now is None or now["running"] != session["running"] or now["messages"] != session["messages"]:
            st.rerun()

    again()
