"""The chat's page beside its main path: what is chosen for it, what is warned of, what can be done with a message."""

import base64
import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from dashboard import state
from dashboard.gateway import URL, Gateway
from dashboard.state import fleet
from tests.dashboard.conftest import Demo, free

MODEL = "llama3.2:1b"
IMAGE = base64.b64encode(
    b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x06\x00\x00\x00\x1f\x15\xc4\x89"
    b"\x00\x00\x00\rIDATx\x9cc\xf8\xcf\xc0\xf0\x1f\x00\x05\x00\x01\xff\x89\x99=\x1d\x00\x00\x00\x00IEND\xaeB`\x82"
).decode()
Page = Callable[..., AppTest]


def captions(at: AppTest) -> str:
    """All of them."""
    assert not at.exception
    return "\n".join(caption.value for caption in at.caption)


def answered(gateway: Gateway, **said: Any) -> tuple[str, list[dict[str, Any]]]:
    """A session with a turn, and its messages."""
    id_ = gateway.post("/api/sessions", {"title": "Cheese", "model": MODEL, "options": {"num_predict": 5}})["id"]
    gateway.post(f"/api/sessions/{id_}/chat", {"message": {"content": "Why?"} | said, "stream": False})
    return id_, free(gateway, id_)


def context(gateway: Gateway) -> int:
    """With which the model is loaded, once the gateway has seen it."""
    for _ in range(400):
        for host in gateway.get("/api/models/servers")["servers"]:
            for row in host["models_loaded"]:
                if row["context_length"]:  # 0 while it is being loaded
                    return int(row["context_length"])
        time.sleep(0.02)
    raise AssertionError("nobody has loaded it")


def test_what_a_session_has_comes_back(app: Page, gateway: Gateway) -> None:
    """Its settings are chosen when it is opened, and kept as they are but for what is changed; a new chat begins without them."""
    given = {"model": MODEL, "host": "sim2", "system": "Be brief.", "options": {"num_predict": 7, "stop": ["x"]}}
    id_ = gateway.post("/api/sessions", {"title": "Mine", **given})["id"]
    at = app(session=id_)
    assert (at.text_area(key="system").value, at.number_input(key="option_num_predict").value) == ("Be brief.", 7)
    assert at.radio(key="host_hosts").value == "sim2"
    at.number_input(key="option_seed").set_value(3).run()
    at.chat_input[0].set_value("Why?").run()
    free(gateway, id_)
    kept = gateway.get(f"/api/sessions/{id_}")
    assert {name: kept[name] for name in given} == given | {"options": {"num_predict": 7, "stop": ["x"], "seed": 3}}
    next(button for button in at.button if button.label == "New chat").click().run()
    assert (at.text_area(key="system").value, at.number_input(key="option_num_predict").value) == ("", None)
    assert at.session_state["model"] == MODEL


def test_a_host_is_chosen(app: Page) -> None:
    """Each is told with its health and load; the one that is chosen stands beside the input, until the best one is wanted again."""
    at = app()
    assert "healthy · 0 of 1 slots taken" not in captions(at)
    at.radio(key="host_hosts").set_value("sim3").run()
    assert at.session_state["host"] == "sim3"
    assert "healthy · 0 of 1 slots taken" in captions(at)
    at.radio(key="host_hosts").set_value("").run()
    assert at.session_state["host"] is None


def test_no_host_is_ready(app: Page, gateway: Gateway) -> None:
    """That is told before anything is sent, of the hosts that may be asked."""
    names = ("sim1", "sim2", "sim3")
    at = app()
    assert "No host is ready" not in captions(at)
    for name in names:
        gateway.post(f"/api/hosts/{name}/drain")
    fleet.clear()
    assert "No host is ready to answer: sim1 (healthy, draining), sim2" in captions(at.run())
    gateway.post("/api/hosts/sim1/resume")
    fleet.clear()
    assert "No host is ready" not in captions(at.run())
    at.radio(key="host_hosts").set_value("sim3").run()
    assert "No host is ready to answer: sim3 (healthy, draining)" in captions(at)
    for name in names[1:]:
        gateway.post(f"/api/hosts/{name}/resume")


