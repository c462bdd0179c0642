"""Who talks, and how: the form of a conversation, and its presets. What is chosen stands in ``st.session_state`` under ``talk_…``, a row each."""

from typing import Any

import streamlit as st

from dashboard.browser import keep_preset
from dashboard.conversation import COLORS, Row
from dashboard.i18n import t
from dashboard.state import refuse

LEAST, MOST = 2, 8
TURNS_USUAL, TURNS_MOST = 6, 200
TOGETHER = ("compare", "judge")
"""Modes in which everybody answers once."""
PRESETS_MOST, PRESET_MOST = 50, 100_000  # of one the length as text: a browser keeps about five million characters
JUDGE = "judge"
FIELDS = ("model", "host", "color", "name", "system")


def mode() -> str:
    """How it is to go."""
    return str(st.session_state.get("talk_mode") or "dialogue")


def settings() -> Row:
    """What is chosen, as the gateway takes it."""
    state = st.session_state
    chosen: Row = {"mode": mode(), "participants": [_one(row) for row in state["talk_rows"]]}
    if mode() == JUDGE:
        chosen["judge"] = _one(JUDGE)
    return chosen


def turns() -> Row:
    """How many, where they are counted."""
    return {} if mode() in TOGETHER else {"turns": st.session_state["talk_turns"]}


def _one(row: Any) -> Row:
    """A participant; what cannot be chosen here stays as it was."""
    state = st.session_state
    kept: Row = state.get(f"talk_kept_{row}", {})
    return kept | {name: state.get(f"talk_{name}_{row}") or None for name in FIELDS}


def fill(given: Row) -> None:
    """Choose what a session or a preset has. Before the form is drawn, or in a callback."""
    state = st.session_state
    state["talk_rows"] = []
    for one in given.get("participants") or [{}, {}]:
        _add(one)
    if given.get(JUDGE):
        _choose(JUDGE, given[JUDGE])
    state["talk_mode"] = given.get("mode") or "dialogue"
    state["talk_turns"] = given.get("turns") or state.get("talk_turns") or TURNS_USUAL


def _choose(row: Any, one: Row) -> None:
    state = st.session_state
    state[f"talk_kept_{row}"] = {name: value for name, value in one.items() if name not in FIELDS}
    for name in FIELDS:
        state[f"talk_{name}_{row}"] = one.get(name) or (None if name in ("model", "host", "color") else "")


def _add(one: Row) -> None:
    """A row of its own number: those after one that is removed stay what they are."""
    state = st.session_state
    rows: list[int] = state["talk_rows"]
    row = state["talk_next"] = state.get("talk_next", 0) + 1
    taken = {state.get(f"talk_color_{other}") for other in rows}
    free = next(color for color in [*COLORS, "gray"] if color not in taken)
    _choose(row, {**one, "color": one.get("color") if one.get("color") in COLORS else free})
    state["talk_rows"] = [*rows, row]


def _remove(row: int) -> None:
    st.session_state["talk_rows"] = [other for other in st.session_state["talk_rows"] if other != row]


# -- the form ------------------------------------------------------------------------------------------------------------------


def form(hosts: list[Row], presets: Row) -> None:
    """Who, and how; ``presets`` by their names."""
    rows: list[int] = st.session_state["talk_rows"]
    _have_models([*rows, JUDGE], _models(hosts))
    with st.container(horizontal=True, vertical_alignment="bottom"):
        words = {"dialogue": t("Dialogue"), "panel": t("Panel"), "compare": t("Compare"), "judge": t("Judge")}
        st.segmented_control(
            t("Mode"),
            list(words),
            format_func=words.__getitem__,
            key="talk_mode",
            wrap=True,
            required=True,
            persist_state="session",
        )
        _presets(presets)
    st.caption(_explained())
    with st.grid("auto", min_column_width=300, border=True):
        for place, row in enumerate(rows):
            with st.container():
                _card(row, hosts, t("Participant {number}", number=place + 1), removable=len(rows) > LEAST)
        if mode() == JUDGE:
            with st.container():
                _card(JUDGE, hosts, t("The judge"), removable=False)
    if len(rows) < MOST:
        st.button(t("Add a participant"), icon=":material/person_add:", on_click=_add, args=({},))


