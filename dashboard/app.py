"""The app: what every page has, and which pages there are. Streamlit runs this file again for every change."""

from pathlib import Path

import streamlit as st

from dashboard.browser import remember, remembered
from dashboard.gateway import GatewayError
from dashboard.i18n import LANGUAGE, LANGUAGES, language, t
from dashboard.state import gateway, tell_failure
from dashboard.views import chat

HERE = Path(__file__).parent


def _choose_language() -> None:
    remember(language=st.session_state[LANGUAGE])


def _offline(error: GatewayError) -> None:
    st.header(t("The gateway does not answer"))
    st.caption(error.message)
    st.caption(t("This page tries again by itself."))

    @st.fragment(run_every=2.0)
    def again() -> None:
        try:
            gateway().get("/healthz")
        except GatewayError:
            return
        st.rerun()

    again()


def main() -> None:
    """One run."""
    st.set_page_config(page_title="Corral", page_icon=str(HERE / "assets" / "icon.svg"))
    st.logo(str(HERE / "assets" / "logo.svg"), size="large")
    page = st.navigation([st.Page(chat.page, title=t("Chat"), url_path="chat", default=True)], position="top")
    kept = remembered()
    if kept is None:
        st.stop()  # the browser is about to tell; the page follows
    if st.session_state.get(LANGUAGE) is None and kept.get("language") in LANGUAGES:
        st.session_state[LANGUAGE] = kept["language"]
    if "session" in kept and "session" not in st.session_state:
        st.session_state["session"] = kept["session"]
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
    tell_failure()
    try:
        page.run()
    except GatewayError as error:
        if error.status:
            raise
        _offline(error)


main()
