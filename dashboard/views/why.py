"""Why an answer came from the host that it came from: what each host would have cost, in seconds, as it was when the host was chosen."""

from typing import Any

import streamlit as st

from dashboard import refused
from dashboard.gateway import GatewayError
from dashboard.i18n import number, seconds, t
from dashboard.markup import plain
from dashboard.state import gateway


def told(row: dict[str, Any]) -> None:
    """Of a message that a generation answered."""
    try:
        request = gateway().get(f"/api/requests/{row['generation']}")
    except GatewayError as error:
        st.caption(refused.told(error))
        return
    st.markdown(f"**{_reason(request)}**")
    detail = request["detail"] or {}
    if costs := detail.get("costs"):
        st.table(_table(costs), border="horizontal")
    for left_out in detail.get("rejected") or ():
        st.caption(f"{left_out['host']}: {plain(left_out['why'])}")
    if request["predicted_seconds"] is not None and request["ttft_seconds"] is not None:
        predicted, took = seconds(request["predicted_seconds"]), seconds(request["ttft_seconds"])
        st.caption(t("First token: {predicted} predicted, {took} measured.", predicted=predicted, took=took))
    if request["attempts"] > 1:
        st.caption(t("Tried on hosts: {count}", count=request["attempts"]))


def _reason(request: dict[str, Any]) -> str:
    reasons = {
        "only_candidate": t("Only this host could take it."),
        "affinity": t("It has this chat in its cache."),
        "loaded": t("It has the model loaded."),
        "least_busy": t("It is the least busy."),
        "pinned": t("You chose it."),
        "cold_load": t("It will have loaded the model soonest."),
        "fallback": t("All hosts are ejected; this is the best of them."),
    }
    return reasons.get(request["route_reason"] or "", t("No host was chosen."))


def _table(costs: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Columns: the host, the seconds that it would have taken, and what they are made of, but for what is nothing everywhere."""
    parts = {
        t("total"): "total",
        t("queue"): "queue_wait",
        t("loading"): "load_time",
        t("reading"): "prefill",
        t("cache"): "affinity",
        t("failures"): "penalty",
        t("others wait"): "harm",
        t("answers slowly"): "decode",
    }
    shown = {name: part for name, part in parts.items() if any(round(cost.get(part, 0.0), 2) for cost in costs)}
    table = {t("Host"): [str(cost["host"]) for cost in costs]}
    return table | {name: [number(cost.get(part, 0.0), 2) for cost in costs] for name, part in shown.items()}
