"""The page of what was: its logic by Streamlit's own tester, its main path in a browser."""

import itertools
import json
import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import BrowserContext
from streamlit.testing.v1 import AppTest

from dashboard import charts, state
from dashboard.gateway import GRAFANA, URL, Gateway, GatewayError
from dashboard.views.metrics import SPARKS, change, elapsed, thinned
from tests.dashboard.conftest import Demo
from tests.dashboard.patience import expect

MODEL = "llama3.2:1b"
View = Callable[..., AppTest]
SHOWN = """document.querySelectorAll("[data-testid=stPlotlyChart]").length + [...document.querySelectorAll("[data-testid=stCaptionContainer]")]
.filter(one => one.innerText === "Nothing in this time.").length === 8"""
"""Each of the eight has its picture, or says that there is nothing to show."""


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway of its own that has answered twice and once could not, and has written that down."""
    demo = Demo(tmp_path_factory.mktemp("busy"))
    gateway = Gateway(demo.url)
    body = {"model": MODEL, "prompt": "why", "options": {"num_predict": 3}, "stream": False}
    for _ in range(2):
        gateway.post("/api/generate", body, headers={"X-Corral-Host": "sim1"})
    with pytest.raises(GatewayError):
        gateway.post("/api/generate", body | {"model": "nobody-has-this"})
    for _ in range(400):
        if gateway.get("/api/stats/summary")["requests"] == 3:
            break
        time.sleep(0.02)
    yield gateway
    gateway.close()
    demo.stop()


@pytest.fixture
def view(view: View, busy: Gateway, monkeypatch: pytest.MonkeyPatch) -> View:
    """A page before that gateway."""
    monkeypatch.setenv(URL, busy.url)
    return view


def shown(at: AppTest) -> str:
    """All that is written there."""
    return "\n".join(str(one.value) for one in (*at.markdown, *at.caption, *at.warning))


def table(at: AppTest, column: str) -> Any:
    """The table that has the column."""
    return next(frame.value for frame in at.dataframe if column in frame.value)


def metric(at: AppTest, label: str) -> str:
    """A number's text."""
    return next(str(one.value) for one in at.metric if one.label == label)


def test_the_numbers(view: View, busy: Gateway) -> None:
    """As the gateway tells them; a picture for each kind of them; what failed is listed."""
    at = view("metrics")
    assert not at.exception
    assert (metric(at, "Requests"), metric(at, "Output tokens")) == ("3", "6")
    assert metric(at, "Succeeded") == "66.7%"
    assert len(at.get("plotly_chart")) >= 6
    nothing = shown(at).count("Nothing in this time.")  # of tokens that were wasted, for one
    assert nothing
    assert len(at.get("plotly_chart")) + nothing == 8
    models = table(at, "Cold loads")
    assert sorted(zip(models["Model"], models["Requests"], models["Failed"], strict=True)) == [
        ("_unknown", 1, 1),
        (MODEL, 2, 0),
    ]
    assert list(table(at, "Reason")["Outcome"]) == ["client's error"]


def test_filters(view: View, busy: Gateway) -> None:
    """Each of them reaches the gateway, for the numbers and for the list."""
    at = view("metrics")
    at.selectbox(key="metrics_host").set_value("sim1").run()
    assert (metric(at, "Requests"), metric(at, "Succeeded")) == ("2", "100%")
    assert "Nothing failed in this time." in shown(at)
    at.selectbox(key="metrics_model").set_value("smollm2:135m").run()
    assert "No requests in this time." in shown(at)
    assert not at.get("plotly_chart")
    at = view("metrics")
    at.selectbox(key="metrics_outcome").set_value("failed").run()
    assert metric(at, "Requests") == "1"
    at.segmented_control(key="metrics_range").set_value("15m").run()
    assert not at.exception
    assert metric(at, "Requests") == "1"


def test_all_requests(view: View, busy: Gateway) -> None:
    """Those that succeeded are listed where that is wanted."""
    at = view("metrics")
    at.toggle(key="requests_all").set_value(True).run()
    assert list(table(at, "Reason")["Outcome"]) == ["client's error", "succeeded", "succeeded"]


def test_one_request(view: View, busy: Gateway) -> None:
    """Found by its id: where its time went, and why it went where it did."""
    rows = {row["outcome"]: row for row in busy.get("/api/requests")["requests"]}
    at = view("metrics")
    at.text_input(key="request_id").set_value(rows["ok"]["id"]).run()
    assert not at.exception
    assert "sim1 was chosen: the request names it." in shown(at)
    assert (metric(at, "Host"), metric(at, "Tokens").endswith("→ 3")) == ("sim1", True)
    at.text_input(key="request_id").set_value(rows["client_error"]["id"]).run()
    assert not at.exception
    assert "client's error" in shown(at)
    assert rows["client_error"]["reason"] in shown(at)
    at.text_input(key="request_id").set_value("nobody").run()
    assert "no request" in shown(at)


