"""The app behind a sign-on that says who looks: everybody has their own sessions. Told over Streamlit's own protocol, as AppTest knows no headers."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import aiohttp
import pytest
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.proto.WidgetStates_pb2 import WidgetState

from dashboard.following import Following, Hub
from dashboard.gateway import Gateway
from gateway.access.keys import digest, make
from tests.dashboard.conftest import ROOT, Demo, ended, free, started, told

KEY = make(lambda size: b"\x07" * size)
NAME = "Борис"


class People(NamedTuple):
    """The app's address, and the gateway with its key."""

    site: str
    gateway: Gateway
    demo: Demo


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Iterator[People]:
    """A gateway that believes the app's key, and an app that reads X-Forwarded-User."""
    folder = tmp_path_factory.mktemp("people")
    keys = f'[[keys]]\nname = "app"\nrole = "operator"\nhash = "{digest(KEY)}"'
    demo = Demo(folder, f'[access]\nuser_keys = ["app"]\n{keys}')
    serve = ("--gateway", demo.url, "--listen", "127.0.0.1:0", "--user-header", "x-forwarded-user")
    process = started(folder, "dashboard", *serve, CORRAL_API_KEY=KEY)
    gateway = Gateway(demo.url, KEY)
    yield People(told(process, r"(http://127\.0\.0\.1:\d+)"), gateway, demo)
    gateway.close()
    ended(process)
    demo.stop()


class Tab:
    """What a tab has kept of its connection: by ``id`` the app knows it again. What it remembers it has ``told`` once: unchanged, it is not sent again."""

    id = ""
    told = False


async def _shown(site: str, remembers: dict[str, Any], users: tuple[str, ...], tab: Tab) -> str:
    headers = [("X-Forwarded-User", user) for user in users]
    known = ("streamlit", "no-xsrf", tab.id) if tab.id else ("streamlit",)
    shown: list[str] = []
    address = f"{site}/_stcore/stream"
    async with (
        aiohttp.ClientSession() as http,
        asyncio.timeout(20.0),
        http.ws_connect(address, protocols=known, max_msg_size=0, headers=headers) as socket,
    ):
        await socket.send_bytes(BackMsg(rerun_script={}).SerializeToString())
        async for message in socket:
            heard = ForwardMsg.FromString(message.data)
            kind = heard.WhichOneof("type")
            if kind == "new_session":
                tab.id = heard.new_session.initialize.session_id
            asked = heard.delta.new_element.bidi_component
            if asked.component_name == "corral_prefs" and not tab.told:
                tab.told = True
                doc = WidgetState(id=asked.id, json_value=json.dumps({"doc": json.dumps(remembers)}))
                again = BackMsg()
                again.rerun_script.widget_states.widgets.append(doc)
                shown.clear()
                await socket.send_bytes(again.SerializeToString())
            elif kind == "delta":
                shown.append(str(heard.delta))
            elif kind == "script_finished" and any("heading" in one or "chat_input" in one for one in shown):
                break
    return "\n".join(shown)


def page(people: People, *users: str, tab: Tab | None = None, **remembers: Any) -> str:
    """All that the first page shows to whoever the sign-on names so."""
    with ThreadPoolExecutor(1) as thread:  # beside Playwright's loop, which runs here once a browser was open
        shown = _shown(people.site, {"language": "en"} | remembers, users, tab or Tab())
        return thread.submit(asyncio.run, shown).result()


def talked(gateway: Gateway, question: str) -> str:
    """A session with a question and its answer."""
    id_: str = gateway.post("/api/sessions", {"model": "llama3.2:1b"})["id"]
    gateway.post(f"/api/sessions/{id_}/chat", {"detach": True, "message": {"content": question}})
    free(gateway, id_)
    return id_


def test_everybody_has_their_own(people: People) -> None:
    """Others' are not listed, nor shown to a browser that remembers them; whose they are is said."""
    ann, boris = people.gateway.of("ann"), people.gateway.of(NAME)
    mine = talked(ann, "Why are aardvarks?")
    talked(boris, "Why are badgers?")
    said = page(people, "ann", session=mine)
    assert "Why are aardvarks?" in said
    assert "badgers" not in said
    assert ":material/person: ann" in said
    said = page(people, NAME, session=mine)
    assert "aardvarks" not in said
    assert "Why are badgers?" in said
    assert "What would you like to know?" in said


def test_a_tab_that_comes_back_as_somebody_else(people: People) -> None:
    """What it has kept is not shown to them, also where the gateway cannot be asked whose it is."""
    mine, tab = talked(people.gateway.of("ann"), "Why are marmots?"), Tab()
    assert "marmots" in page(people, "ann", tab=tab, session=mine)
    people.demo.go()
    try:
        first = tab.id
        assert "marmots" in page(people, "ann", tab=tab, session=mine)
        said = page(people, "eve", tab=tab, session=mine)
        assert tab.id == first
        assert "The gateway does not answer" in said
        assert "marmots" not in said
    finally:
        people.demo.come()
    said = page(people, "eve", tab=tab, session=mine)
    assert ":material/person: eve" in said
    assert "marmots" not in said


@pytest.mark.parametrize("name", ["Черных", "ИГОРЬ Р", "Léà"])
def test_whoever_they_are(people: People, name: str) -> None:
    """Also those whose last letter's bytes end like a blank of Latin-1, as headers are read."""
    talked(people.gateway.of(name), "Why are capybaras?")
    said = page(people, name)
    assert f":material/person: {name}" in said
    assert "Why are capybaras?" in said


@pytest.mark.parametrize("users", [(), ("",), ("ann", "eve")])
def test_nobody_is_named(people: People, users: tuple[str, ...]) -> None:
    """Or two are: nothing is asked of the gateway as the app, whose sessions would be everybody's."""
    talked(people.gateway, "Why is the app?")
    said = page(people, *users)
    assert "Nobody says who you are" in said
    assert "Why is the app?" not in said


def test_an_answer_is_followed_as_who_asked(people: People) -> None:
    """To anybody else it is not there."""
    ann = people.gateway.of("ann")
    id_ = ann.post("/api/sessions", {"model": "llama3.2:1b"})["id"]
    begun = ann.post(f"/api/sessions/{id_}/chat", {"detach": True, "message": {"content": "Why?"}})["id"]
    seen: list[Following] = []
    for one in (people.gateway.of("eve"), ann):
        following = Hub(people.gateway).follow(begun, one)
        deadline = time.monotonic() + 20.0
        while not following.over and time.monotonic() < deadline:
            time.sleep(0.02)
        seen.append(following)
    eve, mine = seen
    assert eve.error
    assert not eve.answer.content
    assert mine.answer.content
    assert mine.error is None


def test_what_is_no_header() -> None:
    """Is refused at the start, in words."""
    command = [sys.executable, "-m", "dashboard", "--user-header", "X Forwarded"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "'X Forwarded' is no header's name, like X-Forwarded-User" in done.stderr
