"""What was: sums over a time, by outcome, model and host, against the time before. The gateway sums up; here it is only painted."""

import os
import time
from datetime import datetime
from typing import Any, NamedTuple

import streamlit as st

from dashboard import charts
from dashboard.edge import fragment
from dashboard.gateway import GRAFANA, GatewayError
from dashboard.i18n import local, moment, number, seconds, short, t
from dashboard.state import asked_by, look, person
from dashboard.views import pictures, requests

RANGES = {
    "15m": (900, "1m"),
    "1h": (3600, "1m"),
    "6h": (6 * 3600, "5m"),
    "24h": (86400, "15m"),
    "7d": (7 * 86400, "1h"),
    "30d": (30 * 86400, "6h"),
}
"""How long it is, and from point to point: two hundred points at most."""
REFRESH = (None, 10.0, 30.0, 60.0)
"""Seconds; None: not by itself."""
SPARKS = 48
STEADY_PERCENT = 5
"""Less of a change is neither good nor bad."""
MODELS = 6
"""So many are told apart over time."""
GRAFANA_BOARDS = {"fleet": "Fleet overview", "models": "Models", "hosts": "Hosts", "slo": "Service levels"}


class Told(NamedTuple):
    """The gateway's answers; ``at``: Unix seconds."""

    at: float
    now: dict[str, Any]
    before: dict[str, Any]
    series: dict[str, Any]
    tokens: dict[str, Any]
    models: list[dict[str, Any]]
    pairs: list[dict[str, Any]]
    errors: list[dict[str, Any]]


@st.cache_data(ttl=5, show_spinner=False)
def told(chosen: requests.Chosen, whose: str) -> Told:
    """One look for all who ask the same and may see the same (``person``). Raises GatewayError."""
    length, step = RANGES[chosen.range]
    now = time.time()
    whom = chosen.query()
    steps = whom | {"step": step}
    before = whom | {"to": f"{now - length:.0f}"}
    summary, earlier, series, tokens, models, pairs, errors = asked_by(whose).several(
        ("/api/stats/summary", whom),
        ("/api/stats/summary", before),
        ("/api/stats/timeseries", steps),
        ("/api/stats/breakdown", steps | {"parts": MODELS}),
        ("/api/stats/models", whom),
        ("/api/stats/pairs", whom),
        ("/api/stats/errors", whom),
    )
    return Told(now, summary, earlier, series, tokens, models["models"], pairs["pairs"], errors["errors"])


def page() -> None:
    """One run."""
    st.set_page_config(layout="wide")
    hosts = look().hosts
    with st.container(horizontal=True, vertical_alignment="center"):
        st.header(t("Metrics"), width="stretch", anchor=False)
        _grafana()
    chosen, every = _toolbar(hosts)
    _needs_database(chosen)
    fragment(every)(live)(chosen)
    requests.section(chosen)


def _needs_database(chosen: requests.Chosen) -> None:
    """Raises GatewayError where there is none: then there is nothing that the page could show, now or later."""
    try:
        told(chosen, person())
    except GatewayError as error:
        if error.keeps_nothing:
            raise


def _grafana() -> None:
    if base := os.environ.get(GRAFANA, "").rstrip("/"):
        with st.popover(t("In Grafana"), icon=":material/monitoring:", type="tertiary"):
            for uid, name in GRAFANA_BOARDS.items():
                st.link_button(name, f"{base}/d/corral-{uid}", type="tertiary", icon=":material/open_in_new:")


def _span(name: str) -> str:
    """``15m``, as it is said; the gateway's own words are English."""
    count, unit = name[:-1], name[-1]
    words = {"m": t("{count}m", count=count), "h": t("{count}h", count=count), "d": t("{count}d", count=count)}
    return words[unit]


