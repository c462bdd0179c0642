"""What was, in pictures: over time, and by model and host."""

from typing import Any

import streamlit as st

from dashboard import charts
from dashboard.i18n import local, t
from dashboard.views import requests
from dashboard.views.tables import NUMBER


def of(points: list[dict[str, Any]], name: str) -> list[float | None]:
    """One number of each step."""
    return [point[name] for point in points]


def section(points: list[dict[str, Any]], tokens: dict[str, Any], pairs: list[dict[str, Any]]) -> None:
    """All of them, from what the gateway says of each step, of each model over time, of each model on each host."""
    at = [local(point["at"]) for point in points]
    words = requests.outcomes()
    by_outcome = {words[code]: [point["outcomes"].get(code, 0) for point in points] for code in charts.OUTCOMES}
    colors = {words[code]: color for code, color in charts.OUTCOMES.items()}
    by_model = {
        t("others") if part["rest"] else part["name"] or "–": [
            a + b for a, b in zip(part["input_tokens"], part["output_tokens"], strict=True)
        ]
        for part in tokens["parts"]
    }
    events = {t("Cold loads"): of(points, "cold_loads"), t("Cancelled"): of(points, "cancelled")}
    seconds, unit, count = t("seconds"), t("tokens"), t("requests")
    grid = st.grid(2, min_column_width=380)
    _picture(grid, t("Requests by outcome"), "outcomes", charts.bars(at, by_outcome, count, colors))
    _picture(grid, t("Tokens by model"), "tokens", charts.bars([local(one) for one in tokens["at"]], by_model, unit))
    _picture(grid, t("Time to the first token"), "ttft", charts.lines(at, _percentiles(points, "ttft"), seconds))
    _picture(
        grid, t("Duration of what succeeded"), "duration", charts.lines(at, _percentiles(points, "duration"), seconds)
    )
    waits = {t("on average"): of(points, "queue_seconds")}
    _picture(grid, t("Wait for a slot"), "queue", charts.lines(at, waits, seconds))
    _picture(grid, t("Cold loads and cancellations"), "events", charts.bars(at, events, count))
    wasted = {t("Wasted tokens"): of(points, "wasted_tokens")}
    _picture(grid, t("Wasted tokens"), "wasted", charts.bars(at, wasted, unit))
    rates = {(row["model"], row["host"]): row["tokens_per_second"] for row in pairs if row["tokens_per_second"]}
    if rates:
        models, hosts = (sorted({pair[side] for pair in rates}) for side in (0, 1))
        _picture(grid, t("Tokens per second"), "rates", charts.heat(hosts, models, rates, t("tokens/s")))


def _picture(grid: Any, title: str, key: str, figure: Any) -> None:
    with grid.container(border=True, gap="small"):
        st.markdown(f"**{title}**")
        if not figure.data:  # axes of nothing would show numbers that nobody measured
            st.caption(t("Nothing in this time."))
            return
        st.plotly_chart(figure, key=f"chart_{key}", config=charts.CONFIG)


def _percentiles(points: list[dict[str, Any]], name: str) -> dict[str, list[float | None]]:
    return {share: [point[name][share] for point in points] for share in ("p50", "p95", "p99")}


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def models(rows: list[dict[str, Any]]) -> None:
    """A row for each model."""
    st.subheader(t("Models"), anchor=False)
    table = [
        {
            t("Model"): row["model"],
            t("Requests"): row["requests"],
            t("Failed"): row["requests"] - row["outcomes"].get("ok", 0),
            t("Input tokens"): row["input_tokens"],
            t("Output tokens"): row["output_tokens"],
            t("Wasted tokens"): row["wasted_tokens"],
            t("Tokens per second"): _rounded(row["tokens_per_second"], 1),
            t("First token p50, s"): _rounded(row["ttft"]["p50"], 2),
            t("First token p95, s"): _rounded(row["ttft"]["p95"], 2),
            t("Duration p50, s"): _rounded(row["duration"]["p50"], 2),
            t("Duration p95, s"): _rounded(row["duration"]["p95"], 2),
            t("Cold loads"): row["cold_loads"],
        }
        for row in rows
    ]
    columns = dict.fromkeys(list(table[0])[1:], NUMBER) if table else {}
    st.dataframe(table, hide_index=True, key="metrics_models", column_config=columns)
