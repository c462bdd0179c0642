"""Several models in one conversation. Callbacks change, the body renders; all that is said is the gateway's."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from dashboard import markup
from dashboard.browser import remember
from dashboard.conversation import Row, colors, over, rounds, told, turns
from dashboard.following import Following, Spoken
from dashboard.gateway import GatewayError
from dashboard.i18n import number, seconds, t
from dashboard.paint import Growing, live
from dashboard.state import attempted, fleet, gateway, hub
from dashboard.views import participants
from dashboard.views.figures import figures

AVATARS = Path(__file__).parent.parent / "assets" / "speakers"
SHOWN = 30
KNOWN = 200
"""Messages: so many are shown at first, so many are counted in the figures."""
COLUMN_WIDTH = 240  # pixels: below it, answers side by side stand below each other


# -- what callbacks do ---------------------------------------------------------------------------------------------------------


def show(id_: str | None) -> None:
    """This conversation from now on; None: one that is to begin."""
    st.session_state["talk"] = id_
    for name in ("talk_shown", "talk_end", "talk_filled"):
        st.session_state.pop(name, None)
    remember(talk=id_)


def _submit() -> None:
    """Begin with it, let them go on with it, or put it in while they talk."""
    content = st.session_state["talk_said"]
    id_ = st.session_state.get("talk")
    session = attempted(gateway().get, f"/api/sessions/{id_}") if id_ else None
    if session is not None and session["running"]:
        done = attempted(gateway().post, f"/api/sessions/{id_}/messages", {"content": content})
    else:
        done = _go_on(topic=content)
    if done is None:
        st.session_state["talk_said"] = content  # to be sent again


def _go_on(**more: Any) -> Row | None:
    """Begin, or take more turns. None: the gateway refuses."""
    body = participants.settings() | participants.turns() | more | {"detach": True}
    if id_ := st.session_state.get("talk"):
        body["session"] = id_
    begun: Row | None = attempted(gateway().post, "/api/chat/multi-model", body)
    if begun is not None:
        show(begun["session"])
    return begun


def _continue() -> None:
    _go_on()


def _stop() -> None:
    attempted(gateway().post, f"/api/sessions/{st.session_state['talk']}/cancel")


def _more() -> None:
    st.session_state["talk_shown"] = st.session_state.get("talk_shown", SHOWN) + SHOWN


# -- the page ------------------------------------------------------------------------------------------------------------------


def page() -> None:
    """One run."""
    hosts = fleet()
    _conversations()
    session, rows, whole = _current()
    running = session["running"] if session else None
    following = hub().follow(running) if running else None
    if following is not None:
        rows = told(rows, following)
    together = participants.mode() != "dialogue" or any(len(spoken) > 1 for spoken in rounds(rows))
    st.set_page_config(layout="wide" if together or session is None else "centered")
    _toolbar(session, rows)
    if session is None:
        with st.bottom:  # where it does not pull the page to its end
            st.chat_input(t("What shall they talk about?"), key="talk_said", on_submit=_submit)
        st.header(t("Let models talk"))
        participants.form(hosts)
        return
    if running:
        placeholder = t("Say something to them")
    elif participants.mode() in participants.TOGETHER:
        placeholder = t("Ask them something else")
    else:
        placeholder = t("Say something, and let them go on")
    st.chat_input(placeholder, key="talk_said", on_submit=_submit)
    talk, numbers, people = st.tabs([t("Conversation"), t("Figures"), t("Participants")])
    with people:
        participants.form(hosts)
    with numbers:
        figures(rows, colors(session["settings"]), whole=whole)
    with talk:
        _transcript(session, rows, following)


def _current() -> tuple[Row | None, list[Row], bool]:
    """The conversation, what was said in it last, and whether that is all. Afterwards the form has something to show."""
    id_ = st.session_state.get("talk")
    if "talk_rows" not in st.session_state:
        participants.fill({})
    if not id_:
        return None, [], True
    try:
        session = gateway().get(f"/api/sessions/{id_}")
        history = gateway().get(f"/api/sessions/{id_}/messages", limit=KNOWN)
    except GatewayError as error:
        if error.status != 404:
            raise
        show(None)
        return None, [], True
    if st.session_state.get("talk_filled") != id_:
        participants.fill(session["settings"] or {})
        st.session_state["talk_filled"] = id_
    return session, history["messages"], history["earlier"] is None


def _conversations() -> None:
    with st.sidebar:
        st.button(t("New conversation"), icon=":material/add:", on_click=show, args=(None,), width="stretch")
        for row in gateway().get("/api/sessions", limit=30, kind="conversation")["sessions"]:
            icon = ":material/push_pin:" if row["pinned"] else None
            st.button(
                row["title"] or t("Untitled"),
                key=f"talk_open_{row['id']}",
                on_click=show,
                args=(row["id"],),
                type="secondary" if row["id"] == st.session_state.get("talk") else "tertiary",
                icon=":material/graphic_eq:" if row["running"] else icon,
                width="stretch",
                wrap=False,
            )


def _toolbar(session: Row | None, rows: list[Row]) -> None:
    with st.bottom, st.container(horizontal=True, vertical_alignment="bottom"):
        if session is not None and session["running"]:
            st.button(t("Stop"), icon=":material/stop:", shortcut="esc", on_click=_stop, type="primary")
            return
        participants.turns_input()
        if session is None:
            return
        if participants.mode() not in participants.TOGETHER or (rows and rows[-1]["role"] == "user"):
            st.button(t("Continue"), icon=":material/play_arrow:", on_click=_continue)
        with st.popover("", icon=":material/download:", help=t("Export")):
            _export(session)


def _export(session: Row) -> None:
    name = f"conversation-{session['id']}"
    for label, path, suffix, mime in (
        (t("As Markdown"), "export.md", "md", "text/markdown"),
        (t("As JSON"), "export", "json", "application/json"),
    ):
        fetched = partial(_fetched, f"/api/sessions/{session['id']}/{path}")
        st.download_button(label, fetched, f"{name}.{suffix}", mime, on_click="ignore", width="stretch")


def _fetched(path: str) -> str:
    return str(gateway().call(gateway().ask("GET", path, text=True)))


# -- what is said --------------------------------------------------------------------------------------------------------------


def _transcript(session: Row, rows: list[Row], following: Following | None) -> None:
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
        live(lambda: _speaking(following, rows, shown[speaking:], paint))


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
            st.caption(f":material/error: {row['error']}")
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


def _speaking(following: Following, rows: list[Row], tail: list[Row], paint: dict[str, str]) -> Iterator[bool]:
    """Frame by frame, until somebody begins or ends: then the page shows what was said as what it is."""
    last = max((row["seq"] for row in rows), default=-1)
    places: dict[int, DeltaGenerator] = {}
    for spoken in rounds(tail):
        places |= _round(spoken, paint)
    answers = {message: _Answer(place) for message, place in places.items()}
    if not answers:
        st.caption(t("It is about to go on…"))
    takes_turns = (len(answers) + 1) // 2  # two answers a frame: a browser has no time for eight
    frame = 0
    while not following.over and not (over(following) & answers.keys()) and _newest(following) <= last:
        for turn, message in turns(following).items():
            if message in answers and (not frame or (frame + turn) % takes_turns == 0):
                answers[message].show(following.answers[turn])
        frame += 1
        yield True
    if following.events and following.events[-1]["event"] == "end":
        st.session_state["talk_end"] = following.events[-1]
    yield False


def _newest(following: Following) -> int:
    """The number of the last message that was told of."""
    return max((event["message"] for event in list(following.events) if "message" in event), default=-1)


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
        st.caption(f":material/error: {end['error']}")
    elif end["reason"] == "cancelled":
        st.caption(t("The conversation was stopped."))


def _elsewhere(session: Row) -> None:
    """It runs, and cannot be read here: at another gateway, or not any more."""
    st.caption(t("It cannot be followed from here word by word; what is said appears once it is kept."))

    @st.fragment(run_every=1.0)
    def again() -> None:
        now = attempted(gateway().get, f"/api/sessions/{session['id']}")
        if now is None or now["running"] != session["running"] or now["messages"] != session["messages"]:
            st.rerun()

    again()
