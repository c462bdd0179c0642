"""All sessions: found, opened, kept in order, taken out and brought in. Callbacks change, the body renders."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import streamlit as st

from dashboard import refused
from dashboard.gateway import GatewayError
from dashboard.i18n import ago, t
from dashboard.markup import plain
from dashboard.state import attempted, fleet, gateway, go_to, named, open_session
from dashboard.views import selected, talk

PAGE = 20
HITS, HITS_MOST = 10, 50
LISTS = ("current", "archived", "deleted")
KINDS = ("chat", "conversation")


# -- what callbacks do ---------------------------------------------------------------------------------------------------------


def _from_the_start() -> None:
    """Other sessions are asked for."""
    st.session_state["places"] = [""]
    st.session_state["hits"] = HITS


def _turn(place: str | None) -> None:
    """To the page that begins after ``place``; None: to the one before."""
    places = st.session_state["places"]
    if place is None:
        places.pop()
    else:
        places.append(place)


def _open(id_: str, kind: str, seq: int | None = None) -> None:
    """``seq``: on the branch that goes through this message."""
    if seq is not None:
        attempted(gateway().patch, f"/api/sessions/{id_}", {"leaf": seq})
    if kind == "conversation":
        talk.show(id_)
        go_to("talk")
    else:
        open_session(id_)
        go_to("chat")


def _act(id_: str, key: str) -> None:
    """What was chosen in a row's menu."""
    act = st.session_state[key]
    if act == "rename":
        st.session_state["renaming"] = id_
    elif act in ("export", "erase"):
        selected.only(id_, act)
    else:
        selected.do(act, [id_])


def _rename(id_: str) -> None:
    title = st.session_state[f"title_{id_}"].strip()
    st.session_state["renaming"] = None
    attempted(gateway().patch, f"/api/sessions/{id_}", {"title": title})


def _keep_name() -> None:
    st.session_state["renaming"] = None


def _more_hits() -> None:
    st.session_state["hits"] = HITS_MOST


# -- the page ------------------------------------------------------------------------------------------------------------------


def page() -> None:
    """One run."""
    st.session_state.setdefault("places", [""])
    with st.container(horizontal=True, vertical_alignment="center"):
        st.header(t("Sessions"), width="stretch")
        selected.bring_in()
    which = _filters()
    words = str(which.get("q", ""))
    try:
        told = gateway().get("/api/sessions", limit=PAGE, after=st.session_state["places"][-1] or None, **which)
    except GatewayError as error:
        if error.status != 400:
            raise
        st.caption(refused.told(error))
        return
    rows = told["sessions"]
    if rows:
        _list(rows, deleted="deleted" in which)
        _pager(told["next"])
    elif not words:
        st.caption(_nothing(which))
    if words and "deleted" not in which:
        _hits(words, titles=bool(rows))
    selected.bar([row["id"] for row in rows], deleted="deleted" in which)


def _filters() -> dict[str, Any]:
    """The list's query."""
    names = {"current": t("Current"), "archived": t("Archived"), "deleted": t("Deleted")}
    kinds = {"chat": t("Chats"), "conversation": t("Conversations")}
    words = st.text_input(
        t("Search"),
        key="find",
        type="search",
        live=True,
        placeholder=t("Search titles and messages"),
        label_visibility="collapsed",
        icon=":material/search:",
        max_chars=200,
        on_change=_from_the_start,
        persist_state="session",
    )
    with st.container(horizontal=True, vertical_alignment="center"):
        where = st.segmented_control(
            t("Which sessions"),
            LISTS,
            default=LISTS[0],
            required=True,
            format_func=names.__getitem__,
            key="where",
            label_visibility="collapsed",
            on_change=_from_the_start,
            persist_state="session",
        )
        known = sorted({row["name"] for host in fleet() for row in host["models_available"]})
        model = _choice(t("All models"), known, "of_model")
        kind = _choice(t("All kinds"), KINDS, "of_kind", kinds)
        pinned = st.toggle(t("Pinned"), key="only_pinned", on_change=_from_the_start, persist_state="session")
    which = {"archived": where == "archived" or None, "deleted": where == "deleted" or None, "pinned": pinned or None}
    given = which | {"model": model, "kind": kind, "q": (words or "").strip() or None}
    return {name: value for name, value in given.items() if value is not None}


def _choice(name: str, options: Sequence[str], key: str, words: dict[str, str] | None = None) -> str | None:
    return st.selectbox(
        name,
        options,
        index=None,
        key=key,
        format_func=lambda one: words[one] if words else one,
        placeholder=name,
        label_visibility="collapsed",
        on_change=_from_the_start,
        persist_state="session",
        width=150,
    )


def _nothing(which: dict[str, Any]) -> str:
    if which.keys() - {"archived", "deleted"}:
        return t("No session is like this.")
    if "deleted" in which:
        return t("Nothing is deleted. What you delete can be restored here for an hour.")
    return t("Nothing is archived.") if "archived" in which else t("There are no sessions yet.")


