"""What can be done to the fleet, each asked once more before it is done; and the jobs that this makes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import streamlit as st

from dashboard import markup
from dashboard.i18n import seconds, size, t
from dashboard.state import attempted, gateway, look_anew

JOBS = 6
KEEP_ALIVE = {"usual": None, "1 h": "1h", "12 h": "12h", "for ever": -1}
"""Options are plain names; what each says to the host."""


class Asked(NamedTuple):
    """What somebody is about to do."""

    what: str
    host: str = ""
    model: str = ""


# -- what callbacks do ---------------------------------------------------------------------------------------------------------


def _ask(what: str, host: str = "", model: str = "") -> None:
    st.session_state["_asked"] = Asked(what, host, model)


def asked() -> bool:
    """Whether a dialog is due."""
    return "_asked" in st.session_state


def _done(work: Any, said: str, *args: Any, **values: Any) -> None:
    """Carried out, and told."""
    if attempted(lambda: (work(*args, **values), True)):
        st.session_state["_done"] = said
    look_anew()


def _pull() -> None:
    state = st.session_state
    model, hosts = (state["pull_model"] or "").strip(), state["pull_hosts"]
    if model:
        headers = {"X-Corral-Hosts": ",".join(hosts)} if hosts else {}
        _done(gateway().post, t("The pull has begun."), "/api/pull", {"model": model}, headers=headers, detach=True)


def _load() -> None:
    state = st.session_state
    model, host, keep = state["load_model"], state["load_host"], KEEP_ALIVE[state["load_keep"]]
    if model:
        body = {"model": model} | ({} if keep is None else {"keep_alive": keep})
        headers = {"X-Corral-Host": host} if host else {}
        _done(gateway().post, t("It is being loaded."), "/api/generate", body, headers=headers, detach=True)


def _delete() -> None:
    model, hosts = st.session_state["delete_model"], st.session_state["delete_hosts"]
    if model:
        headers = {"X-Corral-Hosts": ",".join(hosts)} if hosts else {}
        _done(gateway().delete, t("Deleted."), "/api/delete", {"model": model}, headers=headers)


def _unload(host: str, model: str) -> None:
    body, headers = {"model": model, "keep_alive": 0}, {"X-Corral-Host": host}
    _done(gateway().post, t("Unloaded."), "/api/generate", body, headers=headers)


def _drain(host: str) -> None:
    _done(gateway().post, t("{host} takes no new requests.", host=host), f"/api/hosts/{host}/drain")


def _resume(host: str) -> None:
    _done(gateway().post, t("{host} takes requests again.", host=host), f"/api/hosts/{host}/resume")


# -- what is shown -------------------------------------------------------------------------------------------------------------


def buttons() -> None:
    """What concerns no host in particular."""
    ask_button("pull", t("Pull"), icon=":material/download:", kind="secondary", key="ask_pull")
    ask_button("load", t("Load"), icon=":material/memory:", kind="secondary", key="ask_load")
    ask_button("delete", t("Delete"), icon=":material/delete:", kind="secondary", key="ask_delete")


def ask_button(
    what: str,
    label: str,
    *,
    key: str,
    host: str = "",
    model: str = "",
    icon: str | None = None,
    kind: Any = "tertiary",
    tip: str | None = None,
) -> None:
    """Opens the dialog."""
    st.button(label, key=key, icon=icon, type=kind, help=tip, on_click=_ask, args=(what, host, model))


def dialogs(hosts: list[dict[str, Any]]) -> None:
    """The one that was asked for; and what the last one did."""
    if said := st.session_state.pop("_done", None):
        st.toast(said, icon=":material/check:")
    wish: Asked | None = st.session_state.pop("_asked", None)
    if wish is None:
        return
    names = [host["name"] for host in hosts]
    models = sorted({row["name"] for host in hosts for row in host["models_available"]})
    if wish.what == "pull":
        st.dialog(t("Pull a model"))(_pull_dialog)(names)
    elif wish.what == "load":
        st.dialog(t("Load a model"))(_load_dialog)(names, models)
    elif wish.what == "delete":
        st.dialog(t("Delete a model"))(_delete_dialog)(names, models)
    else:
        _confirm(wish)


def _pull_dialog(names: list[str]) -> None:
    with st.form("pull", border=False):
        st.text_input(t("Model"), key="pull_model", placeholder="llama3.2:1b")
        st.multiselect(
            t("Hosts"), names, key="pull_hosts", placeholder=t("Those that the placement rules name, else all")
        )
        if st.form_submit_button(t("Pull"), key="pull_now", type="primary", on_click=_pull):
            st.rerun()


def _load_dialog(names: list[str], models: list[str]) -> None:
    words = {
        "usual": t("as usual on that host"),
        "1 h": t("1 hour"),
        "12 h": t("12 hours"),
        "for ever": t("until it is unloaded"),
    }
    with st.form("load", border=False):
        st.selectbox(t("Model"), models, key="load_model", placeholder=t("No models"))
        st.selectbox(t("Host"), names, index=None, key="load_host", placeholder=t("Best host"))
        st.selectbox(t("Stays in memory"), list(KEEP_ALIVE), format_func=words.__getitem__, key="load_keep")
        if st.form_submit_button(t("Load"), key="load_now", type="primary", on_click=_load):
            st.rerun()


def _delete_dialog(names: list[str], models: list[str]) -> None:
    with st.form("delete", border=False):
        st.selectbox(t("Model"), models, index=None, key="delete_model", placeholder=t("Choose a model"))
        st.multiselect(t("Hosts"), names, key="delete_hosts", placeholder=t("All that have it"))
        st.caption(t("It is removed from their disks. To have it back it must be pulled again."))
        if st.form_submit_button(t("Delete"), key="delete_now", type="primary", on_click=_delete):
            st.rerun()


def _confirm(wish: Asked) -> None:
    host, model = wish.host, wish.model
    asking: dict[str, tuple[str, str, str, Callable[..., None], tuple[str, ...]]] = {
        "drain": (
            t("Drain {host}?", host=host),
            t("It gets no new requests and no new models. What runs there finishes."),
            t("Drain"),
            _drain,
            (host,),
        ),
        "resume": (
            t("Resume {host}?", host=host),
            t("It takes new requests again."),
            t("Resume"),
            _resume,
            (host,),
        ),
        "unload": (
            t("Unload {model}?", model=markup.plain(model)),
            t("It leaves the memory of {host}. Whoever asks for it next waits until it is loaded again.", host=host),
            t("Unload"),
            _unload,
            (host, model),
        ),
    }
    title, text, label, work, args = asking[wish.what]

    def body() -> None:
        st.write(text)
        if st.button(label, key="confirmed", type="primary", on_click=work, args=args):
            st.rerun()

    st.dialog(title)(body)()


# -- jobs ----------------------------------------------------------------------------------------------------------------------


def jobs(rows: list[dict[str, Any]]) -> None:
    """Those that run, then the last that ended."""
    st.subheader(t("Jobs"), anchor=False)
    running = [row for row in rows if row["outcome"] is None]
    ended = [row for row in reversed(rows) if row["outcome"] is not None]
    if not rows:
        st.caption(t("Nothing was pulled, created or deleted lately."))
    for row in [*running, *ended][:JOBS]:
        _job(row)


def _job(row: dict[str, Any]) -> None:
    kinds = {
        "pull": t("pull"),
        "push": t("push"),
        "create": t("create"),
        "copy": t("copy"),
        "delete": t("delete"),
        "blob": t("upload"),
    }
    outcomes = {
        "succeeded": (t("done"), "green"),
        "partial": (t("done in part"), "orange"),
        "failed": (t("failed"), "red"),
        "stopped": (t("stopped"), "gray"),
        "cancelled": (t("the caller left"), "gray"),
        None: (t("runs"), "blue"),
    }
    word, color = outcomes[row["outcome"]]
    with st.container(border=True, gap="small"):
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.markdown(f"{kinds[row['kind']]} **{markup.plain(row['model'][:60])}**", width="content")
            st.badge(word, color=color)  # type: ignore[arg-type]
            st.caption(seconds(row["seconds"]), width="content")
            if row["outcome"] is None:
                st.space("stretch")
                st.button(
                    t("Stop"),
                    key=f"stop_{row['id']}",
                    type="tertiary",
                    icon=":material/stop:",
                    on_click=attempted,
                    args=(gateway().delete, f"/api/jobs/{row['id']}"),
                )
        for part in row["hosts"]:
            if part["error"]:
                st.caption(f":material/error: {part['host']}: {markup.said(part['error'])}")
            elif part["state"] in ("waiting", "running"):
                st.progress(min(1.0, part["completed"] / (part["total"] or 1)), text=_progress(part))


def _progress(part: dict[str, Any]) -> str:
    facts = [part["host"], part["status"][:40]]
    if part["total"]:
        facts.append(t("{held} of {whole}", held=size(part["completed"]), whole=size(part["total"])))
    return " · ".join(fact for fact in facts if fact)
