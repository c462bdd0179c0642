"""The recorded answers of a real Ollama, and the replay of one of them against any address that claims to be one."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from simulator.host import HostProfile, SimulatedHost
from simulator.names import ModelName
from tests.contract.raw import Answer, ask
from tests.contract.shapes import differences, events, stream_differences

_NOT_COMPARED = ("date", "x-corral-", "x-request-id")
_SMALL = "smollm2:135m"


@dataclass(frozen=True, slots=True)
class Case:
    """One request and the answer that was recorded; a chunk `...` stands for chunks left out."""

    name: str
    method: str
    path: str
    headers: dict[str, str]
    body: bytes | None
    status: int
    reason: str
    answer_headers: list[tuple[str, str]]
    chunks: list[bytes | str]

    @property
    def streams(self) -> bool:
        """Whether the recorded answer came in lines or events."""
        media_type = dict(self.answer_headers).get("Content-Type", "")
        return media_type in ("application/x-ndjson", "text/event-stream")


def _load(path: Path) -> Case:
    recorded = json.loads(path.read_text(encoding="utf-8"))
    request, response = recorded["request"], recorded["response"]
    given = request["body"]
    body = None if given is None else (given if isinstance(given, str) else json.dumps(given)).encode()
    return Case(
        name=recorded["case"],
        method=request["method"],
        path=request["path"],
        headers=request["headers"],
        body=body,
        status=response["status"],
        reason=response["reason"],
        answer_headers=[(name, value) for name, value in response["headers"]],
        chunks=["..." if chunk[0] == "..." else chunk[1].encode() for chunk in response["chunks"]],
    )


CASES = {case.name: case for case in map(_load, sorted((Path(__file__).parent / "wire").glob("*.json")))}


def recorded_host(name: str = "recorded") -> SimulatedHost:
    """A host like the recorded one: no GPU, a model and its copy under another name, nothing in memory. Not started."""
    host = SimulatedHost(
        name,
        HostProfile(
            models=(_SMALL,),
            vram_bytes=0,
            tokens_per_second=5000.0,
            prefill_tokens_per_second=1e6,
            load_bytes_per_second=1e12,
            version="0.0.0",
        ),
        seed=1,
    )
    _copy(host, "llama3.2:1b")
    return host


def _copy(host: SimulatedHost, name: str) -> None:
    model, target = host.store.find(_SMALL), ModelName.parse(name)
    assert model is not None
    assert target is not None
    host.store.copy(model, target)


def _kill_runner(host: SimulatedHost) -> None:
    host.faults.set("error_mid_stream", after_chunks=30)


_BEFORE: dict[str, Callable[[SimulatedHost], None]] = {
    "chat_runner_killed": _kill_runner,
    "generate_nostream_runner_killed": _kill_runner,
    "generate_runner_killed": _kill_runner,
    "v1_chat_runner_killed": _kill_runner,
    "v1_responses_runner_killed": _kill_runner,
    "delete": lambda host: _copy(host, "copied"),
    "delete_derived": lambda host: _copy(host, "derived"),
    "tags_two_models": lambda host: _copy(host, "copied"),
}
_REQUESTS_BEFORE = {
    "ps_loaded": "load_generate_empty_prompt",
    "ps_after_num_ctx": "reload_by_num_ctx",
    "ps_after_unload": "load_generate_empty_prompt unload_chat",
    "reload_by_num_ctx": "load_generate_empty_prompt",
    "reload_back": "reload_by_num_ctx",
    "unload_chat": "load_generate_empty_prompt",
    "unload_all_generate": "load_generate_empty_prompt",
}


async def prepare(case: Case, host: SimulatedHost, url: str) -> None:
    """Bring a fresh `host`, reached through `url`, to where the recorded one was before the request."""
    for name in _REQUESTS_BEFORE.get(case.name, "").split():
        await send(CASES[name], url)
    _BEFORE.get(case.name, lambda _: None)(host)


async def send(case: Case, url: str) -> Answer:
    """Send a case's request."""
    return await ask(url, case.method, case.path, case.body, case.headers)


def answer_differences(case: Case, answer: Answer) -> list[str]:
    """What differs from the recorded answer: status, headers, framing, chunks; [] when nothing does."""
    lines = []
    if (answer.status, answer.reason) != (case.status, case.reason):
        lines.append(f"{case.status} {case.reason} became {answer.status} {answer.reason}: {answer.body[:200]!r}")
    wanted, found = (_comparable(headers, case.status) for headers in (case.answer_headers, answer.headers))
    if wanted != found:
        lines.append(f"headers {wanted} became {found}")
    if case.streams and not any(_is_token(chunk) for chunk in case.chunks):
        return lines + stream_differences(case.chunks, [chunk for chunk in answer.chunks if not _is_token(chunk)])
    if case.streams:
        return lines + stream_differences(case.chunks, answer.chunks)
    return lines + _whole_differences(b"".join(c for c in case.chunks if isinstance(c, bytes)), answer.body)


def _comparable(headers: list[tuple[str, str]], status: int) -> list[tuple[str, str]]:
    """Names and values but for Date and a gateway's own; a Content-Length counts as such only for an error's text."""
    pairs = [(name.lower(), value) for name, value in headers if not name.lower().startswith(_NOT_COMPARED)]
    return sorted((name, "" if name == "content-length" and status < 400 else value) for name, value in pairs)


def _is_token(chunk: bytes | str) -> bool:
    return isinstance(chunk, bytes) and b'"done":false' in chunk


def _whole_differences(expected: bytes, actual: bytes) -> list[str]:
    wanted, found = events(expected), events(actual)
    if expected.endswith(b"\n") is not actual.endswith(b"\n"):
        return [f"the end of {expected[-20:]!r} became {actual[-20:]!r}"]
    return differences(wanted, found)
