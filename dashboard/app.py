"""The app: what every page has, and which pages there are. Streamlit runs this file again for every change."""

import contextlib
from pathlib import Path

import streamlit as st

from dashboard import refused
from dashboard.browser import forget_the_rest, remember, remembered
from dashboard.edge import begin, edge, fragment, page_failed
from dashboard.gateway import NAMELESS, GatewayError
from dashboard.i18n import LANGUAGE, LANGUAGES, language, t
from dashboard.markup import plain, said
from dashboard.state import gateway, gone_to, person, refuse, tell_failure
from dashboard.views import chat, fleet, metrics, sessions, talk, usage

HERE = Path(__file__).parent
DATABASE = '[database]\nurl = "sqlite:////var/lib/corral/corral.db"'


def _choose_language() -> None:
    remember(language=st.session_state[LANGUAGE])


def _cannot(error: GatewayError) -> None:
    """Instead of the page, where the gateway cannot be reached or refuses what every run of it needs."""
    if error.keeps_nothing:
        st.header(t("This page needs a database"))
        st.markdown(
            t("The gateway runs without one, and keeps nothing. Set one in its configuration, and start it again:")
        )
        st.code(DATABASE, language="toml")
        return
    if error.code == NAMELESS:
        st.header(t("Nobody says who you are"))
        st.caption(refused.told(error))
        return
    st.header(t("The gateway refuses") if error.status else t("The gateway does not answer"))
    st.caption(refused.told(error) if error.status else said(error.message))
    if error.status:
        st.button(t("Try again"))
        return
    st.caption(t("This page tries again by itself."))

    @fragment(every=2.0)
    def again() -> None:
        try:
            gateway().get("/healthz")
        except GatewayError:
            return
        st.rerun()

    again()


def _whose() -> None:
    """Whose sessions these are, where people are told apart."""
    with contextlib.suppress(GatewayError):
        if name := person():
            st.caption(f":material/person: {plain(name)}")


def _forget_others() -> None:
    """A tab that has lost its connection comes back with all that it had: where somebody else has signed in meanwhile, that is not theirs."""
    with contextlib.suppress(GatewayError):
        whose = person()
        if st.session_state.setdefault("_whose", whose) != whose:
            forget_the_rest()
            st.session_state["_whose"] = whose


def main() -> None:
    """One run."""
    _forget_others()
    st.set_page_config(page_title="Corral", page_icon=str(HERE / "assets" / "icon.svg"))
    st.logo(str(HERE / "assets" / "logo.svg"), size="large")
    pages = {
        "chat": st.Page(chat.page, title=t("Chat"), url_path="chat", default=True),
        "talk": st.Page(talk.page, title=t("Model talk"), url_path="talk"),
        "sessions": st.Page(sessions.page, title=t("Sessions"), url_path="sessions"),
        "metrics": st.Page(metrics.page, title=t("Metrics"), url_path="metrics"),
        "usage": st.Page(usage.page, title=t("Usage"), url_path="usage"),
        "fleet": st.Page(fleet.page, title=t("Fleet"), url_path="fleet"),
    }
    page = st.navigation(list(pages.values()), position="top")
    if (
        wanted := gone_to()
    ) is not None:  # before the browser is told anything: its answer would be a run of the page that is left
        st.switch_page(pages.get(wanted, pages["chat"]))
    kept = remembered()
    if kept is None:
        st.stop()  # the browser is about to tell; the page follows
    if st.session_state.get(LANGUAGE) is None and kept.get("language") in LANGUAGES:
        st.session_state[LANGUAGE] = kept["language"]
    for name in ("session", "talk"):
        if name in kept:
            st.session_state.setdefault(name, kept[name])
    with st.sidebar:
        st.session_state.setdefault(LANGUAGE, language())
        st.segmented_control(
            t("Language"),
            list(LANGUAGES),
            format_func=LANGUAGES.__getitem__,
            key=LANGUAGE,
            label_visibility="collapsed",
            required=True,
            on_change=_choose_language,
        )
        _whose()
    if lost := st.query_params.pop("lost", None):
        refuse(t("There is no page {name} here.", name=plain(lost)))
    tell_failure()
    begin()
    with edge(_cannot, page_failed):
        page.run()


main()
