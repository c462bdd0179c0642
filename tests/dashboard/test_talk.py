"""The page of conversations: its form, what is begun with it, and what is shown of what is kept."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from dashboard import state
from dashboard.gateway import URL, Gateway
from dashboard.views.participants import PRESETS_MOST
from tests.dashboard.conftest import Demo, free

MODEL = "llama3.2:1b"
SHORT = {"num_predict": 8}
LONG = {"num_predict": 1000}


def labels(at: AppTest) -> list[str]:
    """Of all buttons."""
    return [button.label for button in at.button]


def press(at: AppTest, label: str) -> AppTest:
    """A button."""
    return next(button for button in at.button if button.label == label).click().run()


def rows(at: AppTest) -> list[int]:
    """The participants' numbers in the form."""
    return list(at.session_state["talk_rows"])


def named(at: AppTest, *names: str) -> None:
    """Give the participants names."""
    for row, name in zip(rows(at), names, strict=True):
        at.text_input(key=f"talk_name_{row}").set_value(name)


def held(gateway: Gateway, *names: str, options: dict[str, Any] = SHORT, **body: Any) -> str:
    """A conversation that somebody began elsewhere; its session."""
    participants = [{"model": MODEL, "name": name, "options": options} for name in names]
    wish = {"participants": participants, "topic": "Is cheese a dessert?", "detach": True} | body
    return str(gateway.post("/api/chat/multi-model", wish)["session"])


def badges(at: AppTest) -> list[str]:
    """Who has said what is shown."""
    return [message.markdown[0].value for message in at.chat_message if message.name != "user"]


def test_the_form(app: Callable[..., AppTest]) -> None:
    """2 to 8 participants, each of a colour of its own; who stays keeps what was chosen; the judge comes with its mode."""
    at = app(page="talk")
    assert not at.exception
    assert at.header[0].value == "Let models talk"
    assert "Add a participant" in labels(at)
    assert not [button for button in at.button if button.help == "Remove"]
    while "Add a participant" in labels(at):
        press(at, "Add a participant")
    assert len(rows(at)) == 8
    assert len({at.session_state[f"talk_color_{row}"] for row in rows(at)}) == 8
    named(at, *"ABCDEFGH")
    at.run()
    for row in (rows(at)[1], rows(at)[2]):
        at.button(key=f"talk_remove_{row}").click().run()
    assert [at.text_input(key=f"talk_name_{row}").value for row in rows(at)] == list("ADEFGH")
    assert [number.label for number in at.number_input] == ["Turns"]
    at.segmented_control(key="talk_mode").set_value("judge").run()
    assert not at.exception
    assert at.selectbox(key="talk_model_judge").value
    assert not at.number_input


def test_all_at_once(app: Callable[..., AppTest], gateway: Gateway) -> None:
    """The mode and the topic in one run, as a slow page has them: the judge has a model all the same."""
    at = app(page="talk")
    at.segmented_control(key="talk_mode").set_value("judge")
    at.chat_input[0].set_value("Is cheese a dessert?").run()
    assert not at.toast
    assert gateway.get(f"/api/sessions/{at.session_state['talk']}")["settings"]["judge"]["model"]
    press(at, "Stop")


def test_a_conversation(app: Callable[..., AppTest], gateway: Gateway) -> None:
    """What is chosen is what is begun; what is said is shown with who said it, and counted; it goes on."""
    at = app(page="talk")
    named(at, "Ann", "Bob")
    first, second = rows(at)
    at.segmented_control(key=f"talk_color_{second}").set_value("violet")
    at.text_area(key=f"talk_system_{first}").set_value("You love cheese.")
    at.selectbox(key=f"talk_host_{first}").set_value("sim2").run()
    at.number_input(key="talk_turns").set_value(2)
    at.chat_input[0].set_value("Is cheese a dessert?").run()
    assert not at.exception
    id_ = at.session_state["talk"]
    said = free(gateway, id_)
    assert [row["name"] for row in said] == [None, "Ann", "Bob"]
    assert said[1]["host"] == "sim2"
    ann, bob = gateway.get(f"/api/sessions/{id_}")["settings"]["participants"]
    assert (ann["color"], ann["system"], bob["color"], bob["host"]) == ("blue", "You love cheese.", "violet", None)
    at.run()
    assert not at.exception
    assert badges(at) == [":blue-badge[Ann]", ":violet-badge[Bob]"]
    assert at.chat_message[1].markdown[1].value == said[1]["content"]
    (table,) = (frame.value for frame in at.dataframe)
    assert list(table["Participant"]) == ["Ann", "Bob"]
    assert list(table["Tokens written"]) == [row["usage"]["output_tokens"] for row in said[1:]]
    at.number_input(key="talk_turns").set_value(1)
    press(at, "Continue")
    assert [row["name"] for row in free(gateway, id_)] == [None, "Ann", "Bob", "Ann"]
    at.run()
    assert badges(at)[-1] == ":blue-badge[Ann]"


