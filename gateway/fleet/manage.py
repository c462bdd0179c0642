"""Operations on many hosts at once (fan-out)."""

import asyncio
from collections.abc import Callable

from gateway.dialects.request import InferenceRequest
from gateway.errors import HostsFailed, ModelNotFound, NoHost
from gateway.fleet.client import HostAnswer, HostClient, HostError
from gateway.fleet.health import State
from gateway.fleet.host import Host, HostView
from gateway.fleet.registry import Fleet

UNLOAD_SECONDS = 30.0  # Ollama waits for VRAM to come back


class Unloader:
    """Sends an unload to every host that has the model in memory: the caller knows one server, and means all of it."""

    def __init__(self, fleet: Fleet, client: HostClient, clock: Callable[[], float]) -> None:
        self._fleet = fleet
        self._client = client
        self._clock = clock

    async def unload(self, request: InferenceRequest) -> tuple[HostAnswer, str]:
        """Fan out; one host's answer for all, and which were asked. Raises ModelNotFound, NoHost, HostsFailed."""
        targets = self._targets(request)
        asked = ", ".join(host.name for host in targets)
        answers = await asyncio.gather(*(self._one(host, request) for host in targets))
        good = [answer for answer in answers if isinstance(answer, HostAnswer)]
        for answer in good:
            if answer.status == 200:
                return answer, asked
        if good:
            return good[0], asked
        raise HostsFailed("; ".join(str(answer) for answer in answers))

    def _targets(self, request: InferenceRequest) -> list[Host]:
        views = self._fleet.snapshot(self._clock()).hosts
        views = tuple(view for view in views if not request.pin or view.name == request.pin)
        having = [view for view in views if view.available and request.model in view.available]
        if not having:
            if any(view.available is not None for view in views):
                raise ModelNotFound(request.endpoint.not_found.format(request.requested_model))
            raise NoHost("no host has told its models yet", retry_after=2.0)
        up = [view for view in having if view.health.state is not State.EJECTED] or having
        loaded = [view.host for view in up if _has_in_memory(view, request.model)]
        return loaded or [up[0].host]  # unloading what is not loaded is a 200 of any host's

    async def _one(self, host: Host, request: InferenceRequest) -> HostAnswer | str:
        try:
            answer = await self._client.call(host, "POST", request.endpoint.path, request.body, UNLOAD_SECONDS)
        except HostError as error:
            return f"{host.name}: {error}"
        if not 200 <= answer.status < 600 or answer.status in (204, 304):
            return f"{host.name}: answered {answer.status}"
        if answer.status == 200:
            self._fleet.forget_loaded(host.name, request.model)
        return answer


def _has_in_memory(view: HostView, model: str) -> bool:
    digest = view.digest_of(model)
    return digest in view.loaded or digest in view.loading
