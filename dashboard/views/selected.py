"""What is done with sessions, one or many: the bar below their list, exports and imports. Callbacks change, the rest renders.

What is deleted can be restored for an hour: the bar offers it at once, the list of what is deleted later.
"""

import io
import json
import zipfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

import streamlit as st

from dashboard.gateway import Gateway
from dashboard.i18n import t
from dashboard.state import attempted, gateway

RESTORABLE_SECONDS = 3600
CHANGES: dict[str, dict[str, Any]] = {
    "pin": {"pinned": True},
    "unpin": {"pinned": False},
    "archive": {"archived": True},
    "unarchive": {"archived": False},
}


# -- what callbacks do ---------------------------------------------------------------------------------------------------------


def all_of(ids: Sequence[str]) -> None:
    """Choose all, or none."""
    for id_ in ids:
        st.session_state[f"pick_{id_}"] = st.session_state["pick_all"]


def only(id_: str, act: str) -> None:
    """Choose this one alone. ``act``: ``erase`` asks whether it is meant."""
    _none()
    st.session_state[f"pick_{id_}"] = True
    st.session_state["erasing"] = act == "erase"


def do(act: str, ids: Sequence[str]) -> None:
    """To all of them. What is deleted can be restored."""
    attempted(_do, act, ids)
    _none()


def _do(act: str, ids: Sequence[str]) -> None:
    st.session_state["undo"] = ids if act == "delete" else []
    paths = [f"/api/sessions/{id_}" for id_ in ids]
    if act == "delete":
        gateway().each("DELETE", paths, restorable_seconds=RESTORABLE_SECONDS)
    elif act == "erase":
        gateway().each("DELETE", paths)
    elif act == "restore":
        gateway().each("POST", [f"{path}/restore" for path in paths])
    else:
        gateway().each("PATCH", paths, CHANGES[act])


def _none() -> None:
    for key in st.session_state:
        if str(key).startswith("pick_"):
            st.session_state[key] = False
    st.session_state["erasing"] = False


def _ask_whether() -> None:
    st.session_state["erasing"] = True


def _bring_in(key: str) -> None:
    """Each file is kept as a whole, or told why not."""
    count = 0
    for file in st.session_state[key] or ():
        told = attempted(gateway().post, "/api/import", file.getvalue())
        count += len(told["sessions"]) if told else 0
    if count:
        st.session_state["imports"] = st.session_state.get("imports", 0) + 1
        st.toast(t("Sessions imported: {count}", count=count), icon=":material/check:")


# -- what is shown -------------------------------------------------------------------------------------------------------------


def bar(ids: Sequence[str], *, deleted: bool) -> None:
    """Below the list of ``ids``: what can be done with those that are chosen, or undone."""
    chosen = [id_ for id_ in ids if st.session_state.get(f"pick_{id_}")]
    undo = st.session_state.get("undo") or []
    if not chosen and not undo:
        return
    with st.bottom, st.container(horizontal=True, vertical_alignment="center"):
        if not chosen:
            st.caption(t("Deleted: {count}", count=len(undo)), width="content")
            st.button(t("Undo"), key="undo_deleted", icon=":material/undo:", on_click=do, args=("restore", undo))
        elif st.session_state.get("erasing"):
            st.caption(t("Delete for good: {count}? Nobody can bring that back.", count=len(chosen)), width="content")
            _button("erase", t("Delete for good"), chosen, type="primary")
            st.button(t("Cancel"), key="all_none", on_click=_none)
        else:
            st.caption(t("Chosen: {count}", count=len(chosen)), width="content")
            _doings(chosen, deleted=deleted)


def _doings(chosen: Sequence[str], *, deleted: bool) -> None:
    if deleted:
        _button("restore", t("Restore"), chosen, icon=":material/undo:")
        st.button(t("Delete for good"), key="all_ask", icon=":material/delete_forever:", on_click=_ask_whether)
        return
    _button("pin", t("Pin"), chosen)
    _button("unpin", t("Unpin"), chosen)
    if st.session_state.get("where") == "archived":
        _button("unarchive", t("Take out of the archive"), chosen)
    else:
        _button("archive", t("Archive"), chosen)
    with st.popover(t("Export"), icon=":material/download:"):
        exports(chosen)
    _button("delete", t("Delete"), chosen, icon=":material/delete:")


def _button(act: str, label: str, chosen: Sequence[str], **look: Any) -> None:
    st.button(label, key=f"all_{act}", on_click=do, args=(act, list(chosen)), **look)


def exports(ids: Sequence[str]) -> None:
    """Files that are made when they are asked for."""
    name = f"corral-{datetime.now(UTC):%Y-%m-%d}"
    one = len(ids) == 1
    kinds: list[tuple[str, str, str, Callable[[Gateway, Sequence[str]], bytes]]] = [
        (t("JSON, to import it again"), "json", "application/json", _json),
        (t("Markdown, to read it"), "md" if one else "zip", "text/markdown" if one else "application/zip", _markdown),
    ]
    for label, ending, mime, made in kinds:
        data = partial(made, gateway(), list(ids))
        st.download_button(
            label, data, f"{name}.{ending}", mime, key=f"export_{ending}", on_click="ignore", type="tertiary"
        )


def _json(asked: Gateway, ids: Sequence[str]) -> bytes:
    told = asked.each("GET", [f"/api/sessions/{id_}/export" for id_ in ids])
    return json.dumps(told[0] if len(told) == 1 else told, ensure_ascii=False, indent=1).encode()


def _markdown(asked: Gateway, ids: Sequence[str]) -> bytes:
    told = asked.each("GET", [f"/api/sessions/{id_}/export.md" for id_ in ids], text=True)
    if len(told) == 1:
        return str(told[0]).encode()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for id_, text in zip(ids, told, strict=True):
            archive.writestr(f"{id_}.md", text)
    return packed.getvalue()


def bring_in() -> None:
    """Files that were exported, here or by Open WebUI."""
    with st.popover(t("Import"), icon=":material/upload:"):
        st.caption(t("Files that Corral or Open WebUI exported."))
        key = f"files_{st.session_state.get('imports', 0)}"
        st.file_uploader(
            t("Files"),
            "json",
            accept_multiple_files=True,
            key=key,
            on_change=_bring_in,
            args=(key,),
            label_visibility="collapsed",
        )