def _toolbar(hosts: list[dict[str, Any]]) -> tuple[requests.Chosen, float | None]:
    """What it is about, and how often it is asked for again."""
    outcomes = ["failed", *charts.OUTCOMES]
    words = requests.outcomes()
    with st.container(horizontal=True, vertical_alignment="top"):
        range_ = st.segmented_control(
            t("Time"),
            list(RANGES),
            format_func=_span,
            default="24h",
            key="metrics_range",
            required=True,
            persist_state="session",
        )
        model = st.selectbox(
            t("Model"),
            sorted({row["name"] for host in hosts for row in host["models_available"]}),
            index=None,
            key="metrics_model",
            placeholder=t("All models"),
            persist_state="session",
            width=220,
        )
        host = st.selectbox(
            t("Host"),
            [host["name"] for host in hosts],
            index=None,
            key="metrics_host",
            placeholder=t("All hosts"),
            persist_state="session",
            width=170,
        )
        outcome = st.selectbox(
            t("Outcome"),
            outcomes,
            index=None,
            format_func=lambda code: words.get(code, code),
            key="metrics_outcome",
            placeholder=t("All outcomes"),
            persist_state="session",
            width=170,
        )
        every = st.selectbox(
            t("Refresh"),
            REFRESH,
            index=2,
            format_func=lambda every: t("off") if every is None else seconds(every),
            key="metrics_refresh",
            persist_state="session",
            width=110,
        )
    return requests.Chosen(range_ or "24h", model, host, outcome), every


def live(chosen: requests.Chosen) -> None:
    """What changes by itself."""
    found = told(chosen, person())
    since, until = (local(found.now[name]) for name in ("since", "until"))
    st.caption(
        t("{since} – {until}. Arrows compare with the same time before.", since=moment(since), until=moment(until))
    )
    _numbers(found)
    if not found.now["requests"]:
        st.caption(t("No requests in this time."))
        return
    pictures.section(found.series["points"], found.tokens, found.pairs)
    pictures.models(found.models)


# -- numbers -------------------------------------------------------------------------------------------------------------------


def change(now: float | None, before: float | None) -> float | None:
    """In percent; None where there is nothing to compare with."""
    return round(100 * (now - before) / before) if now is not None and before else None


def elapsed(summary: dict[str, Any], at: float) -> float:
    """Seconds of a summary's time that have passed: sums of whole hours reach into what is to come."""
    since, until = (datetime.fromisoformat(summary[name]).timestamp() for name in ("since", "until"))
    return max(1.0, min(until, at) - since)


def _numbers(found: Told) -> None:
    now, before, points = found.now, found.before, found.series["points"]
    passed, earlier = elapsed(now, found.at), elapsed(before, found.at)

    def counted(name: str) -> float | None:
        return change(now[name] / passed, before[name] / earlier)

    def share(numbers: dict[str, Any]) -> float | None:
        return 100 * numbers["outcomes"].get("ok", 0) / numbers["requests"] if numbers["requests"] else None

    ok, rate, first = share(now), now["tokens_per_second"], now["ttft"]["p50"]
    grid = st.grid(3, min_column_width=150)
    _card(grid, t("Requests"), short(now["requests"]), counted("requests"), [p["requests"] for p in points], "off")
    _card(
        grid,
        t("Succeeded"),
        "–" if ok is None else t("{share}%", share=number(ok, 1)),
        change(ok, share(before)),
        [share(p) for p in points],
    )
    _card(
        grid,
        t("Output tokens"),
        short(now["output_tokens"]),
        counted("output_tokens"),
        pictures.of(points, "output_tokens"),
        "off",
    )
    _card(
        grid,
        t("First token, median"),
        seconds(first),
        change(first, before["ttft"]["p50"]),
        [p["ttft"]["p50"] for p in points],
        "inverse",
    )
    _card(
        grid,
        t("Tokens per second"),
        "–" if rate is None else number(rate, 1),
        change(rate, before["tokens_per_second"]),
        pictures.of(points, "tokens_per_second"),
    )
    _card(
        grid,
        t("Wasted tokens"),
        short(now["wasted_tokens"]),
        counted("wasted_tokens"),
        pictures.of(points, "wasted_tokens"),
        "inverse",
    )


def _card(
    grid: Any, label: str, value: str, delta: float | None, spark: list[float | None], good: str = "normal"
) -> None:
    numbers = [one for one in thinned(spark[:-1]) if one is not None]  # the last step is not over
    grid.metric(
        label,
        value,
        delta if not delta else f"{delta:+.0f}%",
        delta_color=good if delta and abs(delta) >= STEADY_PERCENT else "off",
        border=True,
        height="stretch",
        chart_data=numbers if len(numbers) > 1 and any(numbers) else None,
        chart_type="area",
    )


def thinned(values: list[float | None]) -> list[float | None]:
    """SPARKS of them at most, each the mean of its neighbours."""
    size = -(-len(values) // SPARKS) or 1
    groups = [[one for one in values[at : at + size] if one is not None] for at in range(0, len(values), size)]
    return [sum(group) / len(group) if group else None for group in groups]
