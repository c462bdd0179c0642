"""Several models in one conversation. Callbacks change, the body renders; all that is said is the gateway's."""

from functools import partial
from typing import Any

import streamlit as st

from dashboard.browser import presets, remember
from dashboard.conversation import Row, colors, newest, rounds, told
from dashboard.gateway import GatewayError
from dashboard.i18n import t
from dashboard.state import attempted, fleet, follow, gateway
from dashboard.views import participants
from dashboard.views.figures import figures
from dashboard.views.transcript import as_it_was, transcript

KNOWN = 200
"""So many messages are read, and counted in the figures."""


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
    if not content.strip():
        return
    id_ = st.session_state.get("talk")
    session = attempted(gateway().get, f"/api/sessions/{id_}") if id_ else None
    if session is not None and session["running"]:
        done = attempted(gateway().post, f"/api/sessions/{id_}/messages", {"content": content})
    else:
        done = _go_on(topic=content)
    if done is None:
        st.session_state["talk_unsent"] = content


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


# -- the page ------------------------------------------------------------------------------------------------------------------


def page() -> None:
    """One run. Where the gateway is gone, what was read stays. Raises GatewayError."""
    try:
        _page()
    except GatewayError as error:
        seen = st.session_state.get("talk_seen")
        if not error.status and seen is not None:
            as_it_was(*seen)
        raise


def _page() -> None:
    kept = presets()
    if kept is None:
        return  # the browser is about to tell; the form follows
    hosts = fleet()
    _conversations()
    session = _session()
    running = session["running"] if session else None
    following = follow(running) if running else None
    heard = -1 if following is None else newest(following)  # before the messages are read: they have it all
    rows, whole = _messages(session)
    st.session_state["talk_seen"] = None if session is None else (session, rows, following)
    if following is not None:
        rows = told(rows, following)
    if unsent := st.session_state.pop(
        "talk_unsent", ""
    ):  # only now: of an input that a run does not draw Streamlit forgets it
        st.session_state["talk_said"] = unsent
    together = participants.mode() != "dialogue" or any(len(spoken) > 1 for spoken in rounds(rows))
    st.set_page_config(layout="wide" if together or session is None else "centered")
    _toolbar(session, rows)
    if session is None:
        with st.bottom:  # where it does not pull the page to its end
            st.chat_input(t("What shall they talk about?"), key="talk_said", on_submit=_submit)
        st.header(t("Let models talk"))
        participants.form(hosts, kept)
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
        participants.form(hosts, kept)
    with numbers:
        figures(rows, colors(session["settings"]), whole=whole)
    with talk:
        transcript(session, rows, following, heard)


def _session() -> Row | None:
    """The conversation. Afterwards the form has something to show."""
    id_ = st.session_state.get("talk")
    if "talk_rows" not in st.session_state:
        participants.fill({})
    if not id_:
        return None
    try:
        session: Row = gateway().get(f"/api/sessions/{id_}")
    except GatewayError as error:
        if error.status != 404:
            raise
        show(None)
        return None
    if st.session_state.get("talk_filled") != id_:
        participants.fill(session["settings"] or {})
        st.session_state["talk_filled"] = id_
    return session


def _messages(session: Row | None) -> tuple[list[Row], bool]:
    """What was said last, and whether that is all."""
    if session is None:
        return [], True
    try:
        history = gateway().get(f"/api/sessions/{session['id']}/messages", limit=KNOWN)
    except GatewayError as error:
        if error.status != 404:
            raise
        return [], True  # deleted in between: the next run knows
    return history["messages"], history["earlier"] is None


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
        fetched = partial(gateway().text, f"/api/sessions/{session['id']}/{path}")
        st.download_button(label, fetched, f"{name}.{suffix}", mime, on_click="ignore", width="stretch")
