"""What a host tells about itself: liveness, version, and the models it has and holds."""

import time
from typing import Any

from aiohttp import web

from simulator import clock
from simulator.dialects import openai
from simulator.dialects.fields import Fields, decode, encode
from simulator.dialects.inference import Body
from simulator.dialects.ollama import JSON
from simulator.endpoints import Table
from simulator.faults import Faults
from simulator.models import SimulatedModel, model_named
from simulator.names import ModelName
from simulator.refusal import Refusal
from simulator.replies import reply
from simulator.scheduler import Scheduler
from simulator.store import Store

_POLL_FAILED = "the simulated host was told to fail here"


class Reading:
    """The reading endpoints of one host."""

    def __init__(self, version: str, store: Store, scheduler: Scheduler, faults: Faults) -> None:
        self._version = version
        self._store = store
        self._scheduler = scheduler
        self._faults = faults

    def table(self) -> Table:
        """Where these endpoints are."""
        return {
            "/": {"GET": self.root, "HEAD": self.root},
            "/api/version": {"GET": self.version, "HEAD": self.version},
            "/api/status": {"GET": self.status},
            "/api/tags": {"GET": self.tags, "HEAD": self.tags},
            "/api/ps": {"GET": self.ps},
            "/api/show": {"POST": self.show},
            "/v1/models": {"GET": self.v1_models},
            "/v1/models/:": {"GET": self.v1_model},
        }

    async def root(self, request: web.Request) -> web.StreamResponse:
        """`Ollama is running`."""
        return await reply(request, 200, Body("text/plain; charset=utf-8", b"Ollama is running"))

    async def version(self, request: web.Request) -> web.StreamResponse:
        """`{"version"}`."""
        self._fail_if_told("version_error")
        return await _json(request, {"version": self._version})

    async def status(self, request: web.Request) -> web.StreamResponse:
        """`{"cloud"}`: a simulated host has none."""
        return await _json(request, {"cloud": {"disabled": True, "source": "env"}})

    async def tags(self, request: web.Request) -> web.StreamResponse:
        """The models on disk, newest first, and ghosts."""
        self._fail_if_told("tags_error")
        ghosts = [model_named(name, time.time_ns()) for name in self._faults.ghosts() if self._store.find(name) is None]
        return await _json(request, {"models": [_row(model) for model in (*ghosts, *self._store.newest_first())]})

    async def ps(self, request: web.Request) -> web.StreamResponse:
        """The models in memory, the one that stays longest first."""
        if (slow := self._faults.take(("slow_ps",))) is not None:
            await clock.wait_until(clock.now() + slow.seconds)
        self._fail_if_told("ps_error")
        rows = []
        for runner in self._scheduler.runners:
            expires_at = time.time() + runner.keep_seconds if runner.expires_at is None else runner.expires_at
            row = {
                **_names(runner.model),
                "size": runner.bytes,
                "digest": runner.model.digest,
                "details": runner.model.details(),
                "expires_at": clock.rfc3339(int(expires_at * 1e9)),
                "size_vram": runner.vram_bytes,
                "context_length": runner.context,
            }
            rows.append((expires_at, row))
        rows.sort(key=lambda pair: -pair[0])
        return await _json(request, {"models": [row for _, row in rows]})

    async def show(self, request: web.Request) -> web.StreamResponse:
        """Everything about one model."""
        body = await request.read()
        if not body:
            raise Refusal(400, "missing request body")
        fields = Fields(decode(body), "ShowRequest")
        name = fields.text("model") or fields.text("name")
        if not name:
            raise Refusal(400, "model is required")
        model = self._found(name)
        texts = {"license": model.license, "modelfile": model.modelfile(), "parameters": model.parameter_text()}
        texts |= {"template": model.template, "system": model.system}
        value = {
            **{key: text for key, text in texts.items() if text},
            "details": model.details(),
            "model_info": model.info(),
            "tensors": model.tensors(),
            "capabilities": list(model.capabilities),
            "modified_at": clock.rfc3339(model.modified_ns),
        }
        return await _json(request, value)

    async def v1_models(self, request: web.Request) -> web.StreamResponse:
        """The models on disk as OpenAI lists them; `data` is null when there are none."""
        data = [_v1_row(model, model.name.short) for model in self._store.newest_first()]
        value = {"object": "list", "data": data or None}
        return await reply(request, 200, Body(openai.JSON_LINE, encode(value) + b"\n"))

    async def v1_model(self, request: web.Request) -> web.StreamResponse:
        """One model as OpenAI shows it."""
        name = request.path.rpartition("/")[2]
        value = _v1_row(self._found(name), name)
        return await reply(request, 200, Body(openai.JSON_LINE, encode(value) + b"\n"))

    def _found(self, text: str) -> SimulatedModel:
        name, model = ModelName.parse(text), self._store.find(text)
        if name is None:
            raise Refusal(400, "invalid model name")
        if model is None:
            raise Refusal(404, f"model '{name.short}' not found")
        return model

    def _fail_if_told(self, fault: str) -> None:
        if self._faults.take((fault,)) is not None:
            raise Refusal(500, _POLL_FAILED)


async def _json(request: web.Request, value: dict[str, Any]) -> web.StreamResponse:
    return await reply(request, 200, Body(JSON, encode(value)))


def _names(model: SimulatedModel) -> dict[str, Any]:
    return {"name": model.name.short, "model": model.name.short}


def _row(model: SimulatedModel) -> dict[str, Any]:
    lengths = {"context_length": model.context_length, "embedding_length": model.embedding_length}
    return {
        **_names(model),
        "modified_at": clock.rfc3339(model.modified_ns),
        "size": model.size,
        "digest": model.digest,
        "details": model.details() | lengths,
        "capabilities": list(model.capabilities),
    }


def _v1_row(model: SimulatedModel, name: str) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": model.modified_ns // 1_000_000_000,
        "owned_by": model.name.namespace,
    }
