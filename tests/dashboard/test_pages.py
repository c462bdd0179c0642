"""The pages' logic, run by Streamlit's own tester before a real gateway."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from dashboard.__main__ import astray
from dashboard.gateway import URL, Gateway
from tests.dashboard.conftest import Demo, free


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
    assert at.button(key=f"open_{id_}").label == "Why is the sky blue?"
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


@pytest.fixture
def forgetful(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A gateway that has no database."""
    demo = Demo(tmp_path, database="none")
    monkeypatch.setenv(URL, demo.url)
    yield
    demo.stop()


@pytest.mark.parametrize("language", ["en", "ru"])
def test_no_database(app: Callable[..., AppTest], forgetful: None, language: str) -> None:
    """It is said how to get one, once; to try again would not help. The fleet needs none."""
    header = {"en": "This page needs a database", "ru": "Этой странице нужна база данных"}[language]
    for page in ("chat", "talk", "sessions", "metrics"):
        at = app(language, page=page)
        assert not at.exception
        assert header in [one.value for one in at.header]
        assert "[database]" in at.code[0].value
        assert not [button for button in at.button if button.label in ("Try again", "Попробовать ещё раз")]
        assert not at.warning
    at = app(language, page="fleet")
    assert not at.exception
    assert at.metric[0].value == "3 / 3"


def test_a_page_that_fails(app: Callable[..., AppTest], caplog: pytest.LogCaptureFixture) -> None:
    """Is told in the reader's language; the log has the details."""
    at = app("ru", page="sessions")
    at.session_state["places"] = []  # what must never be
    at.run()
    assert at.header[-1].value == "На этой странице произошёл сбой"
    assert [record.message for record in caplog.records if record.name == "dashboard"] == ["a page failed"]
    caplog.clear()


@pytest.mark.parametrize("page", ["usage", "metrics", "fleet"])
def test_a_part_that_the_gateway_refuses(
    app: Callable[..., AppTest], monkeypatch: pytest.MonkeyPatch, page: str
) -> None:
    """Or that cannot ask it, in the page's own words."""
    monkeypatch.setenv(URL, "http://127.0.0.1:9")
    at = app(page=page)
    assert not at.exception
    assert any("The gateway does not answer" in one.value for one in (*at.header, *at.warning))


def test_no_gateway(app: Callable[..., AppTest], monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said, and the page waits for it."""
    monkeypatch.setenv(URL, "http://127.0.0.1:9")
    at = app()
    assert not at.exception
    assert at.header[0].value == "The gateway does not answer"


@pytest.mark.parametrize(
    ("path", "accept", "led"),
    [
        ("/nowhere", "text/html,*/*", True),
        ("/talk", "text/html,*/*", False),
        ("/", "text/html,*/*", False),
        ("/nowhere", "*/*", False),
        ("/_stcore/health", "text/html", False),
        ("/favicon.png", "text/html", False),
    ],
)
def test_astray(path: str, accept: str, led: bool) -> None:
    """Who opens a page that there is not, and nobody else."""
    assert astray(path, accept) == led
