"""Browsers without a browser: they speak Streamlit's protocol as its page does, and count what they are sent to paint.

Each opens the app, tells it the session that it remembers, and asks for what a page with a running answer asks: a fragment's next run, at every tick of the
timer that the app sets for it. Thirty pages would need more than this machine's cores to paint; this is the app's work without the browsers'.
"""

import asyncio
import contextlib
import json
from collections.abc import Iterator, Sequence

import aiohttp
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.proto.WidgetStates_pb2 import WidgetState

from bench.dashboard.stage import Stage

MEMORY = "corral_prefs"
"""The component by which the app asks what a browser remembers."""


class Viewer:
    """One of them. ``painted``: messages that changed what is seen, so far."""

    def __init__(self, site: str, session: str) -> None:
        self.painted = 0
        self._site = site
        self._remembers = json.dumps({"doc": json.dumps({"session": session})})
        self._widgets: list[WidgetState] = []
        self._page = ""
        self._timers: list[asyncio.TimerHandle] = []

    async def watch(self, http: aiohttp.ClientSession) -> None:
        """Until it is cancelled."""
        async with http.ws_connect(f"{self._site}/_stcore/stream", protocols=("streamlit",), max_msg_size=0) as socket:
            self._socket = socket
            self._sent: set[asyncio.Future[None]] = set()
            self._run()
            try:
                async for message in socket:
                    self._heard(ForwardMsg.FromString(message.data))
            finally:
                self._still()

    def _heard(self, told: ForwardMsg) -> None:
        kind = told.WhichOneof("type")
        if kind == "new_session":
            self._page = told.new_session.page_script_hash
            if not told.metadata.run.fragment_ids:
                self._still()
        elif kind == "stop_auto_rerun":
            self._still()
        elif kind == "auto_rerun":
            self._tick(told.auto_rerun.fragment_id, told.auto_rerun.interval)
        elif kind == "delta":
            self.painted += 1
            asked = told.delta.new_element.bidi_component
            if asked.component_name == MEMORY and not self._widgets:
                self._widgets = [WidgetState(id=asked.id, json_value=self._remembers)]
                self._run()

    def _tick(self, fragment: str, seconds: float) -> None:
        place = len(self._timers)
        loop = asyncio.get_running_loop()

        def again() -> None:
            self._run(fragment)
            self._timers[place] = loop.call_later(seconds, again)

        self._timers.append(loop.call_later(seconds, again))

    def _still(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers = []

    def _run(self, fragment: str = "") -> None:
        asked = BackMsg()
        asked.rerun_script.widget_states.widgets.extend(self._widgets)
        asked.rerun_script.page_script_hash = self._page
        if fragment:
            asked.rerun_script.fragment_id, asked.rerun_script.is_auto_rerun = fragment, True
        sending = asyncio.get_running_loop().create_task(self._socket.send_bytes(asked.SerializeToString()))
        self._sent.add(sending)
        sending.add_done_callback(self._sent.discard)


@contextlib.contextmanager
def watching(stage: Stage, sessions: Sequence[str]) -> Iterator[list[Viewer]]:
    """A viewer for each session, until the end of the ``with``."""
    viewers = [Viewer(stage.site, session) for session in sessions]

    async def begin() -> asyncio.Task[None]:
        return asyncio.get_running_loop().create_task(_all(viewers))

    async def end(task: asyncio.Task[None]) -> None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    task = stage.run(begin())
    yield viewers
    stage.run(end(task))


async def _all(viewers: list[Viewer]) -> None:
    async with aiohttp.ClientSession() as http, asyncio.TaskGroup() as group:
        for viewer in viewers:
            group.create_task(viewer.watch(http))
