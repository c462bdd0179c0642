"""What this browser remembers: the session that a tab shows, and the language. And its clipboard."""

import json
from typing import Any

import streamlit as st

KEY = "corral"
_component = st.components.v2.component(
    "corral_prefs",
    js="""
export default function ({ data, setStateValue }) {
  const key = data.key
  const before = JSON.parse(sessionStorage.getItem(key) || localStorage.getItem(key) || "{}")  // this tab's, else the last one's
  const next = JSON.stringify({ ...before, ...data.set })
  sessionStorage.setItem(key, next)
  localStorage.setItem(key, next)
  const lang = JSON.parse(next).language
  if (lang) document.cookie = key + "_lang=" + lang + ";path=/;max-age=31536000;SameSite=Lax"
  setStateValue("doc", next)
}
""",
)
_copy = st.components.v2.component(
    "corral_copy",
    js="""
export default function ({ data, parentElement }) {
  const button = document.createElement("button")
  button.textContent = data.label
  button.style.cssText = "all:unset;cursor:pointer;font-size:0.875rem;opacity:0.7"
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


def _nothing() -> None:
    """A change is read in the run that it brings about."""


def remembered() -> dict[str, Any] | None:
    """None in the first run of a page that is loaded: the browser has not told yet."""
    kept = st.session_state.setdefault("_kept", {})
    doc = _component(key="_prefs", data={"key": KEY, "set": kept}, on_doc_change=_nothing).doc
    return {**json.loads(doc), **kept} if doc else None


def remember(**values: Any) -> None:
    """From now on, in this tab and the next one that is opened."""
    st.session_state.setdefault("_kept", {}).update(values)


def copy_button(text: str, label: str, done: str, key: str) -> None:
    """Puts ``text`` into the clipboard."""
    _copy(key=key, data={"text": text, "label": label, "done": done}, width="content")
