"""What each key has used: of its limits and budgets now, and over time."""

from typing import Any

import streamlit as st

from dashboard import charts, refused
from dashboard.edge import fragment
from dashboard.gateway import GatewayError
from dashboard.i18n import local, moment, number, t
from dashboard.state import gateway

EVERY_SECONDS = 5.0
RANGES = {"24h": "1h", "7d": "6h", "30d": "1d"}
"""How long it is, and from point to point."""
KEYS = 8
"""So many are told apart over time."""


def page() -> None:
    """One run."""
    st.set_page_config(layout="wide")
    st.header(t("Usage"), anchor=False)
    live()
    _over_time()


@fragment(every=EVERY_SECONDS)
def live() -> None:
    """This minute, day and month, and what is left of each limit."""
    told = gateway().get("/api/usage")
    rows = told["keys"]
    if not rows:
        st.caption(t("There are no keys. `corral keys create NAME` makes one."))
        return
    st.dataframe([_key(row) for row in rows], hide_index=True, key="usage_keys")
    limits = [_limit(row["name"], each) for row in rows for each in row["limits"]]
    st.subheader(t("Limits and budgets"), anchor=False)
    if not limits:
        st.caption(t("No key has limits. `corral keys limit NAME --rpm 60` sets one."))
        return
    share = st.column_config.ProgressColumn(format="percent", min_value=0, max_value=1)
    st.dataframe(limits, hide_index=True, key="usage_limits", column_config={t("Used up"): share})
    st.caption(t("Days and months are of UTC. Nothing that runs is cut: the next request is refused."))


def _key(row: dict[str, Any]) -> dict[str, Any]:
    day, month = row["day"], row["month"]
    return {
        t("Key"): row["name"],
        t("Waiting or running"): row["running"],
        t("Requests, last minute"): row["minute_requests"],
        t("Tokens, last minute"): row["minute_tokens"],
        t("Requests today"): day["requests"],
        t("Tokens today"): day["input_tokens"] + day["output_tokens"],
        t("Requests this month"): month["requests"],
        t("Tokens this month"): month["input_tokens"] + month["output_tokens"],
        t("Share of the queue"): number(row["share"], 2),
    }


def _limit(name: str, row: dict[str, Any]) -> dict[str, Any]:
    kinds = {
        "rpm": t("requests a minute"),
        "tpm": t("tokens a minute"),
        "concurrency": t("requests at a time"),
        "day": t("tokens a day"),
        "month": t("tokens a month"),
    }
    return {
        t("Key"): name,
        t("Limit"): kinds.get(row["limit"], row["limit"]),
        t("Used up"): min(1.0, row["used"] / row["quota"]),
        t("Used"): row["used"],
        t("Allowed"): row["quota"],
        t("Left"): row["left"],
        t("Whole again"): moment(local(row["renews_at"])) if row["renews_at"] else "–",
    }


@fragment()
def _over_time() -> None:
    st.subheader(t("Tokens by key"), anchor=False)
    spans = {"24h": t("{count}h", count="24"), "7d": t("{count}d", count="7"), "30d": t("{count}d", count="30")}
    chosen = st.segmented_control(
        t("Time"),
        list(RANGES),
        format_func=spans.__getitem__,
        default="24h",
        key="usage_range",
        required=True,
        persist_state="session",
    )
    asked = {"by": "principal", "range": chosen, "step": RANGES[chosen], "parts": KEYS}
    try:
        found = gateway().get("/api/stats/breakdown", **asked)
    except GatewayError as error:  # where nothing is kept, what is used now can be told all the same
        st.caption(f":material/error: {refused.told(error)}")
        return
    parts = {
        _named(part): [a + b for a, b in zip(part["input_tokens"], part["output_tokens"], strict=True)]
        for part in found["parts"]
    }
    if not parts:
        st.caption(t("No requests in this time."))
        return
    at = [local(one) for one in found["at"]]
    st.plotly_chart(charts.bars(at, parts, t("tokens")), key="chart_keys", config=charts.CONFIG)


def _named(part: dict[str, Any]) -> str:
    if part["rest"]:
        return t("others")
    return part["name"] or t("without a key")
