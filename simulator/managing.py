"""What changes the models on a host's disk: pull, push, create, copy, delete, blobs; and the account that it has not."""

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from aiohttp import ClientError, web
from aiohttp.http_exceptions import HttpProcessingError

from simulator import clock
from simulator.dialects.fields import Fields, decode, encode
from simulator.dialects.inference import Body
from simulator.dialects.ollama import JSON, NDJSON
from simulator.dialects.openai import JSON_LINE
from simulator.endpoints import Handler, Table
from simulator.faults import Faults
from simulator.ledger import Ledger
from simulator.models import STORE, SimulatedModel, is_published, model_named, sha256
from simulator.names import ModelName
from simulator.refusal import Refusal
from simulator.replies import Stream, reply
from simulator.store import Store

Progress = AsyncIterator[dict[str, Any]]
_DIGEST = re.compile(r"sha256[:-][0-9a-fA-F]{64}")
_REPORT_SECONDS = 0.06
_NO_CLOUD = "ollama cloud is disabled: {} is unavailable"


class Managing:
    """The managing endpoints of one host."""

    def __init__(self, store: Store, ledger: Ledger, faults: Faults, pull_bytes_per_second: float) -> None:
        self._store = store
        self._ledger = ledger
        self._faults = faults
        self._pull_bytes_per_second = pull_bytes_per_second

    def table(self) -> Table:
        """Where these endpoints are."""
        return {
            "/api/pull": {"POST": self.pull},
            "/api/push": {"POST": self.push},
            "/api/create": {"POST": self.create},
            "/api/copy": {"POST": self.copy},
            "/api/delete": {"DELETE": self.delete},
            "/api/blobs/:": {"HEAD": self.has_blob, "POST": self.add_blob},
            "/api/me": {"POST": _refusing(503, "account unavailable")},
            "/api/signout": {"POST": _refusing(503, "account unavailable")},
            "/api/user/keys/:": {"DELETE": _refusing(503, "account unavailable")},
            "/api/experimental/web_search": {"POST": _refusing(403, _NO_CLOUD.format("web search"))},
            "/api/experimental/web_fetch": {"POST": _refusing(403, _NO_CLOUD.format("web fetch"))},
            "/api/experimental/model-recommendations": {"GET": self.recommendations},
        }

    async def pull(self, request: web.Request) -> web.StreamResponse:
        """Fetch a model that the catalogue has, at the profile's speed."""
        fields = await self._fields(request, "PullRequest")
        return await self._report(request, fields, self._pulling(_name(fields)))

    async def push(self, request: web.Request) -> web.StreamResponse:
        """Send a model nowhere."""
        fields = await self._fields(request, "PushRequest")
        return await self._report(request, fields, self._pushing(_name(fields)))

    async def create(self, request: web.Request) -> web.StreamResponse:
        """Make a model `from` another one or from the blobs of `files`."""
        fields = await self._fields(request, "CreateRequest")
        return await self._report(request, fields, self._creating(_name(fields), fields))

    async def copy(self, request: web.Request) -> web.StreamResponse:
        """The same model under another name too: 200 and no body."""
        fields = await self._fields(request, "CopyRequest")
        source, target = fields.text("source"), ModelName.parse(fields.text("destination"))
        if ModelName.parse(source) is None:
            raise Refusal(400, f'source "{source}" is invalid')
        if target is None:
            raise Refusal(400, f'destination "{fields.text("destination")}" is invalid')
        model = self._store.find(source)
        if model is None:
            raise Refusal(404, f'model "{source}" not found')
        self._full_disk("copy_error", source)
        self._store.copy(model, target)
        return await reply(request, 200)

    async def delete(self, request: web.Request) -> web.StreamResponse:
        """Forget a model on disk, not in memory: 200 and no body."""
        fields = await self._fields(request, "DeleteRequest")
        given = fields.text("model") or fields.text("name")
        if ModelName.parse(given) is None:
            raise Refusal(400, f'name "{given}" is invalid')
        model = self._store.find(given)
        if model is None:
            raise Refusal(404, f"model '{given}' not found")
        self._full_disk("delete_error", given)
        self._store.delete(model)
        return await reply(request, 200)

    async def has_blob(self, request: web.Request) -> web.StreamResponse:
        """200 or 404."""
        digest = _blob_digest(request)
        if digest not in self._store.blobs:
            raise Refusal(404, f'blob "{digest}" not found')
        return await reply(request, 200)

    async def add_blob(self, request: web.Request) -> web.StreamResponse:
        """201 when it is new; 200 at once, with the body unread, when it is there; 400 when the digest is not its own."""
        digest = _blob_digest(request)
        if digest in self._store.blobs:
            return await reply(request, 200)
        size, got = 0, hashlib.sha256()
        with self._noticing("/api/blobs/:"):
            async for part in request.content.iter_any():
                got.update(part)
                size += len(part)
                self._ledger.body_bytes += len(part)
                self._ledger.changed()
        if (found := f"sha256:{got.hexdigest()}") != digest:
            raise Refusal(400, f'digest mismatch, expected "{digest}", got "{found}"')
        self._store.blobs[digest] = size
        return await reply(request, 201)

    async def recommendations(self, request: web.Request) -> web.StreamResponse:
        """An empty list."""
        return await reply(request, 200, Body(JSON, encode({"recommendations": []})))

    async def _fields(self, request: web.Request, struct: str) -> Fields:
        body = await request.read()
        self._ledger.body(body)
        if not body:
            raise Refusal(400, "missing request body")
        return Fields(decode(body), struct)

    async def _report(self, request: web.Request, fields: Fields, progress: Progress) -> web.StreamResponse:
        """One line for each step; without streaming only the last. An error is the last line, or, before any, a status."""
        stream = Stream(request, NDJSON) if fields.flag("stream") is not False else None
        last: dict[str, Any] = {}
        try:
            with self._noticing(request.path):
                async for last in progress:
                    if stream is not None:
                        await stream.write(encode(last) + b"\n")
        except Refusal as refusal:
            error = encode({"error": refusal.message})
            if stream is None or not last:
                return await reply(request, refusal.status, Body(JSON_LINE, error))
            await stream.write(error + b"\n")
        self._ledger.changed()
        if stream is None:
            return await reply(request, 200, Body(JSON_LINE, encode(last)))
        return await stream.end()

    @contextmanager
    def _noticing(self, endpoint: str) -> Iterator[None]:
        """Notes a client that leaves."""
        try:
            yield
        except (asyncio.CancelledError, ConnectionError, ClientError, HttpProcessingError) as error:
            self._ledger.left(endpoint)
            raise asyncio.CancelledError from error

    def _full_disk(self, fault: str, model: str) -> None:
        if self._faults.take((fault,), model):
            raise Refusal(500, "no space left on device")

    async def _pulling(self, name: ModelName) -> Progress:
        yield {"status": "pulling manifest"}
        if not is_published(name) or self._faults.take(("pull_error",), name.short):
            raise Refusal(500, "pull model manifest: file does not exist")
        model = model_named(name.short)
        for layer in model.manifest:
            line = {"status": f"pulling {layer.digest[7:19]}", "digest": layer.digest, "total": layer.size}
            begun = clock.now()
            done = layer.size if layer.digest in self._store.blobs else 0
            while done < layer.size:
                yield line | ({"completed": done} if done else {})
                await clock.wait_until(clock.now() + min(_REPORT_SECONDS, layer.size / self._pull_bytes_per_second))
                done = min(layer.size, int((clock.now() - begun) * self._pull_bytes_per_second))
            self._store.blobs[layer.digest] = layer.size
            yield line | {"completed": layer.size}
        yield {"status": "verifying sha256 digest"}
        yield {"status": "writing manifest"}
        self._store.add(model)
        yield {"status": "success"}

    async def _pushing(self, name: ModelName) -> Progress:
        yield {"status": "retrieving manifest"}
        model = self._store.find(name.short)
        if model is None:
            yield {"status": "couldn't retrieve manifest"}
            path = f"{STORE}/manifests/{name.host}/{name.namespace}/{name.model}/{name.tag}"
            raise Refusal(500, f"open {path}: no such file or directory")
        for layer in model.manifest:
            line = {"status": f"pushing {layer.digest[7:19]}", "digest": layer.digest, "total": layer.size}
            yield line
            yield line | {"completed": layer.size}
        yield {"status": "pushing manifest"}
        yield {"status": "success"}

    async def _creating(self, name: ModelName, fields: Fields) -> Progress:
        self._full_disk("create_error", name.short)
        files = {str(digest) for digest in fields.mapping("files").values()}
        if files:
            yield {"status": "parsing GGUF"}
            for digest in sorted(files):
                if digest not in self._store.blobs:
                    path = f"{STORE}/blobs/{digest.replace(':', '-')}"
                    raise Refusal(500, f"open {path}: no such file or directory")
            yield {"status": "verifying conversion"}
            size = sum(self._store.blobs[digest] for digest in files)
            model = replace(model_named(name.short), blob=sha256("".join(sorted(files))), blob_bytes=size)
        else:
            async for line in self._base(fields.text("from")):
                yield line
            model = replace(self._from(fields.text("from")), name=name)
        model = _changed(model, fields)
        for layer in model.manifest:
            known = layer.digest in self._store.blobs
            yield {"status": f"{'using existing' if known else 'creating new'} layer {layer.digest}"}
        yield {"status": "writing manifest"}
        self._store.add(model)
        yield {"status": "success"}

    async def _base(self, base: str) -> Progress:
        """The steps that fetch the model to start from, when it is not here."""
        name = ModelName.parse(base)
        if name is None:
            raise Refusal(400, "neither 'from' or 'files' was specified")
        if self._store.find(base) is None:
            async for line in self._pulling(name):
                if line["status"] != "success":
                    yield line

    def _from(self, base: str) -> SimulatedModel:
        model = self._store.find(base)
        assert model is not None
        return model


def _changed(model: SimulatedModel, fields: Fields) -> SimulatedModel:
    return replace(
        model,
        system=fields.text("system") or model.system,
        template=fields.text("template") or model.template,
        license=fields.text("license") or model.license,
    )


def _name(fields: Fields) -> ModelName:
    name = ModelName.parse(fields.text("model") or fields.text("name"))
    if name is None:
        raise Refusal(400, "invalid model name")
    return name


def _blob_digest(request: web.Request) -> str:
    digest = request.path.rpartition("/")[2]
    if not _DIGEST.fullmatch(digest):
        raise Refusal(400, "invalid digest format")
    return digest.replace("-", ":").lower()


def _refusing(status: int, message: str) -> Handler:
    async def refuse(request: web.Request) -> web.StreamResponse:  # noqa: ARG001  a handler is a coroutine
        raise Refusal(status, message)

    return refuse
