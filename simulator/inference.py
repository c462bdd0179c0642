"""One inference from its request to its end: read, wait for the model and a slot, prefill, generate, answer.

Any of these ends it early: a Refusal (an error in the client's dialect), the client leaving (the task is cancelled, the
slot is free at once), or a fault.
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import zstandard
from aiohttp import web

from simulator import clock, replies, scripts, text
from simulator.dialects import fields
from simulator.dialects.inference import Answer, Dialect, Done, Inference, Sent, Vectors
from simulator.faults import BEFORE, HELD, MID_STREAM, Fault, Faults
from simulator.ledger import Entry, Ledger
from simulator.models import SimulatedModel
from simulator.names import is_cloud
from simulator.profile import HostProfile
from simulator.refusal import BUSY, RUNNER_DIED, Refusal
from simulator.scheduler import Runner, RunnerOptions, Scheduler, Slot
from simulator.store import Store

_MOST_CONTEXTS = 10
"""Without num_predict an answer may be this many contexts long."""
_ZSTD_BYTES = 20 * 1024 * 1024
_GARBAGE = b"\x00\x01\x02 this is not HTTP \xff\xfe\r\n\r\n"
_GARBAGE_CHUNK = b"not a chunk size\r\n"


class _Broken(Exception):
    """A fault ends the answer; `fault` says which."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.name)
        self.fault = fault


@dataclass(slots=True)
class _Timing:
    """Monotonic nanoseconds at which the parts of a generation began and ended."""

    started: int
    loaded: int = 0
    prefill: int = 0
    first: int = 0
    last: int = 0