def _list(rows: list[dict[str, Any]], *, deleted: bool) -> None:
    with st.container(border=True, gap="xsmall"):
        st.session_state["pick_all"] = all(st.session_state.get(f"pick_{row['id']}") for row in rows)
        st.checkbox(
            t("All on this page"), key="pick_all", on_change=selected.all_of, args=([row["id"] for row in rows],)
        )
        now = datetime.now(UTC)
        for row in rows:
            _row(row, now, deleted=deleted)


def _row(row: dict[str, Any], now: datetime, *, deleted: bool) -> None:
    id_, title = row["id"], named(row)
    with st.container(horizontal=True, vertical_alignment="center", wrap=False):
        st.checkbox(title, key=f"pick_{id_}", label_visibility="collapsed")
        with st.container(gap=None, width="stretch"):
            if st.session_state.get("renaming") == id_:
                _new_name(row)
            else:
                st.button(
                    title,
                    key=f"open_{id_}",
                    type="tertiary",
                    icon=":material/push_pin:" if row["pinned"] else None,
                    on_click=_open,
                    args=(id_, row["kind"]),
                    disabled=deleted,
                    wrap=False,
                )
            st.caption(_about(row, now))
        acts = _acts(row, deleted=deleted)
        st.menu_button(
            ":material/more_vert:",  # as a label: beside an icon Streamlit draws an arrow too
            list(acts),
            key=f"act_{id_}",
            type="tertiary",
            format_func=acts.__getitem__,
            on_click=_act,
            args=(id_, f"act_{id_}"),
        )


def _new_name(row: dict[str, Any]) -> None:
    id_ = row["id"]
    with st.container(horizontal=True, gap="small"):
        st.text_input(
            t("Title"),
            row["title"],
            key=f"title_{id_}",
            max_chars=300,
            label_visibility="collapsed",
            on_change=_rename,
            args=(id_,),
        )
        st.button(t("Keep the old one"), key=f"keep_{id_}", type="tertiary", on_click=_keep_name)


def _about(row: dict[str, Any], now: datetime) -> str:
    kind = t("Conversation") if row["kind"] == "conversation" else row["model"] or t("no model yet")
    when = ago((now - datetime.fromisoformat(row["updated_at"])).total_seconds())
    facts = [kind, t("messages: {count}", count=row["messages"]), when]
    if row["running"]:
        facts.append(t("being answered"))
    if row["erased_at"]:
        left = (datetime.fromisoformat(row["erased_at"]) - now).total_seconds() / 60
        facts.append(t("restorable for {minutes} min", minutes=max(0, round(left))))
    return " · ".join(facts)


def _acts(row: dict[str, Any], *, deleted: bool) -> dict[str, str]:
    if deleted:
        return {"restore": t("Restore"), "erase": t("Delete for good")}
    return {
        "rename": t("Rename"),
        **({"unpin": t("Unpin")} if row["pinned"] else {"pin": t("Pin")}),
        **({"unarchive": t("Take out of the archive")} if row["archived"] else {"archive": t("Archive")}),
        "export": t("Export"),
        "delete": t("Delete"),
    }


def _pager(following: str | None) -> None:
    places = st.session_state["places"]
    if len(places) == 1 and following is None:
        return
    with st.container(horizontal=True, horizontal_alignment="center", vertical_alignment="center"):
        st.button(
            t("Newer"),
            key="page_before",
            icon=":material/chevron_left:",
            type="tertiary",
            disabled=len(places) == 1,
            on_click=_turn,
            args=(None,),
        )
        st.caption(t("Page {number}", number=len(places)), width="content")
        st.button(
            t("Older"),
            key="page_after",
            icon=":material/chevron_right:",
            icon_position="right",
            type="tertiary",
            disabled=following is None,
            on_click=_turn,
            args=(following,),
        )


def _hits(words: str, *, titles: bool) -> None:
    found = gateway().get("/api/search", q=words, limit=st.session_state.get("hits", HITS))
    if not found["messages"]:
        if not titles:
            st.caption(t("Nothing has these words."))
        return
    st.subheader(t("In messages"))
    for hit in found["messages"]:
        key = f"hit_{hit['session']}_{hit['seq']}"
        with st.container(gap=None):
            name = plain(hit["title"]) or t("Untitled")
            st.button(
                name,
                key=key,
                type="tertiary",
                on_click=_open,
                args=(hit["session"], hit["kind"], hit["seq"]),
                wrap=False,
            )
            excerpt = {name: plain(words) for name, words in hit["excerpt"].items()}
            st.caption(f"{excerpt['before']} **{excerpt['hit']}** {excerpt['after']}")
    if found["next"] is not None and len(found["messages"]) < HITS_MOST:
        st.button(t("Show more"), key="hits_more", type="tertiary", on_click=_more_hits)
