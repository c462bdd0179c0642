"""The fleet as it is now: every host with what it holds and does, what waits, what is amiss. It looks again by itself, every two seconds."""

from datetime import UTC, datetime
from typing import Any

import streamlit as st

from dashboard import markup
from dashboard.edge import fragment
from dashboard.i18n import number, seconds, size, t
from dashboard.state import Look, attempted, gateway, look, tell_failure
from dashboard.views import explaining, managing

EVERY_SECONDS = 2.0
ROWS = 12
"""So many generations, and so many jobs, are shown at once."""
FOREVER_SECONDS = 10 * 365 * 86400.0


def page() -> None:
    """One run."""
    st.set_page_config(layout="wide")
    hosts = look().hosts
    managing.dialogs(hosts)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.header(t("Fleet"), width="stretch", anchor=False)
        managing.buttons()
    live()
    explaining.section(hosts)


@fragment(every=EVERY_SECONDS)
def live() -> None:
    """What changes by itself."""
    if managing.asked():
        st.rerun()  # dialogs belong to the whole page: here the next look would close them
    tell_failure()
    seen = look()
    _numbers(seen)
    _findings(seen.findings)
    most = max((_held(host) for host in seen.hosts), default=0)
    cards = st.grid(min_column_width=330)
    for host in seen.hosts:
        with cards.container(border=True, gap="xsmall", height="stretch"):
            _host(host, most)
    left, right = st.columns(2, gap="medium")
    with left:
        _running(seen.running)
    with right:
        managing.jobs(seen.jobs)
    _models(seen.hosts)


# -- the whole -----------------------------------------------------------------------------------------------------------------


def _numbers(seen: Look) -> None:
    hosts, running = seen.hosts, seen.running
    well = sum(host["health"] == "healthy" and not host["draining"] for host in hosts)
    taken, slots = sum(host["leases"] for host in hosts), sum(host["slots"] for host in hosts)
    grid = st.grid(5, min_column_width=150, border=True)
    grid.metric(t("Available hosts"), f"{well} / {len(hosts)}")
    grid.metric(t("Slots taken"), f"{taken} / {slots}")
    grid.metric(t("Waiting"), number(sum(row["phase"] == "queued" for row in running)))
    grid.metric(t("Loaded models"), number(sum(len(host["models_loaded"]) for host in hosts)))
    grid.metric(t("VRAM in use"), size(sum(map(_held, hosts))))


def _findings(findings: list[dict[str, Any]]) -> None:
    if not findings:
        return
    kinds = {
        "version_skew": t("Different versions of Ollama"),
        "digest_skew": t("One name, different models"),
        "few_copies": t("On one host only"),
        "context_skew": t("Different context lengths"),
        "ghost_model": t("Listed, but not there"),
    }
    grave = [one for one in findings if one["kind"] != "few_copies"]
    with st.expander(
        t("{n} things to look at", n=len(findings)), expanded=bool(grave), icon=":material/warning:", key="findings"
    ):
        for one in findings:
            facts = ", ".join(filter(None, [one["model"], *one["hosts"]]))
            st.markdown(
                f"**{kinds.get(one['kind'], one['kind'])}** · {markup.plain(facts)}  \n:small[:gray[{markup.said(one['text'])}]]"
            )


# -- one host ------------------------------------------------------------------------------------------------------------------


def _host(host: dict[str, Any], most: int) -> None:
    name = host["name"]
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown(f"**{markup.plain(name)}**", width="content")
        _health(host)
        st.space("stretch")
        managing.ask_button(
            *(("resume", t("Resume")) if host["draining"] else ("drain", t("Drain"))), host=name, key=f"drain_{name}"
        )
    seen = host["seen_seconds_ago"]
    facts = [host["url"].partition("://")[2], host["version"] and f"Ollama {host['version']}", ", ".join(host["tags"])]
    if seen is None:
        facts.append(t("never seen"))
    elif seen > 30:
        facts.append(t("not seen for {value}", value=seconds(seen)))
    else:
        facts.append(t("answers in {value}", value=seconds(host["latency_seconds"])))
    st.caption(markup.plain(" · ".join(fact for fact in facts if fact)))
    if host["why"]:
        st.caption(f":material/error: {markup.said(host['why'])}")
    taken = t("{leases} of {slots} slots taken", leases=host["leases"], slots=host["slots"])
    st.progress(min(1.0, host["leases"] / host["slots"]), text=taken)
    _memory(host, most)
    if host["learned"]:
        with st.expander(t("Learned speeds"), key=f"learned_{name}", type="compact"):
            st.markdown(_learned(host["learned"], host["parallel"], host["slots_configured"]))


def _health(host: dict[str, Any]) -> None:
    words = {
        "healthy": (t("healthy"), "green"),
        "suspect": (t("suspect"), "orange"),
        "ejected": (t("ejected"), "red"),
        "trial": (t("on trial"), "blue"),
    }
    word, color = words.get(host["health"], (host["health"], "gray"))
    st.badge(word, color=color)
    if host["draining"]:
        st.badge(t("draining"), color="violet")


def _held(host: dict[str, Any]) -> int:
    return sum(row.get("size_vram") or 0 for row in host["models_loaded"])