def test_said_meanwhile_and_stopped(app: Callable[..., AppTest], gateway: Gateway) -> None:
    """The user's words stand after what is being said; Stop ends it all, and it can go on from there."""
    id_ = held(gateway, "Ann", "Bob", options=LONG, turns=50)
    at = app(page="talk", talk=id_)
    assert not at.exception
    assert "Continue" not in labels(at)
    at.chat_input[0].set_value("And wine?").run()
    assert not at.exception
    rows_ = gateway.get(f"/api/sessions/{id_}/messages")["messages"]
    assert ("user", "And wine?") in [(row["role"], row["content"]) for row in rows_]
    press(at, "Stop")
    assert not at.exception
    assert "stopped" in [row["state"] for row in free(gateway, id_)]
    at.run()
    assert "Continue" in labels(at)
    assert any(caption.value == "Stopped." for caption in at.caption)


def test_side_by_side(app: Callable[..., AppTest], gateway: Gateway) -> None:
    """Who answered at once stands in one grid, with the judge below; going on asks for another question."""
    judge = {"model": MODEL, "name": "Eve", "options": SHORT}
    id_ = held(gateway, "Ann", "Bob", "Cid", mode="judge", judge=judge)
    free(gateway, id_)
    at = app("ru", page="talk", talk=id_)
    assert not at.exception
    assert badges(at) == [":blue-badge[Ann]", ":orange-badge[Bob]", ":green-badge[Cid]", ":gray-badge[Eve]"]
    assert "Продолжить" not in labels(at)
    at.session_state["talk_end"] = {"reason": "turns", "error": None, "winner": "Ann"}
    at.run()
    assert any(one.value == "Решение судьи: **Ann**." for one in at.markdown)
    at.chat_input[0].set_value("And wine?").run()
    said = free(gateway, id_)
    assert [row["name"] for row in said] == [None, "Ann", "Bob", "Cid", "Eve", None, "Ann", "Bob", "Cid", "Eve"]
    kept = gateway.get(f"/api/sessions/{id_}")["settings"]
    assert [one["options"] for one in [*kept["participants"], kept["judge"]]] == [SHORT] * 4


def test_one_that_is_gone(app: Callable[..., AppTest], gateway: Gateway) -> None:
    """It is in the list until then; after it the form is shown, as it was last."""
    id_ = held(gateway, "Ann", "Bob", title="Cheese", turns=1)
    free(gateway, id_)
    gateway.post("/api/sessions", {"title": "A chat"})
    at = app(page="talk")
    assert "A chat" not in labels(at)
    at.button(key=f"talk_open_{id_}").click().run()
    assert [at.text_input(key=f"talk_name_{row}").value for row in rows(at)] == ["Ann", "Bob"]
    gateway.delete(f"/api/sessions/{id_}")
    at.run()
    assert not at.exception
    assert at.header[0].value == "Let models talk"


def test_what_cannot_be_followed(app: Callable[..., AppTest], gateway: Gateway) -> None:
    """It is said, and the page does not ask for ever without a pause."""
    id_ = held(gateway, "Ann", "Bob", options=LONG, turns=50)
    following = state.follow(gateway.get(f"/api/sessions/{id_}")["running"])
    following.end("it runs at another gateway")
    at = app(page="talk", talk=id_)
    assert not at.exception
    assert any(caption.value.startswith("It cannot be followed") for caption in at.caption)
    press(at, "Stop")
    free(gateway, id_)
    at.run()
    assert "Continue" in labels(at)