def test_the_gateway_goes_away(view: View, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look that finds nobody says so; the next one may find somebody."""
    monkeypatch.setenv(URL, "http://127.0.0.1:9")
    at = AppTest.from_string(
        "from dashboard.edge import fragment\nfrom dashboard.views import metrics, requests\n"
        'fragment()(metrics.live)(requests.Chosen("24h"))'
    ).run()
    assert not at.exception
    assert at.warning[0].value.startswith("The gateway does not answer.")


def test_it_is_not_asked_again(view: View, busy: Gateway) -> None:
    """Where that is wanted."""
    at = view("metrics", "ru")
    at.selectbox(key="metrics_refresh").set_value(None).run()
    assert not at.exception
    assert metric(at, "Запросы") == "3"
    spans = at.segmented_control(key="metrics_range").options
    assert [option if isinstance(option, str) else option.content for option in spans][:4] == [
        "15 мин",
        "1 ч",
        "6 ч",
        "24 ч",
    ]


def test_grafana(view: View, busy: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its dashboards are linked where one is told of."""
    assert not view("metrics").link_button
    monkeypatch.setenv(GRAFANA, "http://grafana:3000/")
    links = {link.label: link.url for link in view("metrics").link_button}
    assert links["Models"] == "http://grafana:3000/d/corral-models"
    known = (Path(state.__file__).parent.parent / "grafana" / "out").glob("*.json")
    uids = {json.loads(path.read_text(encoding="utf-8"))["uid"] for path in known}
    assert {link.rsplit("/", 1)[1] for link in links.values()} <= uids


@pytest.mark.parametrize(
    ("now", "before", "percent"),
    [(110, 100, 10), (0, 100, -100), (5, 0, None), (None, 1, None), (1, None, None), (1, 1, 0)],
)
def test_change(now: float | None, before: float | None, percent: float | None) -> None:
    """Against nothing there is no change."""
    assert change(now, before) == percent


def test_elapsed() -> None:
    """What is still to come of an hour has not passed; a moment has."""
    summary = {"since": "2026-01-01T00:00:00+00:00", "until": "2026-01-01T02:00:00+00:00"}
    began = datetime.fromisoformat(summary["since"]).timestamp()
    assert [elapsed(summary, began + passed) for passed in (5400, 9000, 0)] == [5400, 7200, 1.0]


@pytest.mark.parametrize("count", [0, 1, SPARKS, SPARKS + 1, 200])
def test_thinned(count: int) -> None:
    """No more than a card has room for; gaps stay gaps."""
    values: list[float | None] = [float(number) for number in range(count)]
    found = thinned(values)
    assert len(found) == min(count, len(found)) <= SPARKS
    assert thinned([None] * count) == [None] * len(found)
    assert all(a < b for a, b in itertools.pairwise(found) if a is not None and b is not None)


def test_pictures() -> None:
    """Nothing is painted of what is nothing; outcomes have their colours; a gap is a gap."""
    at = [datetime(2026, 1, day, tzinfo=UTC) for day in (1, 2, 3)]
    bars = charts.bars(at, {"a": [1, 2, 3], "b": [0, 0, 0]}, "n", {"a": "#123456"})
    assert [(trace.name, trace.marker.color) for trace in bars.data] == [("a", "#123456")]
    assert bars.layout.xaxis.tickformat == "%d.%m"
    (line,) = charts.lines(at[:2], {"p50": [None, 1.0], "p95": [None, None]}, "s").data
    assert (line.name, line.y) == ("p50", (None, 1.0))
    (heat,) = charts.heat(["h1", "h2"], ["m"], {("m", "h2"): 5.0}, "tokens/s").data
    assert [list(row) for row in heat.z] == [[None, 5.0]]
    assert (heat.zmin, heat.zmax) == (0, 5.0)
    costs = charts.costs(["a", "b"], {"wait": [1.0, 2.0], "load": [0.0, 0.0]}, "s")
    assert [trace.name for trace in costs.data] == ["wait"]


def test_in_a_browser(context: BrowserContext, gateway: Gateway) -> None:
    """Pictures, another range, a row that is chosen and explained."""
    body = {"model": MODEL, "prompt": "why", "options": {"num_predict": 3}, "stream": False}
    gateway.post("/api/generate", body)
    with pytest.raises(GatewayError):
        gateway.post("/api/generate", body | {"model": "nobody-has-this"})
    while [row["outcome"] for row in gateway.get("/api/requests", limit=1)["requests"]] != ["client_error"]:
        time.sleep(0.02)
    page = context.new_page()
    page.goto("/metrics")
    expect(page.get_by_text("Requests by outcome")).to_be_visible()
    expect(page.get_by_text("Tokens per second").last).to_be_visible()
    page.get_by_role("radio", name="1h").click()
    count = gateway.get("/api/stats/summary")["requests"]
    expect(page.get_by_test_id("stMetricValue").first).to_have_text(str(count))
    expect(page.locator("[data-testid=stApp][data-test-script-state=notRunning]")).to_have_count(1)
    page.wait_for_function(SHOWN)
    pictures = page.get_by_test_id("stPlotlyChart").count()
    assert pictures >= 6
    expect(page.locator(".main-svg .xaxislayer-above")).to_have_count(pictures)  # painted: nothing moves any more
    found = page.get_by_test_id("stDataFrame").last
    found.scroll_into_view_if_needed()
    box = found.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + 18, box["y"] + 54)  # a table is a canvas: the first row's box to tick
    expect(page.get_by_text(re.compile("Routing predicted"))).to_be_visible()