def test_the_gateway_goes_away(app: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read stays above the notice: what is kept, and what was being said."""
    demo = Demo(tmp_path)
    monkeypatch.setenv(URL, demo.url)
    gateway = Gateway(demo.url)
    id_, (_, before) = answered(gateway)
    body = {"message": {"content": "And?"}, "detach": True, "options": {"num_predict": 4000}}
    running = gateway.post(f"/api/sessions/{id_}/chat", body)["id"]
    at = app(session=id_)
    following = state.follow(running)
    for _ in range(400):
        if following.answer.chunks > 5:
            break
        time.sleep(0.02)
    again = state.follow(running)
    assert again is following
    demo.die()
    said = following.answer.content
    fleet.clear()
    at.chat_input[0].set_value("Are you there?").run()
    assert not at.exception
    assert at.header[0].value == "The gateway does not answer"
    assert [one.markdown[0].value for one in at.chat_message][:3] == ["Why?", before["content"], "And?"]
    assert at.chat_message[3].markdown[0].value.startswith(said[:20])
    following.away = True
    following.end("the answer broke off")
    assert state.follow(running) is not following
    demo.come()
    at.run()
    assert at.chat_input[0].proto.value == "Are you there?"
    gateway.close()
    demo.stop()


@contextlib.contextmanager
def busy(gateway: Gateway, host: str) -> Iterator[None]:
    """A host that takes no more: how many it runs at once is found from its answers, also those to other tests."""
    body = {"model": MODEL, "prompt": "why", "options": {"num_predict": 4000}}
    out: list[str] = []
    waits = False
    try:
        while not waits:
            out.append(gateway.post("/api/generate", body, headers={"X-Corral-Host": host}, detach=True)["id"])
            waits = gateway.get(f"/api/generations/{out[-1]}")["queue_place"] is not None
        gateway.delete(f"/api/generations/{out.pop()}")
        yield
    finally:
        for id_ in out:
            gateway.delete(f"/api/generations/{id_}")


def test_who_waits_is_told_the_place(app: Page, gateway: Gateway) -> None:
    """While the host that was chosen is busy."""
    at = app()
    with busy(gateway, "sim1"):
        at.radio(key="host_hosts").set_value("sim1").run()
        at.chat_input[0].set_value("Why?").run()
        for _ in range(100):
            if "Waiting for a free host: 1 in the queue" in captions(at.run()):
                break
        assert "Waiting for a free host: 1 in the queue" in captions(at)
    free(gateway, at.session_state["session"])


def test_another_context(app: Page, gateway: Gateway) -> None:
    """Is warned of where the model is loaded with one."""
    answered(gateway)
    loaded = context(gateway)
    at = app()
    assert "loads it again" not in captions(at)
    at.number_input(key="option_num_ctx").set_value(loaded + 1024).run()
    assert f"loads it again: it has {loaded:,} now." in captions(at)
    at.number_input(key="option_num_ctx").set_value(loaded).run()
    assert "loads it again" not in captions(at)


def test_images(app: Page, gateway: Gateway) -> None:
    """Are shown, kept when their question is edited, and warned of where the model has no eyes."""
    id_ = gateway.post("/api/sessions", {"title": "Seen", "model": MODEL})["id"]
    said = gateway.post(f"/api/sessions/{id_}/messages", {"content": "What is it?", "images": [IMAGE]})
    at = app(session=id_)
    assert r"llama3\.2\:1b cannot see the images of this chat." in captions(at)
    at.session_state[f"editing_{said['seq']}"] = True
    at.run()
    key = f"edit_{said['seq']}"
    at.text_area(key=key).set_value("And this?")
    at.button(key=f"send_{key}").click().run()
    question = free(gateway, id_)[0]
    assert (question["content"], question["images"], question["siblings"]) == ("And this?", [IMAGE], [0, 1])


@pytest.mark.parametrize("image", [base64.b64encode(b"some text " * 80).decode(), IMAGE[:40], "no Base64: é"])
def test_a_file_that_is_no_image(app: Page, gateway: Gateway, image: str) -> None:
    """Does not take its chat with it, from wherever it came: it is said, and the file can be fetched."""
    id_, _ = answered(gateway)
    kept = gateway.get(f"/api/sessions/{id_}/export")
    kept["messages"][0]["images"] = [image]
    (session,) = gateway.post("/api/import", kept)["sessions"]
    at = app(session=session["id"])
    assert len(at.chat_message) == 2
    words = "A file that cannot be shown as an image"
    assert words in [button.label for button in at.get("download_button")] or words in captions(at)


def test_what_is_no_image_is_not_sent(app: Page, gateway: Gateway) -> None:
    """The text is put back and the images that are some are kept: both go once there is nothing wrong."""
    id_ = gateway.post("/api/sessions", {"title": "Seen", "model": MODEL})["id"]
    at = app(session=id_)
    at.chat_input[0].set_value("What is it?").upload("broken.png", b"no image").upload("a.png", base64.b64decode(IMAGE))
    at.run()
    assert at.toast[0].value == r"Not sent: broken\.png cannot be read as an image."
    assert at.chat_input[0].proto.value == "What is it?"
    assert "Goes with your next message" in captions(at)
    assert free(gateway, id_) == []
    at.chat_input[0].set_value("What is it?").run()
    assert free(gateway, id_)[0]["images"] == [IMAGE]
    assert "Goes with your next message" not in captions(at.run())


def test_what_is_refused_goes_back(app: Page, gateway: Gateway) -> None:
    """Into the input, with its images beside it, which can be taken out; the reason is told in the reader's language."""
    id_ = gateway.post("/api/sessions", {"title": "Gone", "model": MODEL})["id"]
    at = app("ru", session=id_)
    gateway.delete(f"/api/sessions/{id_}")
    at.chat_input[0].set_value("Почему?").upload("a.png", base64.b64decode(IMAGE)).run()
    assert at.toast[0].value.startswith("Этого нет — или уже нет.")
    assert at.chat_input[0].proto.value == "Почему?"
    assert "Уйдёт со следующим сообщением" in captions(at)
    at.button(key="attached_none").click().run()
    assert "Уйдёт со следующим сообщением" not in captions(at)


def test_what_is_refused_of_an_edit(app: Page, gateway: Gateway) -> None:
    """Stays where it was written."""
    id_, (question, _) = answered(gateway)
    at = app(session=id_)
    at.session_state[f"editing_{question['seq']}"] = True
    at.run()
    key = f"edit_{question['seq']}"
    at.text_area(key=key).set_value("  ")
    at.button(key=f"send_{key}").click().run()
    assert len(free(gateway, id_)) == 2
    at.text_area(key=key).set_value("Why not?")
    gateway.delete(f"/api/sessions/{id_}", restorable_seconds=60)
    at.button(key=f"send_{key}").click().run()
    gateway.post(f"/api/sessions/{id_}/restore")
    at.session_state["session"] = id_
    assert at.session_state[f"editing_{question['seq']}"]
    assert "not there" in at.toast[0].value


def test_nothing_is_said(app: Page, gateway: Gateway) -> None:
    """With blanks alone: no session begins."""
    before = gateway.get("/api/sessions", limit=200)["sessions"]
    at = app()
    at.chat_input[0].set_value("   ").run()
    assert not at.exception
    assert gateway.get("/api/sessions", limit=200)["sessions"] == before


def test_why_this_host(app: Page, gateway: Gateway) -> None:
    """The seconds of every host, as routing saw them, with what became of the prediction."""
    id_, (_, answer) = answered(gateway)
    at = app(session=id_)
    assert not at.table
    at.session_state[f"why_{answer['seq']}"] = True
    for _ in range(50):  # it is written half a second after the fact
        if at.run().table:
            break
    costs = at.table[0].value
    assert sorted(costs["Host"]) == ["sim1", "sim2", "sim3"]
    assert costs["Host"].iloc[0] == answer["host"]
    assert "predicted" in captions(at)


def test_earlier_answers(app: Page, gateway: Gateway) -> None:
    """Have the same behind one button; any model can answer again."""
    id_, (question, first) = answered(gateway)
    gateway.post(f"/api/sessions/{id_}/chat", {"message": {"content": "And?"}, "stream": False})
    free(gateway, id_)
    at = app(session=id_)
    assert not any(button.key == f"again_{first['seq']}" for button in at.button)
    at.session_state[f"more_{first['seq']}"] = True
    at.run()
    menu = next(one for one in at.get("menu_button") if one.key == f"with_{first['seq']}")
    menu.set_value(MODEL).run()
    rows = free(gateway, id_)
    assert (len(rows), rows[-1]["parent"], rows[-1]["siblings"]) == (2, question["seq"], [first["seq"], 4])


def test_what_is_wrong_with_an_option(app: Page, gateway: Gateway) -> None:
    """Is told below the question, in the host's words."""
    at = app()
    at.text_input(key="keep_alive").set_value("soon").run()
    at.chat_input[0].set_value("Why?").run()
    rows = free(gateway, at.session_state["session"])
    assert rows[-1]["state"] == "error"
    assert ":material/error: There is no answer: " in captions(at.run())


@pytest.mark.parametrize(("language", "words"), [("en", "Thought for"), ("ru", "Размышления:")])
def test_how_long_it_thought(app: Page, gateway: Gateway, language: str, words: str) -> None:
    """As the gateway keeps it."""
    id_, _ = answered(gateway)
    told = gateway.get(f"/api/sessions/{id_}/export")
    told["messages"][1] |= {"thinking": "Hm.", "timings": {"thinking_seconds": 1.5}}
    (session,) = gateway.post("/api/import", told)["sessions"]
    at = app(language, session=session["id"])
    assert not at.exception
    assert any(expander.label.startswith(words) for expander in at.expander)


def test_a_conversation_read_as_a_chat(app: Page, gateway: Gateway) -> None:
    """Who said what is told there as well."""
    people = [{"model": MODEL, "name": name, "options": {"num_predict": 5}} for name in ("Ann", "Bob")]
    wish = {"participants": people, "topic": "Is cheese a dessert?", "turns": 2, "detach": True}
    id_ = gateway.post("/api/chat/multi-model", wish)["session"]
    free(gateway, id_)
    at = app(session=id_)
    assert not at.exception
    assert [one.value for one in at.markdown if "badge" in one.value] == [":gray-badge[Ann]", ":gray-badge[Bob]"]
