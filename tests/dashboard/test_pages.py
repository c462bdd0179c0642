"""The pages' logic, run by Streamlit's own tester before a real gateway."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from dashboard import browser, state
from dashboard.gateway import URL, Gateway
from tests.dashboard.conftest import Demo

APP = Path(state.__file__).parent / "app.py"


@pytest.fixture
def gateway(demo: Demo) -> Iterator[Gateway]:
    """A caller of its own."""
    one = Gateway(demo.url)
    yield one
    one.close()


@pytest.fixture
def app(demo: Demo, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., AppTest]]:
    """The app as a browser would see it, which remembers what it is told."""
    monkeypatch.setenv(URL, demo.url)
    st.cache_resource.clear()
    st.cache_data.clear()
    kept: dict[str, Any] = {}

    def remembered() -> dict[str, Any]:
        kept.update(st.session_state.get("_kept", {}))
        return kept

    monkeypatch.setattr(browser, "remembered", remembered)
    monkeypatch.setattr(browser, "copy_button", lambda *_, **__: None)

    def run(language: str = "en", **before: Any) -> AppTest:
        kept.clear()
        kept.update({"language": language} | before)
        return AppTest.from_file(str(APP), default_timeout=20).run()

    yield run
    state.hub().gateway.close()
    st.cache_resource.clear()


def free(gateway: Gateway, id_: str) -> list[dict[str, Any]]:
    """A session's messages, once nobody writes to it any more."""
    for _ in range(400):
        if gateway.get(f"/api/sessions/{id_}")["running"] is None:
            rows: list[dict[str, Any]] = gateway.get(f"/api/sessions/{id_}/messages")["messages"]
            return rows
        time.sleep(0.02)
    raise AssertionError("it never ended")


def test_a_chat(app: Callable[..., AppTest], gateway: Gateway) -> None:
    """A question makes a session; its answer is shown with what it cost; it can be asked for again."""
    at = app()
    assert not at.exception
    assert at.header[0].value == "What would you like to know?"
    at.chat_input[0].set_value("Why is the sky blue?").run()
    assert not at.exception
    id_ = at.session_state["session"]
    question, answer = free(gateway, id_)
    at.run()
    assert [message.markdown[0].value for message in at.chat_message] == ["Why is the sky blue?", answer["content"]]
    assert any("tokens/s" in caption.value and answer["host"] in caption.value for caption in at.caption)
    at.button(key=f"again_{answer['seq']}").click().run()
    free(gateway, id_)
    at.run()
    assert any(caption.value == "2/2" for caption in at.caption)
    at.button(key=f"before_{answer['seq'] + 1}").click().run()
    assert [row["seq"] for row in free(gateway, id_)] == [question["seq"], answer["seq"]]


def test_stopped(app: Callable[..., AppTest], gateway: Gateway) -> None:
    """The Stop button ends it, and what there is stays."""
    at = app()
    at.number_input(key="option_num_predict").set_value(1000).run()
    at.chat_input[0].set_value("Tell me all").run()
    stop = next(button for button in at.button if button.label == "Stop")
    stop.click().run()
    assert free(gateway, at.session_state["session"])[-1]["state"] == "stopped"
    at.run()
    assert any(caption.value == "Stopped." for caption in at.caption)


def test_it_comes_back(app: Callable[..., AppTest], gateway: Gateway) -> None:
    """The browser remembers the session and the language; a session that is gone is a new chat."""
    id_ = gateway.post("/api/sessions", {"title": "Cheese", "model": "llama3.2:1b"})["id"]
    gateway.post(f"/api/sessions/{id_}/messages", {"content": "Is it a dessert?"})
    at = app("ru", session=id_)
    assert not at.exception
    assert at.chat_message[0].markdown[0].value == "Is it a dessert?"
    assert any(button.label == "Новый чат" for button in at.button)
    assert any(button.label == "Cheese" for button in at.button)
    gateway.delete(f"/api/sessions/{id_}")
    at.run()
    assert not at.exception
    assert at.header[0].value == "Что вы хотите узнать?"


def test_what_the_gateway_refuses(app: Callable[..., AppTest], gateway: Gateway) -> None:
    """Is told, and the page goes on."""
    id_ = gateway.post("/api/sessions", {"title": "Cheese", "model": "llama3.2:1b"})["id"]
    at = app(session=id_)
    gateway.delete(f"/api/sessions/{id_}")
    at.chat_input[0].set_value("Why?").run()
    assert not at.exception
    assert "no session" in at.toast[0].value


def test_no_gateway(app: Callable[..., AppTest], monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said, and the page waits for it."""
    monkeypatch.setenv(URL, "http://127.0.0.1:9")
    at = app()
    assert not at.exception
    assert at.header[0].value == "The gateway does not answer"
