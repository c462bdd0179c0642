"""Writes what was found into docs/app.md, between two marks."""

import platform
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from os import cpu_count
from pathlib import Path

from bench.dashboard.found import Found, table

PAGE = Path(__file__).parents[2] / "docs" / "app.md"
BEGIN, END = "<!-- bench/dashboard -->", "<!-- end -->"


def write(rows: Sequence[Found], loads: tuple[str, str]) -> Path:
    """``loads``: the machine's load averages before and after. Returns where the page is."""
    written = (
        f"Written by `python -m bench.dashboard`; do not edit. {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {cpu_count()} cores, Linux {platform.release()},"
        f" Python {platform.python_version()}, Streamlit {version('streamlit')}; load average before {loads[0]}, after {loads[1]}."
    )
    block = f"{BEGIN}\n\n{written}\n\n{table(rows)}\n\n{END}"
    text = PAGE.read_text(encoding="utf-8")
    marked = re.compile(f"{BEGIN}.*{END}", re.DOTALL)
    assert marked.search(text), f"{PAGE} has no marks"
    PAGE.write_text(marked.sub(lambda _: block, text), encoding="utf-8")
    return PAGE
