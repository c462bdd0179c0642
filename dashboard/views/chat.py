"""Chat with one model at a time. Callbacks change, the body renders."""

from typing import Any

import streamlit as st

from dashboard.choosing import models
from dashboard.gateway import GatewayError
from dashboard.i18n import t
from dashboard.paint import live
from dashboard.state import attempted, fleet, follow, gateway, named, open_session
from dashboard.views import attached
from dashboard.views.messages import Doings, answer, as_it_was, message
from dashboard.views.toolbar import choose_anew, choose_as, fields, settings, toolbar

SHOWN = 30


# -- what callbacks do ---------------------------------------------------------------------------------------------------------


def _submit() -> None:
    """What cannot be sent goes back to where it was written."""
    text, images = attached.taken(st.session_state["said"])
    if images is not None and not (text or images):
        return
    said = {"content": text} | ({"images": images} if images else {})
    if images is not None and attempted(_say, {"message": said}):
        attached.sent()
    else:
        st.session_state["unsent"] = text


def _say(body: dict[str, Any]) -> Any:
    """A turn. What is being said in this session is stopped, and kept as far as it came. Raises GatewayError."""
    id_ = st.session_state.get("session")
    chosen = settings()
    if id_ is None:
        id_ = gateway().post("/api/sessions", chosen)["id"]
        st.session_state["chosen_for"] = id_
        open_session(id_)
    else:
        gateway().patch(f"/api/sessions/{id_}", chosen)
    given = fields(models(fleet()).get(chosen["model"] or ""))
    _stop()
    return gateway().post(f"/api/sessions/{id_}/chat", {"detach": True, "model": chosen["model"], **given, **body})


def _anew() -> None:
    open_session(None)
    choose_anew()


def _stop() -> None:
    if id_ := st.session_state.get("session"):
        attempted(gateway().post, f"/api/sessions/{id_}/cancel")


def _again(parent: int, key: str) -> None:
    if key:  # a menu of models
        st.session_state["model"] = st.session_state[key]
    attempted(_say, {"parent": parent})


def _show_branch(leaf: int) -> None:
    attempted(gateway().patch, f"/api/sessions/{st.session_state['session']}", {"leaf": leaf})


def _resend(row: dict[str, Any], key: str) -> None:
    """In place of that question, with its images. Where that is refused the text stays to be sent again."""
    said = {"content": st.session_state[key]} | ({"images": row["images"]} if row["images"] else {})
    if said["content"].strip() or row["images"]:
        sent = attempted(_say, {"message": said, "parent": row["parent"]})
        st.session_state[f"editing_{row['seq']}"] = not sent


def _more() -> None:
    st.session_state["shown"] = st.session_state.get("shown", SHOWN) + SHOWN


# -- the page ------------------------------------------------------------------------------------------------------------------


def page() -> None:
    """One run. Where the gateway is gone, what was read stays. Raises GatewayError."""
    try:
        _page()
    except GatewayError as error:
        if not error.status:
            rows, following = st.session_state.get("seen", ([], None))
            as_it_was(rows, following)
        raise


def _page() -> None:
    hosts = fleet()
    _sessions()
    session, rows = _current()
    running = session["running"] if session else None
    following = follow(running) if running else None
    st.session_state["seen"] = (rows, following)
    if session is None:
        st.header(t("What would you like to know?"))
        st.caption(t("Corral sends it to the host that will answer soonest."))
    doings = Doings(_again, _resend, _show_branch, list(models(hosts)))
    for number, row in enumerate(rows):
        if session is not None and not (running and row["state"] == "streaming"):
            message(row, doings, last=number == len(rows) - 1, session=session["id"])
    toolbar(hosts, running=bool(running), images=any(row["images"] for row in rows), stop=_stop)
    attached.shown()
    if unsent := st.session_state.pop(
        "unsent", ""
    ):  # only now: of an input that a run does not draw Streamlit forgets it
        st.session_state["said"] = unsent
    st.chat_input(t("Your message"), key="said", on_submit=_submit, accept_file="multiple", file_type=attached.KINDS)
    if following is not None:
        live(lambda: answer(following))


def _current() -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
    id_ = st.session_state.get("session")
    if not id_:
        return None, []
    try:
        session = gateway().get(f"/api/sessions/{id_}")
        told = gateway().get(f"/api/sessions/{id_}/messages", limit=st.session_state.get("shown", SHOWN))
    except GatewayError as error:
        if error.status != 404:
            raise
        open_session(None)
        return None, []
    if st.session_state.get("chosen_for") != id_:  # opened just now
        st.session_state["chosen_for"] = id_
        choose_as(session)
    if told["earlier"] is not None:
        st.button(t("Show earlier messages"), on_click=_more, type="tertiary")
    return session, told["messages"]


def _sessions() -> None:
    with st.sidebar:
        st.button(t("New chat"), icon=":material/add:", on_click=_anew, width="stretch")
        for row in gateway().get("/api/sessions", limit=30, kind="chat")["sessions"]:
            chosen = row["id"] == st.session_state.get("session")
            st.button(
                named(row),
                key=f"open_{row['id']}",
                on_click=open_session,
                args=(row["id"],),
                type="secondary" if chosen else "tertiary",
                icon=":material/push_pin:" if row["pinned"] else None,
                width="stretch",
                wrap=False,
            )
