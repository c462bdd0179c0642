"""The waiting room from outside: whose turn it is, how long it will take, and who is not let in."""

import contextlib
import json
from collections.abc import AsyncIterator

import pytest

from gateway.dialects.urgency import PROMPTS
from simulator.host import SimulatedHost
from tests.builders import ONE_EACH, PATHS, Call, call, simulated
from tests.conftest import Corral
from tests.contract.raw import Answer, ask
from tests.stage import Client, Stage

HANG = call("/api/generate", tokens=3)
BACKGROUND = {"X-Corral-Priority": "background"}


@contextlib.asynccontextmanager
async def waiting(stage: Stage, *requests: Call) -> AsyncIterator[list[Client]]:
    """The one slot is taken, and these wait, in the sessions 0, 1, …; they are served when this is left."""
    host: SimulatedHost = stage["gpu1"]
    host.faults.set("hang_before_headers")
    async with contextlib.AsyncExitStack() as stack:
        holder = await stack.enter_async_context(stage.begun(HANG, "holder"))
        await stage.row("holder", "prefill")
        clients = []
        for number, request in enumerate(requests):
            clients.append(await stack.enter_async_context(stage.begun(request, str(number))))
            await stage.row(str(number), "queued")
        yield clients
        host.faults.clear()
        assert (await holder.answer()).status == 200
        for client in clients:
            assert (await client.answer()).status == 200


async def served(stage: Stage, count: int) -> list[str]:
    """The sessions of those that waited, in the order in which the host got them."""
    came = {record.id: record.session or "" for record in await stage.records.until(count + 1)}
    return [came[entry.request_id or ""] for entry in stage["gpu1"].ledger.entries][1:]


def message_of(path: str, answer: Answer) -> str:
    """What an error says, as clients of that path read errors."""
    error = json.loads(answer.body)["error"]
    return error if path.startswith("/api/") else error["message"]


# -- priorities ---------------------------------------------------------------------------------------------------------------


async def test_priorities_are_the_callers(corral: Corral) -> None:
    """Who says so waits behind all others, or before them."""
    stage = await corral(simulated())
    said = ("background", "", "interactive", "Background", "normal")
    async with waiting(stage, *(call("/api/chat", headers={"X-Corral-Priority": word}) for word in said)):
        pass
    assert await served(stage, 5) == ["2", "1", "4", "0", "3"]


@pytest.mark.parametrize("path", PATHS)
async def test_a_priority_that_is_none(corral: Corral, path: str) -> None:
    """Is refused in the caller's dialect, with the three that there are."""
    stage = await corral(simulated())
    answer = await stage.ask(call(path, headers={"X-Corral-Priority": "urgent"}))
    assert answer.status == 400
    assert "interactive, normal or background" in message_of(path, answer)
    assert not stage["gpu1"].ledger.entries


@pytest.mark.parametrize("background", [True, False], ids=["known", "not looked for"])
@pytest.mark.parametrize("path", ONE_EACH)
async def test_what_a_chat_ui_asks_by_itself(corral: Corral, path: str, background: bool) -> None:
    """Waits until nobody else does, unless its caller says otherwise, or nobody is to look."""
    stage = await corral(simulated(), queue={"background": background})
    title = call(path, prompt=PROMPTS[0] + " title")
    urgent = call(path, prompt=PROMPTS[0] + " title", headers={"X-Corral-Priority": "normal"})
    async with waiting(stage, title, call(path), urgent):
        pass
    assert await served(stage, 3) == (["1", "2", "0"] if background else ["0", "1", "2"])


async def test_the_explanation_names_the_priority(corral: Corral) -> None:
    """As it was read: of the body, or of the header."""
    stage = await corral(simulated(), queue={"background_prompts": ["Name this chat"]})
    sent = call("/api/chat", prompt="Name this chat: …")
    for headers, priority in (({}, "background"), ({"X-Corral-Priority": "interactive"}, "interactive")):
        answer = await ask(stage.url, "POST", "/api/route/explain", sent.body, headers)
        assert json.loads(answer.body)["request"]["priority"] == priority
