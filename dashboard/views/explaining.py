"""Where a request would go, and why: asked of the gateway, which sends nothing."""

import json
from typing import Any

import streamlit as st

from dashboard import charts, markup, refused
from dashboard.gateway import GatewayError
from dashboard.i18n import capital, seconds, t
from dashboard.state import gateway
from dashboard.views.tables import NUMBER

ENDPOINTS = ["/api/chat", "/api/generate", "/api/embed", "/v1/chat/completions", "/v1/responses", "/v1/messages"]
COSTS = ("queue_wait", "load_time", "prefill", "affinity", "penalty", "harm", "decode")
"""What the sum is made of, by which hosts compare."""


def _ask() -> None:
    """The answer, or why there is none; both are shown until the next one."""
    state = st.session_state
    state["_explained"] = state["_unexplained"] = None
    try:
        body = json.loads(state["explain_body"])
    except ValueError as error:
        state["_unexplained"] = t("This is not JSON: {why}", why=error)
        return
    headers = {"X-Corral-Host": state["explain_host"]} if state["explain_host"] else {}
    try:
        state["_explained"] = gateway().post(
            "/api/route/explain", body, headers=headers, path=state["explain_path"] or None
        )
    except GatewayError as error:
        state["_unexplained"] = refused.told(error)


def section(hosts: list[dict[str, Any]]) -> None:
    """The question, and the last answer."""
    st.subheader(t("Where would a request go?"), anchor=False)
    st.caption(t("Paste the body of a request. Nothing is sent to a host."))
    held = [row["name"] for kind in ("models_loaded", "models_available") for host in hosts for row in host[kind]]
    example = f'{{"model": "{held[0] if held else "llama3.2:1b"}", "messages": [{{"role": "user", "content": "Why is the sky blue?"}}]}}'
    with st.form("explain", border=False):
        st.text_area(
            t("Request"),
            example,
            key="explain_body",
            height=120,
            label_visibility="collapsed",
            persist_state="session",
        )
        with st.container(horizontal=True, vertical_alignment="bottom"):
            st.selectbox(
                t("Endpoint"), ENDPOINTS, index=None, key="explain_path", placeholder=t("guessed from the request")
            )
            st.selectbox(
                t("Host"), [host["name"] for host in hosts], index=None, key="explain_host", placeholder=t("Best host")
            )
            st.form_submit_button(t("Explain"), key="explain_now", type="primary", on_click=_ask)
    if why := st.session_state.get("_unexplained"):
        st.warning(why, icon=":material/error:")
    if told := st.session_state.get("_explained"):
        _answer(told)


def _answer(told: dict[str, Any]) -> None:
    asked = told["request"]
    if told["host"]:
        st.markdown(
            t(
                "It would go to **{host}**: {why}. First token after about {value}.",
                host=told["host"],
                why=reason(told["reason"]),
                value=seconds(told["predicted_seconds"]),
            )
        )
    else:
        st.markdown(t("No host could take it."))
    facts = [asked["endpoint"], asked["model"], t("{n} tokens", n=asked["prompt_tokens"])]
    facts += [f"{name}={value}" for name, value in asked["runner_options"].items()]
    st.caption(markup.plain(" · ".join(facts)))
    prices(told["costs"], key="explained")
    left_out(told["rejected"])


def prices(rows: list[dict[str, Any]], *, key: str) -> None:
    """What each host would have cost, as a picture and in numbers; nothing where there are none."""
    if not rows:
        return
    words = {
        "queue_wait": t("waits for a slot"),
        "load_time": t("loads the model"),
        "prefill": t("reads the prompt"),
        "affinity": t("has it cached"),
        "penalty": t("failed lately"),
        "harm": t("others wait"),
        "decode": t("answers slowly"),
    }
    parts = {capital(words[name]): [row.get(name, 0.0) for row in rows] for name in COSTS}
    figure = charts.costs([row["host"] for row in rows], parts, t("seconds"))
    st.plotly_chart(figure, key=key, config=charts.CONFIG)
    table = [
        {t("Host"): row["host"], t("In all, s"): round(row["total"], 2)}
        | {f"{name}, {t('s')}": round(values[place], 2) for name, values in parts.items() if any(values)}
        | ({t("Slots taken"): f"{row['leases']} / {row['slots']}"} if "slots" in row else {})
        for place, row in enumerate(rows)
    ]
    columns = {name: NUMBER for name, value in table[0].items() if isinstance(value, float)}
    st.dataframe(table, hide_index=True, key=f"{key}_rows", column_config=columns)


def left_out(rows: list[dict[str, Any]]) -> None:
    """Hosts that could not have taken it, and why."""
    for row in rows:
        st.caption(f":material/block: {row['host']}: {markup.said(row['why'])}")


def reason(code: str | None) -> str:
    """Why a host was chosen, in words."""
    words = {
        "affinity": t("the conversation is in its cache"),
        "cold_load": t("it loads the model soonest"),
        "fallback": t("all others failed"),
        "least_busy": t("it is the least busy"),
        "loaded": t("it has the model in memory"),
        "only_candidate": t("no other host can take it"),
        "pinned": t("the request names it"),
    }
    return words.get(code or "", code or "–")