def turns_input() -> None:
    """Drawn where turns are about to be taken."""
    if mode() not in TOGETHER:
        st.number_input(
            t("Turns"), min_value=1, max_value=TURNS_MOST, step=1, key="talk_turns", width=140, persist_state="session"
        )


def _explained() -> str:
    return {
        "dialogue": t("One after the other; each sees all that was said."),
        "panel": t("All at once, and again when each has seen what the others said."),
        "compare": t("All answer at once, and none sees the others."),
        "judge": t("All answer at once; then the judge decides."),
    }[mode()]


def _have_models(rows: list[Any], models: list[str]) -> None:
    """Everybody, and a judge before one is asked for: the mode and the topic may come at once."""
    for place, row in enumerate(rows):
        if models and not st.session_state.get(f"talk_model_{row}"):
            st.session_state[f"talk_model_{row}"] = models[place % len(models)]


def _card(row: Any, hosts: list[Row], title: str, *, removable: bool) -> None:
    state = st.session_state
    with st.container(horizontal=True, vertical_alignment="center"):
        st.badge(title, color=state.get(f"talk_color_{row}") or "gray")
        st.space("stretch")
        if removable:
            st.button(
                "",
                icon=":material/close:",
                key=f"talk_remove_{row}",
                help=t("Remove"),
                type="tertiary",
                on_click=_remove,
                args=(row,),
            )
    names = [host["name"] for host in hosts]
    host = state.get(f"talk_host_{row}")
    models = _models([one for one in hosts if host in (None, one["name"])])
    chosen = state.get(f"talk_model_{row}")
    left, right = st.columns(2)
    left.selectbox(t("Model"), _with(models, chosen), placeholder=t("No models"), **_kept("model", row))
    right.selectbox(t("Host"), _with(names, host), index=None, placeholder=t("Best host"), **_kept("host", row))
    st.text_input(t("Name"), placeholder=t("as its model"), max_chars=64, **_kept("name", row))
    st.text_area(t("System prompt"), height=68, max_chars=100_000, **_kept("system", row))
    if row != JUDGE:
        st.segmented_control(
            t("Colour"),
            list(COLORS),
            format_func=_dot,
            required=True,
            label_visibility="collapsed",
            **_kept("color", row),
        )


def _dot(color: str) -> str:
    return f":{color}[●]"


def _kept(name: str, row: Any) -> Row:
    return {"key": f"talk_{name}_{row}", "persist_state": "session"}


def _models(hosts: list[Row]) -> list[str]:
    """Those in memory first."""
    loaded = {row["name"] for host in hosts for row in host["models_loaded"]}
    names = {row["name"] for host in hosts for row in host["models_available"]}
    return sorted(names, key=lambda name: (name not in loaded, name))


def _with(names: list[str], chosen: str | None) -> list[str]:
    """What was chosen stays among the options, also where it is there no more."""
    return names if chosen is None or chosen in names else [*names, chosen]


# -- presets -------------------------------------------------------------------------------------------------------------------


def _presets(kept: Row) -> None:
    with st.popover(t("Presets"), icon=":material/bookmark:"):
        if kept:
            name = st.selectbox(t("Preset"), list(kept), key="talk_preset")
            with st.container(horizontal=True):
                st.button(t("Load"), on_click=fill, args=(kept.get(name, {}),), type="primary")
                st.button(t("Delete"), on_click=keep_preset, args=(name, None))
        st.text_input(t("Name of the preset"), max_chars=64, key="talk_preset_name")
        st.button(t("Save"), on_click=_save, args=(len(kept),), icon=":material/save:")
        st.caption(t("Presets are kept in this browser."))


def _save(count: int) -> None:
    name = str(st.session_state["talk_preset_name"]).strip()
    preset = settings() | turns()
    if not name:
        refuse(t("Give the preset a name."))
    elif count >= PRESETS_MOST or len(str(preset)) > PRESET_MOST:
        refuse(t("This browser has no room for the preset: delete another, or shorten its prompts."))
    else:
        keep_preset(name, preset)
