"""Beside the input: which host, which model, which options; and what is to be known of them. Callbacks change, the rest renders.

What is chosen belongs to the session: it is kept with it, and comes back when the session is opened.
"""

from collections.abc import Callable
from typing import Any

import streamlit as st

from dashboard.choosing import Model, models
from dashboard.i18n import number, size, t
from dashboard.markup import plain

OPTIONS = {"temperature": 0.1, "num_ctx": 1024, "num_predict": 128, "top_p": 0.05, "top_k": 10, "seed": 1}
"""What can be set, and in which steps."""
THINK = {"on": True, "off": False}
BEST = ""  # of the hosts: whichever is
FILTER_FROM = 10  # models, from which on one may search


# -- what callbacks do ---------------------------------------------------------------------------------------------------------


def settings() -> dict[str, Any]:
    """What is chosen, as a session keeps it."""
    state = st.session_state
    shown = {name: state[f"option_{name}"] for name in OPTIONS if state.get(f"option_{name}") is not None}
    return {
        "model": state.get("model"),
        "host": state.get("host"),
        "system": state.get("system") or None,
        "options": {**state.get("options_besides", {}), **shown},
    }


def fields(model: Model | None) -> dict[str, Any]:
    """What is chosen for each answer anew, as far as it means something to this model."""
    given: dict[str, Any] = {}
    if keep := (st.session_state.get("keep_alive") or "").strip():
        given["keep_alive"] = int(keep) if keep.lstrip("-").isdigit() else keep
    think = st.session_state.get("think")
    if think is not None and model is not None and "thinking" in model.capabilities:
        given["think"] = THINK[think]
    return given


def choose_as(session: dict[str, Any]) -> None:
    """As it is kept with a session that is opened. Options that the page does not show stay as they are."""
    state = st.session_state
    state["model"] = session["model"] or state.get("model")
    state["host"] = session["host"]
    state["system"] = session["system"] or ""
    state["options_besides"] = {name: value for name, value in session["options"].items() if name not in OPTIONS}
    for name, step in OPTIONS.items():
        value = session["options"].get(name)
        state[f"option_{name}"] = type(step)(value) if isinstance(value, int | float) else None


def choose_anew() -> None:
    """For a new chat: the same model and host, nothing else of the session that was open."""
    choose_as({"model": None, "host": st.session_state.get("host"), "system": None, "options": {}})


def _pick(kind: str, key: str) -> None:
    st.session_state[kind] = st.session_state[key] or None
    st.session_state[f"{kind}_picker"] = False


# -- what is shown -------------------------------------------------------------------------------------------------------------


def toolbar(hosts: list[dict[str, Any]], *, running: bool, images: bool, stop: Callable[[], None]) -> None:
    """``images``: whether there are some in what the model gets to see."""
    by_name = {host["name"]: host for host in hosts}
    host = st.session_state.get("host")
    chosen = [by_name[host]] if host in by_name else hosts
    known = models(chosen)
    state = st.session_state
    if state.get("model") is None or (state["model"] not in known and state["model"] not in models(hosts)):
        state["model"] = next(iter(known), None)
    model = known.get(state["model"] or "")
    with st.bottom:
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            _host_picker(by_name)
            _model_picker(known)
            with st.popover(t("Options"), icon=":material/tune:"):
                _options(model)
            if running:
                st.button(t("Stop"), icon=":material/stop:", shortcut="esc", on_click=stop, type="primary")
        facts = [*(_host(by_name[host]) if host in by_name else _fleet(hosts)), *(_facts(model) if model else ())]
        st.caption(" · ".join(facts))
        for warning in [*_nobody(chosen), *_warnings(model, images=images)]:
            st.caption(f":material/warning: {warning}")


def _host_picker(hosts: dict[str, dict[str, Any]]) -> None:
    host = st.session_state.get("host")
    words = {BEST: t("Best host")} | {name: plain(name) for name in hosts}
    about = [t("whichever answers soonest"), *(" · ".join([*_host(row), *_holds(row)]) for row in hosts.values())]
    with st.popover(words.get(host or BEST) or str(host), icon=":material/dns:", key="host_picker", on_change="rerun"):
        _choice("host", "hosts", t("Host"), words, about)


