"""Chat with one model at a time. Callbacks change, the body renders."""

import base64
from collections.abc import Iterator
from typing import Any

import streamlit as st

from dashboard import markup
from dashboard.browser import copy_button, remember
from dashboard.following import Following, Spoken
from dashboard.gateway import GatewayError
from dashboard.i18n import number, seconds, size, t
from dashboard.paint import Growing, live
from dashboard.state import attempted, fleet, gateway, hub

SHOWN = 30
OPTIONS = {"temperature": 0.1, "num_ctx": 1024, "num_predict": 128, "top_p": 0.05, "top_k": 10, "seed": 1}
"""What can be set, and in which steps."""


# -- what callbacks do ---------------------------------------------------------------------------------------------------------


def _open(id_: str | None) -> None:
    st.session_state["session"] = id_
    remember(session=id_)


def _settings() -> dict[str, Any]:
    """What is chosen beside the input, as a session keeps it."""
    state = st.session_state
    options = {name: state[f"option_{name}"] for name in OPTIONS if state.get(f"option_{name}") is not None}
    return {
        "model": state.get("model"),
        "host": state.get("host"),
        "system": state.get("system") or None,
        "options": options,
    }


def _submit() -> None:
    given = st.session_state["said"]
    message: dict[str, Any] = {"content": given.text}
    if given.files:
        message["images"] = [base64.b64encode(file.getvalue()).decode() for file in given.files]
    attempted(_say, {"message": message})


def _say(body: dict[str, Any]) -> None:
    """A turn. What is being said in this session is stopped, and kept as far as it came."""
    id_ = st.session_state.get("session")
    settings = _settings()
    if id_ is None:
        id_ = gateway().post("/api/sessions", settings)["id"]
        _open(id_)
    else:
        gateway().patch(f"/api/sessions/{id_}", settings)
    _stop()
    gateway().post(f"/api/sessions/{id_}/chat", {"detach": True, "model": settings["model"], **body})


def _stop() -> None:
    if id_ := st.session_state.get("session"):
        attempted(gateway().post, f"/api/sessions/{id_}/cancel")


def _again(parent: int) -> None:
    attempted(_say, {"parent": parent})


def _show_branch(leaf: int) -> None:
    attempted(gateway().patch, f"/api/sessions/{st.session_state['session']}", {"leaf": leaf})


def _resend(parent: int | None, key: str) -> None:
    attempted(_say, {"message": {"content": st.session_state[key]}, "parent": parent})


# -- the page ------------------------------------------------------------------------------------------------------------------


def page() -> None:
    """One run."""
    hosts = fleet()
    _sessions()
    session, messages = _current()
    running = session["running"] if session else None
    if session is None:
        _greeting()
    for number_, row in enumerate(messages):
        if not (running and row["state"] == "streaming"):
            _message(row, last=number_ == len(messages) - 1)
    _toolbar(hosts, running=bool(running))
    st.chat_input(
        t("Your message"),
        key="said",
        on_submit=_submit,
        accept_file="multiple",
        file_type=["png", "jpg", "jpeg", "webp"],
    )
    if running:
        following = hub().follow(running)
        live(lambda: _answer(following))


def _current() -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
    id_ = st.session_state.get("session")
    if not id_:
        return None, []
    try:
        session = gateway().get(f"/api/sessions/{id_}")
        limit = st.session_state.get("shown", SHOWN)
        told = gateway().get(f"/api/sessions/{id_}/messages", limit=limit)
    except GatewayError as error:
        if error.status != 404:
            raise
        _open(None)
        return None, []
    if told["earlier"] is not None:
        st.button(t("Show earlier messages"), on_click=_more, type="tertiary")
    return session, told["messages"]


def _more() -> None:
    st.session_state["shown"] = st.session_state.get("shown", SHOWN) + SHOWN


def _greeting() -> None:
    st.header(t("What would you like to know?"))
    st.caption(t("Corral sends it to the host that will answer soonest."))


def _sessions() -> None:
    with st.sidebar:
        st.button(t("New chat"), icon=":material/add:", on_click=_open, args=(None,), width="stretch")
        for row in gateway().get("/api/sessions", limit=30)["sessions"]:
            chosen = row["id"] == st.session_state.get("session")
            st.button(
                row["title"] or t("Untitled"),
                key=f"open_{row['id']}",
                on_click=_open,
                args=(row["id"],),
                type="secondary" if chosen else "tertiary",
                icon=":material/push_pin:" if row["pinned"] else None,
                width="stretch",
                wrap=False,
            )


def _toolbar(hosts: list[dict[str, Any]], *, running: bool) -> None:
    """Options are plain names: what is shown of an option must not change while it is chosen, or Streamlit takes it for another one."""
    by_name = {host["name"]: host for host in hosts}
    with st.bottom:
        with st.container(horizontal=True, vertical_alignment="bottom"):
            host = st.selectbox(
                t("Host"),
                list(by_name),
                index=None,
                key="host",
                label_visibility="collapsed",
                placeholder=t("Best host"),
                persist_state="session",
            )
            chosen = [by_name[host]] if host in by_name else hosts
            models = _models(chosen)
            model = st.selectbox(
                t("Model"),
                list(models),
                key="model",
                label_visibility="collapsed",
                placeholder=t("No models"),
                persist_state="session",
            )
            with st.popover(t("Options"), icon=":material/tune:"):
                _options()
            if running:
                st.button(t("Stop"), icon=":material/stop:", shortcut="esc", on_click=_stop, type="primary")
        facts = [*(_host(by_name[host]) if host in by_name else ()), *models.get(model, ())]
        st.caption(" · ".join(facts))


