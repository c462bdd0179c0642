"""The page of the fleet: its logic by Streamlit's own tester, its main path in a browser."""

import json
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from playwright.sync_api import BrowserContext
from streamlit.testing.v1 import AppTest

from dashboard import state
from dashboard.gateway import URL, Gateway
from dashboard.markup import plain
from dashboard.views.fleet import remaining
from tests.dashboard.patience import expect

MODEL, NEW = "llama3.2:1b", "qwen2.5:0.5b"
View = Callable[..., AppTest]


def until(true: Callable[[], Any]) -> Any:
    """What it says, once it is anything."""
    for _ in range(400):
        if found := true():
            return found
        time.sleep(0.02)
    raise AssertionError("it never came")


def host(gateway: Gateway, name: str) -> dict[str, Any]:
    """A host's row."""
    return next(row for row in gateway.get("/api/fleet")["hosts"] if row["name"] == name)


def shown(at: AppTest) -> str:
    """All that is written there."""
    return "\n".join(str(one.value) for one in (*at.markdown, *at.caption, *at.warning))


def loaded(gateway: Gateway, name: str) -> list[str]:
    """What a host has in memory."""
    return [row["name"] for row in host(gateway, name)["models_loaded"]]


def emptied(gateway: Gateway) -> None:
    """Nothing is in memory anywhere."""
    for one in gateway.get("/api/fleet")["hosts"]:
        for row in one["models_loaded"]:
            gateway.post(
                "/api/generate", {"model": row["name"], "keep_alive": 0}, headers={"X-Corral-Host": one["name"]}
            )
    until(lambda: not any(one["models_loaded"] for one in gateway.get("/api/fleet")["hosts"]))


def test_what_it_shows(view: View, gateway: Gateway) -> None:
    """Every host, how it is, what it holds and how fast it was; what is where."""
    emptied(gateway)
    gateway.post(
        "/api/generate",
        {"model": MODEL, "prompt": "why", "options": {"num_predict": 3}, "stream": False},
        headers={"X-Corral-Host": "sim1"},
    )
    until(lambda: host(gateway, "sim1")["models_loaded"][0]["expires_at"])  # a poll has seen it
    at = view("fleet")
    assert not at.exception
    assert [metric.value for metric in at.metric][:3] == ["3 / 3", "0 / 3", "0"]
    assert {"**sim1**", "**sim2**", "**sim3**"} <= {one.value for one in at.markdown}
    assert any(plain(MODEL) in bar.text and "goes in" in bar.text for bar in at.progress)
    assert "tokens/s" in shown(at)
    table = at.dataframe[0].value
    assert table[table["Model"] == MODEL]["sim1"].item() == "in memory"
    assert table[table["Model"] == MODEL]["sim2"].item() == "on disk"


def test_load_and_unload(view: View, gateway: Gateway) -> None:
    """A model comes to the host that was chosen, and goes again after a second question."""
    emptied(gateway)
    at = view("fleet")
    at.button(key="ask_load").click().run()
    at.selectbox(key="load_model").set_value("smollm2:135m")
    at.selectbox(key="load_host").set_value("sim3")
    at.button(key="load_now").click().run()
    assert [toast.value for toast in at.toast] == ["It is being loaded."]
    until(lambda: "smollm2:135m" in loaded(gateway, "sim3"))
    state.look_anew()
    at.run()
    at.button(key="unload_sim3_smollm2:135m").click().run()
    assert "smollm2:135m" in loaded(gateway, "sim3")
    at.button(key="confirmed").click().run()
    assert not at.exception
    assert loaded(gateway, "sim3") == []


def test_drain_and_resume(view: View, gateway: Gateway) -> None:
    """Nothing happens before the second click."""
    at = view("fleet")
    at.button(key="drain_sim2").click().run()
    assert not host(gateway, "sim2")["draining"]
    at.button(key="confirmed").click().run()
    assert host(gateway, "sim2")["draining"]
    assert at.metric[0].value == "2 / 3"
    assert [toast.value for toast in at.toast] == ["sim2 takes no new requests."]
    at.button(key="drain_sim2").click().run()
    at.button(key="confirmed").click().run()
    assert not host(gateway, "sim2")["draining"]


