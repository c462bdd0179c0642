"""What this browser remembers: the sessions that a tab shows, the language, presets. And its clipboard."""

import json
import uuid
from pathlib import Path
from typing import Any

import streamlit as st

KEY = "corral"
QUIET_MS = 1500
_TOLD = ("_told", "_kept", "_presets_told", "_presets", "_presets_change")
AHEAD = [path.name for path in sorted((Path(st.__file__).parent / "static" / "static" / "js").glob("PlotlyChart.*.js"))]
"""Code of Streamlit's that the first chart waits for, 4.7 MB. A browser fetches and runs it ahead, once nothing on the page has moved for QUIET_MS and nobody has typed:
to run it takes some tenths of a second, which a growing answer must not lose. Empty where Streamlit has named it otherwise: then the first chart waits."""
_component = st.components.v2.component(
    "corral_prefs",
    js="""
export default function ({ data, setStateValue }) {
  const key = data.key
  const before = JSON.parse(sessionStorage.getItem(key) || localStorage.getItem(key) || "{}")  // this tab's, else the last one's
  const next = { ...before, ...data.set }
  const doc = JSON.stringify(next)
  sessionStorage.setItem(key, doc)
  localStorage.setItem(key, doc)
  if (next.language) document.cookie = key + "_lang=" + next.language + ";path=/;max-age=31536000;SameSite=Lax"
  if (data.ahead.length && !window.corralAhead && !navigator.connection?.saveData) {
    window.corralAhead = true
    const base = document.querySelector("script[type=module][src]").src
    const moves = ["keydown", "pointerdown"]
    let waiting = 0
    const fetched = () => {
      seen.disconnect()
      for (const move of moves) removeEventListener(move, moved, true)
      for (const name of data.ahead) import(new URL(name, base).href)
    }
    const moved = () => {
      clearTimeout(waiting)
      waiting = setTimeout(fetched, data.quiet)
    }
    const seen = new MutationObserver(moved)
    seen.observe(document.body, { subtree: true, childList: true, characterData: true })
    for (const move of moves) addEventListener(move, moved, true)
    moved()
  }
  if (!data.known || Object.keys(next).some(name => next[name] !== data.known[name])) setStateValue("doc", doc)
}
""",
)
_presets = st.components.v2.component(
    "corral_presets",
    js="""
export default function ({ data, setStateValue }) {
  const key = "corral_presets"
  const kept = JSON.parse(localStorage.getItem(key) || "{}")
  if (data.change && sessionStorage.getItem(key) !== data.change) {  // once: another tab may have changed them since
    for (const [name, preset] of Object.entries(data.set)) {
      if (preset) kept[name] = preset
      else delete kept[name]
    }
    localStorage.setItem(key, JSON.stringify(kept))
    sessionStorage.setItem(key, data.change)
  }
  if (!data.told) setStateValue("doc", JSON.stringify(kept))
}
""",
)
_copy = st.components.v2.component(
    "corral_copy",
    js="""
export default function ({ data, parentElement }) {
  const button = document.createElement("button")
  button.textContent = data.label
  button.style.cssText = "all:unset;display:block;cursor:pointer;font-size:0.875rem"
  button.onclick = async () => {
    try { await navigator.clipboard.writeText(data.text) }
    catch {  // plain http on a LAN has no clipboard
      const area = document.createElement("textarea")
      area.value = data.text
      document.body.append(area); area.select(); document.execCommand("copy"); area.remove()
    }
    button.textContent = data.done
  }
  parentElement.replaceChildren(button)
}
""",
)
_hold_back = st.components.v2.component(
    "corral_hold_back",
    js="""
export default function ({ data, parentElement }) {
  const note = document.createElement("div")
  note.setAttribute("role", "alert")
  note.style.cssText = "font-size:0.875rem;color:var(--st-red-text-color)"
  parentElement.replaceChildren(note)
  const hold = event => {
    const at = event.target
    const bad = document.querySelector("[data-testid=stChatInput] [data-testid=stFileChip][aria-invalid=true]")
    if (!bad) { note.textContent = ""; return }
    const sends = event.type === "click" ? at.closest?.("[data-testid=stChatInputSubmitButton]")
      : event.key === "Enter" && !event.shiftKey && at.matches?.("[data-testid=stChatInputTextArea]")
    if (!sends) return
    event.preventDefault()
    event.stopImmediatePropagation()
    note.textContent = data.words
  }
  document.addEventListener("keydown", hold, true)
  document.addEventListener("click", hold, true)
  return () => {
    document.removeEventListener("keydown", hold, true)
    document.removeEventListener("click", hold, true)
  }
}
""",
)


def _hear() -> None:
    """What the browser told. Before the run that it brings about renders anything: else the browser would tell it again, and bring about another."""
    st.session_state["_told"] = json.loads(st.session_state["_prefs"]["doc"])


def remembered() -> dict[str, Any] | None:
    """None in the first run of a page that is loaded: the browser has not told yet. It tells no more than is known: that would be another run,
    and a run that begins ends what callbacks are doing.
    """
    kept = st.session_state.setdefault("_kept", {})
    told = st.session_state.get("_told")
    known = None if told is None else {**told, **kept}
    data = {"key": KEY, "set": kept, "known": known, "ahead": AHEAD, "quiet": QUIET_MS}
    _component(key="_prefs", data=data, on_doc_change=_hear)
    return known


def remember(**values: Any) -> None:
    """From now on, in this tab and the next one that is opened."""
    st.session_state.setdefault("_kept", {}).update(values)


def forget_the_rest() -> None:
    """All that the tab has but what its browser has told: it is the browser's, and what has not changed is not told again."""
    told = {name: st.session_state[name] for name in _TOLD if name in st.session_state}
    st.session_state.clear()
    st.session_state.update(told)


def _hear_presets() -> None:
    """The same."""
    st.session_state["_presets_told"] = json.loads(st.session_state["_preset_doc"]["doc"])


def presets() -> dict[str, Any] | None:
    """All that are kept, by name; None until the browser has told: that brings about another run, to which what is typed until then could be lost. Presets live in the browser: there they outlast a reload and need neither a table nor an owner in the gateway.
    What must be there in every browser is a conversation, which the gateway keeps with its participants.
    """
    state = st.session_state
    changes: dict[str, Any] = state.get("_presets", {})
    data = {"set": changes, "change": state.get("_presets_change"), "told": "_presets_told" in state}
    _presets(key="_preset_doc", data=data, on_doc_change=_hear_presets)
    if "_presets_told" not in state:
        return None
    return {name: preset for name, preset in sorted({**state["_presets_told"], **changes}.items()) if preset}


def keep_preset(name: str, preset: Any) -> None:
    """From now on, in every tab that is opened; None: no more."""
    st.session_state.setdefault("_presets", {})[name] = preset
    st.session_state["_presets_change"] = uuid.uuid4().hex


def copy_button(text: str, label: str, done: str, key: str) -> None:
    """Puts ``text`` into the clipboard."""
    _copy(key=key, data={"text": text, "label": label, "done": done}, width="content")


def hold_back(words: str, key: str) -> None:
    """A chat's input sends nothing while it has a file that it will not send (too large, or of another kind), and says so: by itself it would leave
    the file out without a word.
    """
    _hold_back(key=key, data={"words": words}, height="content")
