"""Single requests of a time, what went wrong first, and one with all that explains it."""

from typing import Any, NamedTuple

import streamlit as st

from dashboard import charts, markup, refused
from dashboard.edge import fragment
from dashboard.gateway import GatewayError
from dashboard.i18n import capital, local, number, seconds, t
from dashboard.state import gateway
from dashboard.views import explaining
from dashboard.views.tables import NUMBER

PAGE, MOST = 50, 500


class Chosen(NamedTuple):
    """What the page is about; None: all."""

    range: str
    model: str | None = None
    host: str | None = None
    outcome: str | None = None

    def query(self) -> dict[str, Any]:
        """As the gateway is asked."""
        return self._asdict()


def outcomes() -> dict[str, str]:
    """How a request can end, in words."""
    return {
        "failed": t("all that failed"),
        "ok": t("succeeded"),
        "cancelled": t("cancelled"),
        "client_error": t("client's error"),
        "timeout": t("timed out"),
        "rejected": t("rejected"),
        "no_host": t("no host"),
        "upstream_error": t("host's error"),
        "gateway_error": t("gateway's error"),
    }


def section(chosen: Chosen) -> None:
    """The list, and the one that was chosen in it or by its id."""
    st.subheader(t("Requests"), anchor=False)
    _list(chosen)


def _more() -> None:
    st.session_state["requests_shown"] = min(MOST, st.session_state.get("requests_shown", PAGE) + PAGE)


@fragment()
def _list(chosen: Chosen) -> None:
    with st.container(horizontal=True, vertical_alignment="bottom"):
        everything = st.toggle(t("Also those that succeeded"), key="requests_all", persist_state="session")
        id_ = st.text_input(
            t("Find one by its id"),
            key="request_id",
            placeholder=t("Id of a request (X-Corral-Generation)"),
            label_visibility="collapsed",
            width=320,
        )
        st.button(t("Look again"), key="requests_again", icon=":material/refresh:", type="tertiary")
    try:
        if id_:
            _request(gateway().get(f"/api/requests/{id_.strip()}"))
            return
        limit = st.session_state.get("requests_shown", PAGE)
        query = chosen.query() | {"outcome": chosen.outcome or (None if everything else "failed")}
        found = gateway().get("/api/requests", **query, limit=limit)
    except GatewayError as error:
        st.caption(f":material/error: {refused.told(error)}")
        return
    rows = found["requests"]
    if not rows:
        st.caption(t("Nothing failed in this time.") if not everything else t("No requests in this time."))
        return
    picked = st.dataframe(
        [_row(row) for row in rows],
        hide_index=True,
        key="requests",
        on_select="rerun",
        selection_mode="single-row",
        column_config={
            t("When"): st.column_config.DatetimeColumn(format="DD.MM HH:mm:ss"),
            t("In all, s"): NUMBER,
            t("First token, s"): NUMBER,
            t("Output tokens"): NUMBER,
        },
    )
    if found["next"] and limit < MOST:
        st.button(t("Show earlier requests"), on_click=_more, type="tertiary")
    chosen_rows = picked["selection"]["rows"]
    if chosen_rows and chosen_rows[0] < len(rows):
        _request(rows[chosen_rows[0]])
    else:
        st.caption(t("Choose a row to see what happened."))


def _row(row: dict[str, Any]) -> dict[str, Any]:
    return {
        t("When"): local(row["received_at"]),
        t("Model"): row["model"],
        t("Host"): row["host"] or "–",
        t("Outcome"): outcomes().get(row["outcome"], row["outcome"]),
        t("Reason"): row["reason"],
        t("In all, s"): round(row["duration_seconds"], 2),
        t("First token, s"): None if row["ttft_seconds"] is None else round(row["ttft_seconds"], 2),
        t("Output tokens"): row["output_tokens"],
        t("Endpoint"): row["endpoint"],
    }


def _request(row: dict[str, Any]) -> None:
    """What happened, in the order in which it did, and why so."""
    with st.container(border=True):
        st.markdown(f"**{markup.said(row['model'])}** · {outcomes().get(row['outcome'], row['outcome'])}")
        if row["reason"]:
            st.markdown(markup.said(row["reason"]))
        facts = [row["id"], row["endpoint"], f"HTTP {row['status']}", row["client"], row["session"], row["replica"]]
        st.caption(markup.said(" · ".join(str(fact) for fact in facts if fact)))
        grid = st.grid("auto", min_column_width=130)
        grid.metric(t("Host"), row["host"] or "–")
        grid.metric(t("In all"), seconds(row["duration_seconds"]))
        grid.metric(t("First token"), seconds(row["ttft_seconds"]))
        grid.metric(t("Routing predicted"), seconds(row["predicted_seconds"]))
        grid.metric(t("Tokens"), f"{number(row['input_tokens'])} → {number(row['output_tokens'])}")
        _where_the_time_went(row)
        if row["host"]:
            st.caption(t("{host} was chosen: {why}.", host=row["host"], why=explaining.reason(row["route_reason"])))
        detail = row["detail"] or {}
        attempts = detail.get("attempts") or []
        for number_, attempt in enumerate(attempts, 1):
            facts = [
                t("Attempt {n}", n=str(number_)),
                attempt["host"],
                attempt["outcome"],
                attempt.get("why"),
                seconds(attempt["seconds"]),
            ]
            st.caption(f":material/subdirectory_arrow_right: {markup.said(' · '.join(str(f) for f in facts if f))}")
        explaining.prices(detail.get("costs") or [], key="request_costs")
        explaining.left_out(detail.get("rejected") or [])


def _where_the_time_went(row: dict[str, Any]) -> None:
    known = {
        t("waits for a slot"): row["queue_seconds"],
        t("loads the model"): row["load_seconds"],
        t("reads the prompt"): row["prefill_seconds"],
        t("answers"): row["decode_seconds"],
    }
    rest = max(0.0, row["duration_seconds"] - sum(known.values()))
    parts = {capital(name): [value] for name, value in (known | {t("all else"): rest}).items()}
    st.plotly_chart(charts.costs([""], parts, t("seconds")), key="request_times", config=charts.CONFIG)