def _host(host: dict[str, Any]) -> list[str]:
    words = [t("{leases} of {slots} slots taken", leases=host["leases"], slots=host["slots"])]
    unwell = {"suspect": t("suspect"), "ejected": t("ejected"), "trial": t("on trial")}
    if host["health"] in unwell:
        words.append(unwell[host["health"]])
    if host["draining"]:
        words.append(t("draining"))
    return words


def _models(hosts: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Names, those in memory first, and what is known of each."""
    loaded: dict[str, list[str]] = {}
    for host in hosts:
        for row in host["models_loaded"]:
            loaded.setdefault(row["name"], []).append(host["name"])
    known = {row["name"]: row for host in hosts for row in host["models_available"]}
    facts = {}
    for name in sorted(known, key=lambda name: (name not in loaded, name)):
        details = known[name].get("details") or {}
        words = [details.get("parameter_size"), details.get("quantization_level"), size(known[name].get("size") or 0)]
        where = t("loaded on {hosts}", hosts=", ".join(loaded[name])) if name in loaded else t("not loaded")
        facts[name] = [*(str(word) for word in words if word), where]
    return facts


def _options() -> None:
    st.text_area(t("System prompt"), key="system", persist_state="session")
    left, right = st.columns(2)
    for place, (name, step) in zip((left, right) * 3, OPTIONS.items(), strict=True):
        key = f"option_{name}"
        place.number_input(
            name,
            value=None,
            min_value=type(step)(0),
            step=step,
            key=key,
            placeholder=t("default"),
            persist_state="session",
        )
    if st.session_state.get("option_num_ctx"):
        st.caption(t("Another num_ctx than the one that is loaded makes the host load the model again."))


# -- messages ------------------------------------------------------------------------------------------------------------------


def _message(row: dict[str, Any], *, last: bool) -> None:
    with st.chat_message("user" if row["role"] == "user" else "assistant"):
        if row["role"] == "user":
            for image in row["images"] or ():
                st.image(base64.b64decode(image), width=240)
            st.markdown(markup.said(row["content"]))
        else:
            content, thinking = markup.split(row["content"], row["thinking"] or "")
            if thinking:
                with st.expander(t("Thoughts"), type="compact"):
                    st.markdown(markup.shown(thinking))
            st.markdown(markup.shown(content))
            _state(row)
        _actions(row, last=last)


def _state(row: dict[str, Any]) -> None:
    if row["state"] == "stopped":
        st.caption(t("Stopped."))
    elif row["state"] == "error":
        st.caption(f":material/error: {row['error']}")
    if row["host"]:
        st.caption(" · ".join(_facts(row)))


def _facts(row: dict[str, Any]) -> list[str]:
    facts = [row["model"] or "", row["host"]]
    timings, usage = row["timings"] or {}, row["usage"] or {}
    if timings.get("ttft_seconds") is not None:
        facts.append(t("first token {value}", value=seconds(timings["ttft_seconds"])))
    if usage and timings.get("decode_seconds"):
        facts.append(t("{value} tokens/s", value=number(usage["output_tokens"] / timings["decode_seconds"], 1)))
    if usage:
        facts.append(t("{n} tokens", n=usage["output_tokens"]))
    return facts


def _actions(row: dict[str, Any], *, last: bool) -> None:
    with st.container(horizontal=True, gap="small"):
        siblings = row["siblings"]
        if len(siblings) > 1:
            place = siblings.index(row["seq"])
            before, after = siblings[max(0, place - 1)], siblings[min(len(siblings) - 1, place + 1)]
            st.button(
                "◀",
                key=f"before_{row['seq']}",
                on_click=_show_branch,
                args=(before,),
                type="tertiary",
                disabled=place == 0,
            )
            st.caption(f"{place + 1}/{len(siblings)}")
            st.button(
                "▶",
                key=f"after_{row['seq']}",
                on_click=_show_branch,
                args=(after,),
                type="tertiary",
                disabled=place == len(siblings) - 1,
            )
        if row["role"] == "assistant" and last:
            st.button(
                t("Again"),
                key=f"again_{row['seq']}",
                icon=":material/refresh:",
                type="tertiary",
                on_click=_again,
                args=(row["parent"],),
            )
            copy_button(row["content"], t("Copy"), t("Copied"), key=f"copy_{row['seq']}")
        if row["role"] == "user":
            with st.popover(t("Edit"), icon=":material/edit:", type="tertiary"):
                key = f"edit_{row['seq']}"
                st.text_area(t("Your message"), row["content"], key=key, label_visibility="collapsed")
                st.button(t("Send"), key=f"send_{key}", on_click=_resend, args=(row["parent"], key), type="primary")


def _answer(following: Following) -> Iterator[bool]:
    """Frame by frame."""
    with st.chat_message("assistant"):
        thoughts = st.container()
        growing = Growing(st.container())
        status = st.empty()
        thinking: Growing | None = None
        while not following.over:
            answer = following.answer
            if answer.thinking and thinking is None:
                thinking = Growing(thoughts.expander(t("Thinking"), expanded=True, type="compact"))
            if thinking is not None:
                thinking.show(markup.shown(answer.thinking), growing=not answer.content)
            if answer.content:
                growing.show(markup.shown(answer.content))
            status.caption(_doing(following, answer))
            yield True
    yield False


def _doing(following: Following, answer: Spoken) -> str:
    if answer.first is not None:
        rate = answer.rate
        facts = [following.host or "", t("{value} tokens/s", value=number(rate, 1)) if rate else ""]
        return " · ".join(fact for fact in facts if fact)
    if following.phase == "queued":
        return t("Waiting for a free host…")
    where = t("{host} reads or loads", host=following.host) if following.host else t("Sent")
    return f"{where} · {seconds(following.age)}"
