"""Images that go with a question: looked at before they are sent, and kept until they are."""

import base64
from typing import Any

import streamlit as st

from dashboard.browser import hold_back
from dashboard.i18n import t
from dashboard.images import small
from dashboard.markup import plain
from dashboard.state import refuse

KINDS = ["png", "jpg", "jpeg", "webp"]
KEY = "attached"

# -- what callbacks do ---------------------------------------------------------------------------------------------------------


def taken(given: Any) -> tuple[str, list[str] | None]:
    """What the input gave: its text, and its images in Base64 with those that were kept; None where some file is none: the reader is told which."""
    files = [(file.name, base64.b64encode(file.getvalue()).decode()) for file in given.files]
    broken = [plain(name) for name, encoded in files if small(encoded) is None]
    kept = st.session_state[KEY] = _kept() + [encoded for _, encoded in files if small(encoded) is not None]
    if broken:
        refuse(t("Not sent: {names} cannot be read as an image.", names=", ".join(broken)))
    return given.text if given.text.strip() else "", None if broken else kept


def sent() -> None:
    """They have gone."""
    st.session_state[KEY] = []


def _kept() -> list[str]:
    return list(st.session_state.get(KEY, ()))


# -- what is shown -------------------------------------------------------------------------------------------------------------


def shown() -> None:
    """What could not be sent, and will be with the next question. In the input itself files cannot be put back."""
    with st.bottom:
        hold_back(t("Not sent: a file here cannot be sent. Remove it, or choose another."), key="hold_back")
        if not (kept := _kept()):
            return
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            for encoded in kept:
                if picture := small(encoded):
                    st.image(picture, width=48)
            st.caption(t("Goes with your next message"), width="content")
            st.button(t("Remove"), key="attached_none", icon=":material/close:", type="tertiary", on_click=sent)