def test_pull_and_delete(view: View, gateway: Gateway) -> None:
    """A pull runs by itself on the hosts that were named; a delete takes it from all that have it."""
    at = view("fleet")
    at.button(key="ask_pull").click().run()
    at.text_input(key="pull_model").set_value(NEW)
    at.multiselect(key="pull_hosts").set_value(["sim1", "sim3"])
    at.button(key="pull_now").click().run()
    job = gateway.get("/api/jobs")["jobs"][-1]
    assert [part["host"] for part in job["hosts"]] == ["sim1", "sim3"]
    until(lambda: gateway.get(f"/api/jobs/{job['id']}")["outcome"] == "succeeded")
    state.look_anew()
    at.run()
    assert f"pull **{plain(NEW)}**" in shown(at)
    at.button(key="ask_delete").click().run()
    at.selectbox(key="delete_model").set_value(NEW)
    at.button(key="delete_now").click().run()
    assert not at.exception
    assert all(
        NEW not in {row["name"] for row in one["models_available"]} for one in gateway.get("/api/fleet")["hosts"]
    )


def test_a_pull_that_fails(view: View, gateway: Gateway) -> None:
    """Each host says why."""
    at = view("fleet")
    at.button(key="ask_pull").click().run()
    at.text_input(key="pull_model").set_value("not a name!")
    at.button(key="pull_now").click().run()
    until(lambda: gateway.get("/api/jobs")["jobs"][-1]["outcome"] == "failed")
    state.look_anew()
    at.run()
    assert "sim1: invalid model name" in shown(at)


def test_what_the_gateway_refuses(view: View, gateway: Gateway) -> None:
    """Is told in its words, and the page goes on."""
    gateway.post("/api/copy", {"source": MODEL, "destination": "short-lived"})
    at = view("fleet")
    at.button(key="ask_load").click().run()
    at.selectbox(key="load_model").set_value("short-lived:latest")
    gateway.delete("/api/delete", {"model": "short-lived"})
    at.button(key="load_now").click().run()
    assert not at.exception
    assert "not found" in at.toast[0].value


def test_stop_what_runs(view: View, gateway: Gateway) -> None:
    """By its button; who waits is told of."""
    body = {"model": MODEL, "prompt": "why", "options": {"num_predict": 2000}}
    ids = [gateway.post("/api/generate", body, headers={"X-Corral-Host": "sim1"}, detach=True)["id"] for _ in range(2)]
    state.look_anew()
    at = view("fleet")
    assert at.metric[2].value == "1"
    assert "waits for a slot" in shown(at)
    for id_ in ids:
        at.button(key=f"stop_{id_}").click().run()
    until(lambda: gateway.get("/api/generations")["generations"] == [])


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"model": MODEL, "prompt": "hello"}, "It would go to"),
        ({"model": "nobody-has-this", "prompt": "hello"}, "No host could take it."),
        ({"prompt": "hello"}, "model"),
        ("{", "This is not JSON"),
    ],
)
def test_the_route(view: View, request_: Any, said: str) -> None:
    """Told with what each host would cost, or why there is none."""
    at = view("fleet")
    at.text_area(key="explain_body").set_value(request_ if isinstance(request_, str) else json.dumps(request_))
    at.button(key="explain_now").click().run()
    assert not at.exception
    assert said in shown(at)


def test_the_parts_are_the_sum(view: View) -> None:
    """In seconds of two decimals, headings alike; what is nothing everywhere is left out."""
    at = view("fleet")
    at.text_area(key="explain_body").set_value(json.dumps({"model": MODEL, "prompt": "hello " * 900}))
    at.button(key="explain_now").click().run()
    table = next(frame.value for frame in at.dataframe if "In all, s" in frame.value)
    parts = [name for name in table if name.endswith(", s") and name != "In all, s"]
    assert "Answers slowly, s" in parts
    assert all(name[0].isupper() for name in table)
    for _, row in table.iterrows():
        assert abs(row["In all, s"] - sum(row[name] for name in parts)) <= 0.005 * (len(parts) + 1)
        assert all(row[name] == round(row[name], 2) for name in parts)