def _memory(host: dict[str, Any], most: int) -> None:
    """A bar for each model, of the host's memory where that is configured, else of what the fullest host holds."""
    held, whole = _held(host), host["vram_bytes"]
    if whole:
        st.caption(t("VRAM: {held} of {whole}", held=size(held), whole=size(whole)))
    elif host["models_loaded"]:
        st.caption(
            t("VRAM: {held}", held=size(held)),
            help=t(
                "The bars compare hosts with each other; with vram_bytes in the configuration they show how full each is."
            ),
        )
    for row in host["models_loaded"]:
        vram = row.get("size_vram") or 0
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            facts = _facts(row, _kept(host, row["name"]))
            st.progress(min(1.0, vram / (whole or most or 1)), text=f"{markup.plain(row['name'])}  \n{facts}")
            managing.ask_button(
                "unload",
                "",
                host=host["name"],
                model=row["name"],
                icon=":material/eject:",
                tip=t("Unload"),
                key=f"unload_{host['name']}_{row['name']}",
            )
    for name in host["models_loading"]:
        if all(row["name"] != name for row in host["models_loaded"]):
            st.caption(f":material/hourglass_top: {t('loads {model}', model=name)}")
    for keep in host["models_kept"]:
        if keep["why"]:
            st.caption(f":material/keep: {t('{model} is to stay here: {why}', **_said(keep, 'model', 'why'))}")
    if not host["models_loaded"] and not host["models_loading"]:
        st.caption(t("No model in memory"))


def _said(row: dict[str, Any], *names: str) -> dict[str, str]:
    return {name: markup.said(row[name]) for name in names}


def _kept(host: dict[str, Any], model: str) -> str:
    """Why a model stays in memory; empty: it does not."""
    kinds = {"pin": t("pinned"), "warm": t("kept warm")}
    return next((kinds[keep["kind"]] for keep in host["models_kept"] if keep["model"] == model.lower()), "")


def _facts(row: dict[str, Any], kept: str) -> str:
    whole, vram = row.get("size") or 0, row.get("size_vram") or 0
    facts = [size(vram), *([kept] if kept else [])]
    if whole > vram:
        facts.append(t("{share}% on the GPU", share=round(100 * vram / whole)))
    if context := row.get("context_length"):
        facts.append(t("context {value}", value=number(context)))
    left = remaining(row.get("expires_at"), datetime.now(UTC))
    if left is not None:
        facts.append(t("stays") if left > FOREVER_SECONDS else t("goes in {value}", value=seconds(max(0.0, left))))
    return " · ".join(facts)


def remaining(expires_at: Any, now: datetime) -> float | None:
    """Seconds until then; None where the host did not say."""
    try:
        return (datetime.fromisoformat(str(expires_at)) - now).total_seconds() if expires_at else None
    except (ValueError, TypeError, OverflowError):
        return None


def _learned(rows: list[dict[str, Any]], parallel: dict[str, int], configured: int) -> str:
    """A table."""
    head = [t("Model"), t("Load"), t("Prompt"), t("Answer"), t("At once")]
    lines = [head, ["---", *["---:"] * 4]]
    for row in rows:
        rates = [row["prefill_tokens_per_second"], row["decode_tokens_per_second"]]
        shown = [t("{value} tokens/s", value=number(rate)) if rate else "–" for rate in rates]
        at_once = str(parallel.get(row["model"], configured or 1))
        lines.append([markup.plain(row["model"]), seconds(row["load_seconds"]), *shown, at_once])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


# -- what runs, what there is --------------------------------------------------------------------------------------------------


def _running(rows: list[dict[str, Any]]) -> None:
    st.subheader(t("In flight"), anchor=False)
    if not rows:
        st.caption(t("Nothing runs, nobody waits."))
    phases = {
        "queued": t("waits for a slot"),
        "connecting": t("connects"),
        "prefill": t("reads or loads"),
        "streaming": t("answers"),
        "done": t("hands over"),
    }
    for row in rows[:ROWS]:
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            facts = [row["host"] or "", phases.get(row["phase"], row["phase"]), seconds(row["age_seconds"])]
            if row["tokens"]:
                facts.append(t("{n} tokens", n=row["tokens"]))
            line = f"{markup.plain(row['model'])}  \n:small[:gray[{' · '.join(fact for fact in facts if fact)}]]"
            st.markdown(line, width="stretch")
            st.button(
                t("Stop"),
                key=f"stop_{row['id']}",
                type="tertiary",
                icon=":material/stop:",
                on_click=attempted,
                args=(gateway().delete, f"/api/generations/{row['id']}"),
            )
    if len(rows) > ROWS:
        st.caption(t("and {n} more", n=len(rows) - ROWS))


def _models(hosts: list[dict[str, Any]]) -> None:
    """Which model is where. A short digest stands where one name is several models."""
    st.subheader(t("Models"), anchor=False)
    known: dict[str, dict[str, Any]] = {}
    digests: dict[str, set[str]] = {}
    for host in hosts:
        for row in host["models_available"]:
            known.setdefault(row["name"], row)
            digests.setdefault(row["name"], set()).add(row.get("digest") or "")
    if not known:
        st.caption(t("No models"))
        return
    rows = []
    for name, row in sorted(known.items()):
        details = row.get("details") or {}
        facts = [details.get("parameter_size"), details.get("quantization_level")]
        told = {t("Model"): name, t("Size"): size(row.get("size") or 0), t("Kind"): " ".join(filter(None, facts))}
        rows.append(told | {host["name"]: _place(host, name, several=len(digests[name]) > 1) for host in hosts})
    st.dataframe(rows, hide_index=True, key="models")


def _place(host: dict[str, Any], name: str, *, several: bool) -> str:
    found = next((row for row in host["models_available"] if row["name"] == name), None)
    if found is None:
        return ""
    if any(row["name"] == name for row in host["models_loaded"]):
        word = t("in memory")
    else:
        word = t("loading") if name in host["models_loading"] else t("on disk")
    return f"{word} · {found.get('digest', '')[:7]}" if several else word
