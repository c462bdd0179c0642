"""The page of what keys have used, by Streamlit's own tester."""

import os
import time
from collections.abc import Callable, Iterator

import pytest
from streamlit.testing.v1 import AppTest

from dashboard.gateway import URL, Gateway, GatewayError
from gateway.access.keys import digest, make
from tests.dashboard.conftest import Demo

ANN, BOB = make(os.urandom), make(os.urandom)
KEYS = f"""
[access]
anonymous = "full"

[[keys]]
name = "ann"
hash = "{digest(ANN)}"
rpm = 2
budgets = ["4000/day"]

[[keys]]
name = "bob"
hash = "{digest(BOB)}"
"""
View = Callable[..., AppTest]


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway of its own that has answered ann twice and refused her once, and has written that down."""
    demo = Demo(tmp_path_factory.mktemp("used"), KEYS)
    gateway, ann = Gateway(demo.url), Gateway(demo.url, ANN)
    body = {"model": "llama3.2:1b", "prompt": "why", "options": {"num_predict": 3}, "stream": False}
    for _ in range(2):
        ann.post("/api/generate", body)
    with pytest.raises(GatewayError, match="may send 2 requests a minute"):
        ann.post("/api/generate", body)
    for _ in range(400):
        if gateway.get("/api/stats/summary")["requests"] == 2:
            break
        time.sleep(0.02)
    yield gateway
    ann.close()
    gateway.close()
    demo.stop()


def test_limits(app: View, used: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each key with what it has used, each limit with what is left; and what was, in a picture."""
    monkeypatch.setenv(URL, used.url)
    at = app(page="usage")
    assert not at.exception
    assert at.header[0].value == "Usage"
    keys, limits = (table.value for table in at.dataframe)
    assert list(keys["Key"]) == ["ann", "bob"]
    assert list(keys["Requests today"]) == [2, 0]
    assert keys["Tokens today"][0] == used.get("/api/usage")["keys"][0]["month"]["input_tokens"] + 6
    rows = limits.to_dict("records")
    assert [(row["Key"], row["Limit"], row["Allowed"]) for row in rows] == [
        ("ann", "tokens a day", 4000),
        ("ann", "requests a minute", 2),
    ]
    assert (rows[1]["Used up"], rows[1]["Left"]) == (1.0, 0)
    assert 0 < rows[0]["Used up"] < 1
    assert len(at.get("plotly_chart")) == 1


def test_in_russian(app: View, used: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same in the reader's language."""
    monkeypatch.setenv(URL, used.url)
    at = app("ru", page="usage")
    assert not at.exception
    assert at.header[0].value == "Расход"
    assert list(at.dataframe[1].value["Лимит"]) == ["токенов в день", "запросов в минуту"]


def test_where_nothing_is_kept(
    app: View, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """What is used now is told; of what was, that nothing is kept."""
    demo = Demo(tmp_path_factory.mktemp("unkept"), KEYS, database="none")
    monkeypatch.setenv(URL, demo.url)
    try:
        at = app(page="usage")
        assert not at.exception
        assert len(at.dataframe) == 2
        assert any("nothing is kept here" in caption.value for caption in at.caption)
    finally:
        demo.stop()


def test_without_keys(app: View) -> None:
    """It says how one is made."""
    at = app(page="usage")
    assert not at.exception
    assert any("corral keys create" in caption.value for caption in at.caption)