def test_a_request_at_one_host(view: View) -> None:
    """The others say that they were not meant."""
    at = view("fleet")
    at.text_area(key="explain_body").set_value(json.dumps({"model": MODEL, "prompt": "hello"}))
    at.selectbox(key="explain_host").set_value("sim2")
    at.selectbox(key="explain_path").set_value("/api/generate")
    at.button(key="explain_now").click().run()
    assert "**sim2**: the request names it" in shown(at)
    assert sum(":material/block:" in one.value for one in at.caption) == 2


def test_the_gateway_goes_away(view: View, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look that finds nobody says so; the next one may find somebody."""
    monkeypatch.setenv(URL, "http://127.0.0.1:9")
    at = AppTest.from_string("from dashboard.views import fleet\nfleet.live()").run()
    assert not at.exception
    assert at.warning[0].value.startswith("The gateway does not answer.")


@pytest.mark.parametrize(
    ("told", "left"),
    [
        ("2026-01-01T00:01:00.123456789Z", 60.123456),
        ("2026-01-01T01:01:00+01:00", 60.0),
        ("2318-01-01T00:00:00Z", 9214560000.0),
        ("2025-12-31T23:59:00Z", -60.0),
        ("soon", None),
        ("2026-01-01T00:01:00", None),
        (None, None),
    ],
)
def test_remaining(told: Any, left: float | None) -> None:
    """Of what hosts write; nothing where they write something else."""
    assert remaining(told, datetime(2026, 1, 1, tzinfo=UTC)) == left


def test_in_a_browser(context: BrowserContext, gateway: Gateway) -> None:
    """A pull with its bars, a drain, an explanation; and the page looks again by itself."""
    page = context.new_page()
    page.goto("/fleet")
    expect(page.get_by_text("sim3", exact=True).first).to_be_visible()
    page.get_by_role("button", name="Pull").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("textbox", name="Model").fill("llama3.3:70b")
    dialog.get_by_role("button", name="Pull").click()
    expect(dialog).to_have_count(0)
    expect(page.get_by_text(re.compile(r"sim2 · pulling")).first).to_be_visible()
    page.get_by_role("button", name="Drain", exact=True).nth(1).click()
    expect(dialog).to_contain_text("sim2")
    dialog.get_by_role("button", name="Drain").click()
    expect(page.get_by_text("draining", exact=True)).to_be_visible()
    assert host(gateway, "sim2")["draining"]
    gateway.post("/api/hosts/sim2/resume")
    expect(page.get_by_text("draining", exact=True)).to_have_count(0)
    page.get_by_role("button", name="Explain").click()
    expect(page.get_by_test_id("stPlotlyChart")).to_be_visible()
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_text("stopped", exact=True).first).to_be_visible()
    until(lambda: all(job["outcome"] for job in gateway.get("/api/jobs")["jobs"]))
    assert {job["outcome"] for job in gateway.get("/api/jobs")["jobs"] if job["model"] == "llama3.3:70b"} == {"stopped"}


def test_what_is_to_stay() -> None:
    """What is pinned or kept warm says so, whatever the case in which the host names it; what is not there says why."""

    def page() -> None:
        from dashboard.views.fleet import _memory  # noqa: PLC0415 - the tester takes this function's source

        rows = [{"name": name, "size": 1, "size_vram": 1} for name in ("LLaMA3:8b", "m:1b", "other:1b")]
        keeps = [
            {"model": "llama3:8b", "kind": "pin", "state": "loaded", "why": ""},
            {"model": "m:1b", "kind": "warm", "state": "loaded", "why": ""},
            {"model": "gone:1b", "kind": "pin", "state": "failed", "why": "there is no room"},
        ]
        _memory({"name": "gpu1", "vram_bytes": 0, "models_loaded": rows, "models_loading": [], "models_kept": keeps}, 1)

    at = AppTest.from_function(page).run()
    assert not at.exception
    bars = [bar.text for bar in at.progress]
    assert [("pinned" in text, "kept warm" in text) for text in bars] == [(True, False), (False, True), (False, False)]
    assert ":material/keep: gone:1b is to stay here: there is no room" in [one.value for one in at.caption]
