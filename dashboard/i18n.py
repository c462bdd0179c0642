"""Words in the reader's language. English is the key; ``locales/ru.json`` has the others. A test holds that none is missing or left over."""

import json
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import streamlit as st
from babel import Locale
from babel.dates import format_datetime, format_timedelta
from babel.numbers import format_compact_decimal, format_decimal

LANGUAGES = {"en": "English", "ru": "Русский"}
LANGUAGE = "language"


def language() -> str:
    """Chosen here, else in this browser before, else the browser's own."""
    chosen = st.session_state.get(LANGUAGE)
    before = str(st.context.cookies.get("corral_lang") or "")
    for word in (chosen, before, str(st.context.locale or "")[:2]):
        if word in LANGUAGES:
            return str(word)
    return "en"


@cache
def _words(code: str) -> dict[str, Any]:
    path = Path(__file__).parent / "locales" / f"{code}.json"
    words: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return words


def t(text: str, /, **values: Any) -> str:
    """``text`` in the reader's language, with ``values`` in their places. ``n`` chooses among the plural forms."""
    code = language()
    words = _words(code).get(text, text)
    if isinstance(words, dict):
        form = Locale(code).plural_form(values["n"])
        words = words.get(form) or words["other"]
        values["n"] = number(values["n"])
    return str(words).format(**values) if values else str(words)


def number(value: float, digits: int = 0) -> str:
    """As it is written there."""
    return str(format_decimal(round(value, digits), locale=language()))


def separators() -> str:
    """The sign before decimals, and that between thousands: as Plotly is told them."""
    written = number(1000.5, 1)
    return written[-2] + written[1]


def capital(words: str) -> str:
    """As the heading of a column."""
    return words[:1].upper() + words[1:]


def short(value: float) -> str:
    """``950``, ``12.3K``, ``1.2M``."""
    return str(format_compact_decimal(value, fraction_digits=1, locale=language()))


def seconds(value: float | None) -> str:
    """``42 ms``, ``0.42 s``, ``3.1 s``, ``2 min 5 s``, ``3 h 5 min``."""
    if value is None:
        return "–"
    if 0 < value < 0.1:
        return t("{value} ms", value=number(value * 1000, 1 if value < 0.01 else 0))
    if value >= 3600:
        hours, rest = divmod(round(value / 60), 60)
        return t("{hours} h {minutes} min", hours=number(hours), minutes=rest)
    if value >= 60:
        minutes, rest = divmod(round(value), 60)
        return t("{minutes} min {rest} s", minutes=minutes, rest=rest)
    digits = 2 if value < 1 else 1 if value < 10 else 0
    return t("{value} s", value=number(value, digits))


def size(value: float) -> str:
    """Bytes, as GB or MB."""
    if value >= 1e9:
        return t("{value} GB", value=number(value / 1e9, 1))
    return t("{value} MB", value=number(value / 1e6, 0))


def ago(delta_seconds: float) -> str:
    """``5 minutes ago``."""
    return str(format_timedelta(timedelta(seconds=-delta_seconds), add_direction=True, locale=language()))


def moment(at: Any) -> str:
    """A date with its time."""
    return str(format_datetime(at, "d MMM HH:mm", locale=language()))


def local(at: str) -> datetime:
    """ISO 8601 as the reader's clock says it; without a zone, as charts and tables paint it."""
    zone = ZoneInfo(st.context.timezone) if st.context.timezone else UTC
    return datetime.fromisoformat(at).astimezone(zone).replace(tzinfo=None)