def _model_picker(known: dict[str, Model]) -> None:
    chosen = st.session_state["model"]
    label = plain(chosen) if chosen else t("No models")
    with st.popover(label, icon=":material/neurology:", key="model_picker", on_change="rerun"):
        words = ""
        if len(known) >= FILTER_FROM:
            words = st.text_input(
                t("Search"), key="model_words", type="search", live=True, label_visibility="collapsed"
            )
        fit = [model for model in known.values() if words.strip().lower() in model.name.lower()]
        for key, title, group in (
            ("loaded", t("Loaded now"), [model for model in fit if model.loaded]),
            ("available", t("Available"), [model for model in fit if not model.loaded]),
        ):
            if group:
                names = {model.name: plain(model.name) for model in group}
                _choice("model", key, title, names, [" · ".join(_facts(model)) for model in group])
        if not fit:
            st.caption(t("No models"))


def _choice(kind: str, group: str, title: str, words: dict[str, str], about: list[str]) -> None:
    """One of several groups of which one is chosen, in all: each shows what is."""
    chosen, key = st.session_state.get(kind) or BEST, f"{kind}_{group}"
    st.session_state[key] = chosen if chosen in words else None
    st.radio(
        title,
        list(words),
        index=None,
        format_func=words.__getitem__,
        captions=about,
        key=key,
        on_change=_pick,
        args=(kind, key),
    )


def _host(host: dict[str, Any]) -> list[str]:
    taken = t("{leases} of {slots} slots taken", leases=host["leases"], slots=host["slots"])
    return [*_health(host), taken, *_draining(host)]


def _health(host: dict[str, Any]) -> list[str]:
    words = {"suspect": t("suspect"), "ejected": t("ejected"), "trial": t("on trial")}
    return [words.get(host["health"], t("healthy"))]


def _draining(host: dict[str, Any]) -> list[str]:
    return [t("draining")] if host["draining"] else []


def _holds(host: dict[str, Any]) -> list[str]:
    names = ", ".join(plain(row["name"]) for row in host["models_loaded"])
    return [t("in memory: {models}", models=names)] if names else []


def _fleet(hosts: list[dict[str, Any]]) -> list[str]:
    leases, slots = (sum(host[name] for host in hosts) for name in ("leases", "slots"))
    return [t("{leases} of {slots} slots taken", leases=leases, slots=slots)]


def _nobody(hosts: list[dict[str, Any]]) -> list[str]:
    """Where none of them can be counted on: each with how it is."""
    if any(host["health"] != "ejected" and not host["draining"] for host in hosts):
        return []
    about = [f"{plain(host['name'])} ({', '.join([*_health(host), *_draining(host)])})" for host in hosts]
    return [t("No host is ready to answer: {hosts}", hosts=", ".join(about) or "–")]


def _facts(model: Model) -> list[str]:
    abilities = {"vision": t("sees images"), "thinking": t("thinks"), "tools": t("uses tools"), "audio": t("hears")}
    able = [abilities[one] for one in abilities if one in model.capabilities]
    where = t("loaded on {hosts}", hosts=", ".join(model.loaded)) if model.loaded else t("not loaded")
    weight = size(model.size_bytes) if model.size_bytes else ""
    return [word for word in (model.parameters, model.quantization, weight, *able, where) if word]


def _options(model: Model | None) -> None:
    st.text_area(t("System prompt"), key="system", persist_state="session")
    left, right = st.columns(2)
    for place, (name, step) in zip((left, right) * 3, OPTIONS.items(), strict=True):
        place.number_input(
            name,
            value=None,
            min_value=type(step)(0),
            step=step,
            key=f"option_{name}",
            placeholder=t("default"),
            persist_state="session",
        )
    left.text_input("keep_alive", key="keep_alive", placeholder="5m, 3600, -1", persist_state="session")
    if model is not None and "thinking" in model.capabilities:
        words = {"on": t("on"), "off": t("off")}
        right.segmented_control(
            "think", list(THINK), format_func=words.__getitem__, key="think", persist_state="session"
        )


def _warnings(model: Model | None, *, images: bool) -> list[str]:
    if model is None:
        chosen, host = st.session_state["model"], st.session_state.get("host")
        return [t("{host} does not have {model}.", host=host, model=plain(chosen))] if chosen and host else []
    warnings = []
    for host, context in model.reloading(st.session_state.get("option_num_ctx")).items():
        warnings.append(
            t("With this num_ctx {host} loads it again: it has {context} now.", host=host, context=number(context))
        )
    if images and model.lacks("vision"):
        warnings.append(t("{model} cannot see the images of this chat.", model=plain(model.name)))
    return warnings