class Inferences:
    """The inference endpoints of one host. `ending` says why the host closes connections, if it does."""

    def __init__(
        self,
        profile: HostProfile,
        store: Store,
        scheduler: Scheduler,
        faults: Faults,
        ledger: Ledger,
        seed: int,
        ending: Callable[[], str | None],
    ) -> None:
        self._profile = profile
        self._store = store
        self._scheduler = scheduler
        self._faults = faults
        self._ledger = ledger
        self._seed = seed
        self._ids = random.Random(seed)
        self._ending = ending

    async def serve(self, request: web.Request, dialect: Dialect) -> web.StreamResponse:
        """Answer one request. The ledger gets one entry, ended however it ends."""
        headers = request.headers
        entry = self._ledger.begin(request.path, headers.get("X-Corral-Generation") or headers.get("X-Request-Id"))
        try:
            return await self._serve(request, dialect, entry)
        except Refusal as refusal:
            self._ledger.end(entry, f"error:{refusal.status}")
            return await replies.reply(request, refusal.status, dialect.error(refusal))
        except asyncio.CancelledError:
            self._ledger.end(entry, self._ending() or "disconnected")
            raise
        except ConnectionResetError:
            self._ledger.end(entry, self._ending() or "disconnected")
            return web.Response()

    async def _serve(self, request: web.Request, dialect: Dialect, entry: Entry) -> web.StreamResponse:
        timing = _Timing(clock.now_ns())
        body = await request.read()
        self._ledger.body(body)
        inference, answer = self._read(request, dialect, body)
        entry.model = inference.model
        if (fault := self._faults.take(BEFORE, inference.model)) is not None:
            return self._break_before(request, entry, fault)
        model = self._model(inference)
        options = fields.options(inference.options)
        if inference.load and inference.keep_alive == 0:
            self._scheduler.unload(model)
            return await self._whole(request, entry, answer, Done(reason="unload"))
        self._check(inference, model)
        runner_options = RunnerOptions.of(options, shift=inference.shift)
        async with self._scheduler.runner(model, runner_options, inference.keep_alive, entry) as runner:
            timing.loaded = clock.now_ns()
            if inference.load:
                return await self._whole(request, entry, answer, Done(reason="load"))
            if isinstance(answer, Vectors):
                return await self._embed(request, entry, inference, answer, runner, timing)
            prompt = inference.prompt[-runner.context :]
            async with runner.slot(prompt) as (slot, cached):
                entry.prompt_tokens, entry.cached_tokens = len(prompt), min(cached, len(prompt) - 1)
                rng = scripts.randomness(self._seed, model, prompt, options.get("seed"))
                script = scripts.compose(rng, inference, model, self._limit(options, runner))
                return await self._generate(request, entry, inference, answer, slot, prompt, script, timing)

    def _read(self, request: web.Request, dialect: Dialect, body: bytes) -> tuple[Inference, Answer | Vectors]:
        try:
            return dialect.read(Sent(_plain(request, body), request.headers.get("Content-Type", ""), self._ids))
        except Refusal as refusal:
            refusal.early = True
            raise

    def _break_before(self, request: web.Request, entry: Entry, fault: Fault) -> web.StreamResponse:
        if fault.name == "busy":
            raise Refusal(503, BUSY)
        self._ledger.end(entry, f"fault:{fault.name}")
        if fault.name == "reset_before_headers":
            replies.reset(request)
        elif fault.name == "close_before_headers":
            replies.close(request)
        else:
            replies.raw(request, _GARBAGE)
        return web.Response()

    def _model(self, inference: Inference) -> SimulatedModel:
        name = inference.model
        if is_cloud(name):
            raise Refusal(403, "ollama cloud is disabled: remote model is unavailable")
        if not name and inference.kind == "chat":
            raise Refusal(400, "model is required")
        model = self._store.find(name)
        if inference.kind == "embeddings" and model is not None and model.name.model not in name:
            model = None
        if model is None or self._faults.take(("ghost_model",), name) is not None:
            embeds = inference.kind in ("embed", "embeddings")
            raise Refusal(
                404, f'model "{name}" not found, try pulling it first' if embeds else f"model '{name}' not found"
            )
        return model

    def _check(self, inference: Inference, model: SimulatedModel) -> None:
        if inference.kind in ("embed", "embeddings"):
            return
        if "completion" not in model.capabilities:
            raise Refusal(400, f'"{inference.model}" does not support {inference.kind}')
        if inference.think and inference.must_think and "thinking" not in model.capabilities:
            raise Refusal(400, f'"{inference.model}" does not support thinking')
        for need in inference.needs:
            if need not in model.capabilities:
                raise Refusal(400, f"{model.name.full} does not support {need}")

    async def _whole(
        self, request: web.Request, entry: Entry, answer: Answer | Vectors, done: Done
    ) -> web.StreamResponse:
        """Answer a request that only loads or unloads, in one object whatever `stream` says."""
        body = answer.embedded((), done) if isinstance(answer, Vectors) else answer.whole((), done)
        self._ledger.end(entry, "completed")
        return await replies.reply(request, 200, body)

    def _limit(self, options: dict[str, Any], runner: Runner) -> scripts.Limit:
        asked = options.get("num_predict", -1)
        most = _MOST_CONTEXTS * runner.context
        if asked >= 0:
            return scripts.Limit(min(asked, most), reached=True)
        usual = self._profile.num_predict_default
        return scripts.Limit(None if usual is None else min(usual, most), reached=False)

    async def _generate(
        self,
        request: web.Request,
        entry: Entry,
        inference: Inference,
        answer: Answer,
        slot: Slot,
        prompt: list[int],
        script: scripts.Script,
        timing: _Timing,
    ) -> web.StreamResponse:
        stream = replies.Stream(request, answer.stream_type, answer.stream_headers) if inference.stream else None
        try:
            await self._prefill(entry, slot, prompt, timing)
            await self._say(entry, answer, stream, script)
        except _Broken as broken:
            slot.cached = prompt
            return await self._break(request, entry, answer, stream, broken.fault)
        timing.last = clock.now_ns()
        said = [number for token in script.tokens for number in text.tokens(token.piece.text)]
        slot.cached = prompt + said
        done = Done(
            reason="length" if script.reached_limit else "stop",
            total_duration=timing.last - timing.started,
            load_duration=timing.loaded - timing.started,
            prompt_tokens=len(prompt),
            prompt_duration=timing.first - timing.prefill,
            output_tokens=script.counted,
            output_duration=max(1000, timing.last - timing.first),
            context=None if inference.raw else slot.cached,
            tool_calls=script.calls,
        )
        if stream is None:
            response = await replies.reply(request, 200, answer.whole(script.tokens, done))
        else:
            for chunk in answer.last(done):
                await stream.write(chunk)
            response = await stream.end()
        self._ledger.end(entry, "completed")
        return response

    async def _prefill(self, entry: Entry, slot: Slot, prompt: list[int], timing: _Timing) -> None:
        self._ledger.move(entry, "prefill")
        timing.prefill = clock.now_ns()
        if (fault := self._faults.take(HELD, entry.model)) is not None:
            await fault.hold()
        evaluated = len(prompt) - entry.cached_tokens
        await clock.wait_until(timing.prefill / 1e9 + evaluated / self._profile.prefill_tokens_per_second)
        slot.cached = prompt
        timing.first = clock.now_ns()
        self._ledger.move(entry, "generating")

    async def _say(self, entry: Entry, answer: Answer, stream: replies.Stream | None, script: scripts.Script) -> None:
        pace = clock.Pace(clock.now(), self._profile.tokens_per_second)
        for index, token in enumerate(script.tokens):
            await pace.token(index)
            if self._faults:
                await self._interrupt(entry, index)
            if stream is not None:
                for chunk in answer.token(token):
                    await stream.write(chunk)
            self._ledger.token(entry)
        for index in range(len(script.tokens), script.counted):
            await pace.token(index)
            if self._faults:
                await self._interrupt(entry, index)
            self._ledger.token(entry)

    async def _interrupt(self, entry: Entry, tokens: int) -> None:
        fault = self._faults.take(MID_STREAM, entry.model, tokens)
        if fault is None:
            return
        if fault.name != "hang_mid_stream":
            raise _Broken(fault)
        await fault.hold()

    async def _break(
        self, request: web.Request, entry: Entry, answer: Answer, stream: replies.Stream | None, fault: Fault
    ) -> web.StreamResponse:
        self._ledger.end(entry, f"fault:{fault.name}")
        if fault.name == "error_mid_stream" and stream is None:
            raise Refusal(500, RUNNER_DIED)
        if fault.name in ("error_mid_stream", "end_without_done") and stream is not None:
            if fault.name == "error_mid_stream":
                for chunk in answer.broken():
                    await stream.write(chunk)
            return await stream.end()
        if fault.name == "reset_mid_stream":
            replies.reset(request)
        elif fault.name == "garbage_mid_stream":
            replies.raw(request, _GARBAGE if stream is None else _GARBAGE_CHUNK)
        else:
            replies.close(request)
        return web.Response() if stream is None else stream.abandoned()

    async def _embed(
        self,
        request: web.Request,
        entry: Entry,
        inference: Inference,
        answer: Vectors,
        runner: Runner,
        timing: _Timing,
    ) -> web.StreamResponse:
        model = runner.model
        if not model.embeds_only:
            raise Refusal(501, "This server does not support embeddings. Start it with `--embeddings`")
        everything = [number for tokens in inference.inputs for number in tokens]
        async with runner.slot(everything):
            self._ledger.move(entry, "prefill")
            entry.prompt_tokens = len(everything)
            seconds = len(everything) / self._profile.prefill_tokens_per_second
            await clock.wait_until(clock.now() + seconds)
        length = min(inference.dimensions or model.embedding_length, model.embedding_length)
        vectors = [scripts.vector(scripts.randomness(self._seed, model, tokens), length) for tokens in inference.inputs]
        done = Done(
            reason="stop",
            total_duration=clock.now_ns() - timing.started,
            load_duration=timing.loaded - timing.started,
            prompt_tokens=len(everything),
        )
        self._ledger.end(entry, "completed")
        return await replies.reply(request, 200, answer.embedded(vectors, done))


def _plain(request: web.Request, body: bytes) -> bytes:
    """The body, with zstd undone where Ollama undoes it: on the JSON paths under /v1."""
    if request.headers.get("Content-Encoding", "").lower() != "zstd" or not request.path.startswith("/v1/"):
        return body
    try:
        return zstandard.ZstdDecompressor().decompress(body, max_output_size=_ZSTD_BYTES)
    except zstandard.ZstdError:
        raise Refusal(400, "failed to decompress zstd body") from None