def test_what_the_gateway_refuses(app: Callable[..., AppTest], gateway: Gateway) -> None:
    """Is told, and nothing has begun."""
    at = app(page="talk")
    named(at, "Ann", "ann")
    before = len(gateway.get("/api/sessions", kind="conversation")["sessions"])
    at.chat_input[0].set_value("   ").run()
    assert not at.toast
    at.chat_input[0].set_value("Is cheese a dessert?").run()
    assert not at.exception
    assert "two are named" in at.toast[0].value
    assert at.header[0].value == "Let models talk"
    assert at.chat_input[0].proto.value == "Is cheese a dessert?"
    assert len(gateway.get("/api/sessions", kind="conversation")["sessions"]) == before


def test_presets(app: Callable[..., AppTest]) -> None:
    """Saved under a name, loaded as they were, deleted; without a name and without end there are none."""
    at = app(page="talk")
    press(at, "Add a participant")
    named(at, "Ann", "Bob", "Cid")
    at.segmented_control(key="talk_mode").set_value("panel")
    at.number_input(key="talk_turns").set_value(9).run()
    press(at, "Save")
    assert at.toast[0].value == "Give the preset a name."
    at.text_input(key="talk_preset_name").set_value("Three")
    press(at, "Save")
    assert at.selectbox(key="talk_preset").options == ["Three"]
    colors = [at.session_state[f"talk_color_{row}"] for row in rows(at)]
    at.button(key=f"talk_remove_{rows(at)[0]}").click().run()
    at.segmented_control(key="talk_mode").set_value("compare").run()
    press(at, "Load")
    assert not at.exception
    assert [at.text_input(key=f"talk_name_{row}").value for row in rows(at)] == ["Ann", "Bob", "Cid"]
    assert [at.session_state[f"talk_color_{row}"] for row in rows(at)] == colors
    assert (at.session_state["talk_mode"], at.number_input(key="talk_turns").value) == ("panel", 9)
    at.session_state["_presets"] = {str(number): {"mode": "panel"} for number in range(PRESETS_MOST)}
    at.run()
    press(at, "Save")
    assert "no room" in at.toast[0].value
    at.session_state["_presets"] = {"Three": {"mode": "panel"}}
    at.run()
    press(at, "Delete")
    assert "Load" not in labels(at)


def test_it_is_opened_from_the_list_of_sessions(app: Callable[..., AppTest], gateway: Gateway) -> None:
    """There it is one of them; its page is this one."""
    id_ = held(gateway, "Ann", "Bob", mode="compare")
    free(gateway, id_)
    at = app(page="sessions")
    at.button(key=f"open_{id_}").click().run()
    assert not at.exception
    assert at.session_state["talk"] == id_
    assert {"Ann", "Bob"} <= {word for badge in badges(at) for word in ("Ann", "Bob") if word in badge}


def test_the_gateway_goes_away(app: Callable[..., AppTest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read stays above the notice, what was being said too; what was sent meanwhile stands in the input once it is back."""
    demo = Demo(tmp_path)
    monkeypatch.setenv(URL, demo.url)
    gateway = Gateway(demo.url)
    id_ = held(gateway, "Ann", "Bob", turns=1)
    (_, before) = free(gateway, id_)
    more = {"session": id_, "topic": "And wine?", "turns": 2, "detach": True, "mode": "dialogue"}
    more["participants"] = [{"model": MODEL, "name": name, "options": {"num_predict": 4000}} for name in ("Ann", "Bob")]
    running = gateway.post("/api/chat/multi-model", more)["id"]
    following = state.follow(running)
    for _ in range(400):
        if any(answer.chunks > 5 for answer in list(following.answers.values())):
            break
        time.sleep(0.02)
    at = app(page="talk", talk=id_)
    assert badges(at)
    demo.die()
    said = next(answer.content for answer in following.answers.values() if answer.chunks)
    state.fleet.clear()
    at.chat_input[0].set_value("Are you there?").run()
    assert not at.exception
    assert at.header[0].value == "The gateway does not answer"
    shown = [" ".join(one.value for one in message.markdown) for message in at.chat_message]
    assert [shown[0], shown[2]] == ["Is cheese a dessert?", "And wine?"]
    assert before["content"] in shown[1]
    assert said[:20] in shown[3]
    demo.come()
    at.run()
    assert at.chat_input[0].proto.value == "Are you there?"
    gateway.close()
    demo.stop()
