"""What the pages of one process share: the gateway and what is followed there; and the questions that every page asks."""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import streamlit as st

from dashboard.browser import remember
from dashboard.following import Following, Hub
from dashboard.gateway import DEFAULT, KEY, NAMELESS, URL, USER_HEADER, Gateway, GatewayError
from dashboard.i18n import t
from dashboard.markup import plain
from dashboard.refused import told


@st.cache_resource
def hub() -> Hub:
    """Made once."""
    return Hub(Gateway(os.environ.get(URL, DEFAULT), os.environ.get(KEY, "")))


def person() -> str:
    """Who looks, as the sign-on before the app names them; empty where nobody is told apart. Raises GatewayError where it names nobody: what the
    app itself may see is not theirs."""
    header = os.environ.get(USER_HEADER)
    if not header:
        return ""
    named = [name for sent in st.context.headers.get_all(header) if (name := sent.strip(" \t"))]
    if len(named) != 1:
        raise GatewayError(401, f"{header} does not say who asks", code=NAMELESS)
    try:
        return named[0].encode("latin-1").decode()  # not before: half of a letter can look like a blank
    except UnicodeError:
        return named[0]


def gateway() -> Gateway:
    """The gateway, as whoever looks asks it. Raises GatewayError where it is not known who that is."""
    return asked_by(person())


def asked_by(whose: str) -> Gateway:
    """The gateway, as this person asks it."""
    return hub().gateway.of(whose) if whose else hub().gateway


def follow(id_: str) -> Following:
    """What runs under this id. Raises GatewayError as ``gateway`` does."""
    return hub().follow(id_, gateway())


@st.cache_data(ttl=2, show_spinner=False)
def fleet() -> list[dict[str, Any]]:
    """The hosts. Raises GatewayError."""
    rows: list[dict[str, Any]] = gateway().get("/api/models/servers")["servers"]
    return rows


class Look(NamedTuple):
    """What the gateway says of now: rows of its API."""

    hosts: list[dict[str, Any]]
    findings: list[dict[str, Any]]
    running: list[dict[str, Any]]
    jobs: list[dict[str, Any]]


def look() -> Look:
    """One look. Raises GatewayError."""
    return _look(person())


@st.cache_data(ttl=1, show_spinner=False)
def _look(whose: str) -> Look:
    """For all who look at this moment, but what one person sees is not for others."""
    asked = asked_by(whose).get
    state = asked("/api/fleet")
    return Look(state["hosts"], state["findings"], asked("/api/generations")["generations"], asked("/api/jobs")["jobs"])


def look_anew() -> None:
    """In a callback that has changed something: nobody is shown what was before."""
    fleet.clear()
    _look.clear()


def open_session(id_: str | None) -> None:
    """In a callback: this session is the tab's from now on; None: a new one."""
    st.session_state["session"] = id_
    remember(session=id_)


def go_to(page: str) -> None:
    """In a callback: the reader is shown this page of the app's next."""
    st.session_state["_go"] = page


def gone_to() -> str | None:
    """The page that a callback wants the reader to go to, once."""
    page: str | None = st.session_state.pop("_go", None)
    return page


def named(session: Mapping[str, Any]) -> str:
    """What a session of the list is called: its title, else how it begins."""
    return plain(session["title"] or session["begins"] or "") or t("Untitled")


def attempted(work: Any, *args: Any, **values: Any) -> Any:
    """``work`` done, in a callback; None, and the reader told why at the next run, where the gateway refuses."""
    try:
        return work(*args, **values)
    except GatewayError as error:
        refuse(told(error))
        return None


def refuse(why: str) -> None:
    """In a callback: tell the reader at the next run."""
    st.session_state["_failure"] = why


def tell_failure() -> None:
    """What a callback could not do."""
    if why := st.session_state.pop("_failure", None):
        st.toast(why, icon=":material/error:")
