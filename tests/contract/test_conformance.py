"""Nobody can tell Corral from one Ollama: whatever is asked, two equal hosts behind Corral answer as one of them does directly.

With ``CORRAL_TEST_OLLAMA=url,url`` the hosts are real ones: the first is asked directly, all of them through Corral, and only shapes
are compared. Asks that say why they are for simulated hosts `alone` are left out; models are the smallest that the first host has.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import orjson
import pytest

from simulator.host import SimulatedHost
from tests.builders import AUDIO, EMBEDDING, OTHER, TEXT, simulated
from tests.conftest import Corral
from tests.contract.asks import STATELESS, Ask
from tests.contract.cases import CASES, Case, prepare, recorded_host
from tests.contract.changes import BROKEN, MANAGING
from tests.contract.conformance import misshapen, unlike
from tests.contract.raw import Answer, ask
from tests.real import REAL, real_hosts, smallest
from tests.stage import Stage

pytestmark = pytest.mark.real

# -- where Corral differs on purpose ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Exempt:
    """Asks, by a pattern for their names, whose answers differ, and why. What is left after ``alike`` must not.

    ``alike`` takes the names of the hosts and either answer. With ``status`` the answer is another one altogether: with that status.
    """

    why: str
    asks: str
    alike: Callable[[Sequence[str], Answer], Answer] = lambda _, answer: answer
    status: int = 0


def wordless(_: Sequence[str], answer: Answer) -> Answer:
    """Without the text of an error, and without what tells whether a handler of Ollama's wrote it."""
    body = re.sub(rb'"(error|message)":"(?:[^"\\]|\\.)*"', rb'"\1":""', answer.body).rstrip()
    headers = [(name, value.removesuffix("; charset=utf-8")) for name, value in answer.headers]
    return replace(answer, chunks=[body], headers=headers)


def nameless(hosts: Sequence[str], answer: Answer) -> Answer:
    """Without the names of hosts in an error, and the words about them, where all say the same."""
    host = rf"(?:{'|'.join(map(re.escape, hosts))})"
    name = rf"{host}(?:, {host})*: (?:\d\d\d )?"
    told = re.compile(rf'(?<=")(?:\d+ hosts were tried and failed: )?{name}((?:[^"\\]|\\.)*)')

    def once(found: re.Match[str]) -> str:
        parts = re.split(f"; {name}", found[1])
        return parts[0] if len(set(parts)) == 1 else found[0]

    chunks = [told.sub(once, chunk.decode()).replace('"code":"hosts_failed"', '"code":null') for chunk in answer.chunks]
    headers = [pair for pair in answer.headers if pair[0] != "Retry-After"]
    return replace(answer, chunks=[chunk.encode() for chunk in chunks], headers=headers)


def rough(_: Sequence[str], answer: Answer) -> Answer:
    """Progress with the last step of each bar alone, behind the statuses."""
    lines = [line for chunk in answer.chunks for line in chunk.splitlines(keepends=True)]
    bars = {orjson.loads(line).get("digest"): line for line in lines}
    bars.pop(None, None)
    statuses = [line for line in lines if b'"digest"' not in line]
    return replace(answer, chunks=[*statuses, *(bars[digest] for digest in sorted(bars))])


def unpermitted(_: Sequence[str], answer: Answer) -> Answer:
    """Without what a page is told."""
    told = ("Access-Control-Allow-Origin", "Vary")
    return replace(answer, headers=[pair for pair in answer.headers if pair[0] not in told])


UNREADABLE = r"(a list|a text|a number|half an object|half a text|no JSON|no zstd)"
EXEMPT = (
    Exempt(
        "What is wrong with a body is said with the byte, not in the words of Go's decoder; no host is asked.",
        rf".* {UNREADABLE}|generate_(bad_json|gzip_body_400)|.*'model': 1}}|.*\"source\": 1,.*",
        wordless,
    ),
    Exempt(
        "Who names no model is told so before a host could name another fault.",
        r"/v1/(chat/completions|embeddings|responses) (an empty object|null)",
        wordless,
    ),
    Exempt(
        "Hosts that fail are named (docs/decisions/0008).",
        r".*(/api/pull|/api/create|/api/push).*nobody-has-this.*|push_unknown|create_bad_digest|.*files.*sha256:1111.*",
        nameless,
    ),
    Exempt(
        "A request that fails on one host is tried on another, and all are named; a full fleet says when to come again.",
        r".* (busy|load_error)|.*stream=False error_mid_stream|generate_nostream_runner_killed",
        nameless,
    ),
    Exempt(
        "One bar for all hosts: that of the slowest, and a status waits for it too (docs/decisions/0008).",
        r"POST /api/pull .*(qwen2.5|QWEN2.5|smollm2)(?!.*\"stream\": false).*",
        rough,
    ),
    Exempt(
        "Who may call is looked at before a redirect is told: a page that may not is not even told that there is one.",
        r"GET /api/tags/ (a foreign page|null|a foreign name)",
        status=403,
    ),
    Exempt(
        "A page that may call is told so with a redirect too, and can follow it.",
        r"GET /api/tags/ (a page|an application|a preflight)",
        unpermitted,
    ),
    Exempt(
        "A model of any name can be asked for, with its slashes escaped.", r"GET /v1/models/library%2F.*", status=200
    ),
)


def verdict(one: Ask | Case, hosts: Sequence[str], straight: Answer, relayed: Answer) -> list[str]:
    """What tells the two answers apart that should not; an exemption that is not needed counts as well."""
    compared = misshapen if REAL else unlike
    found = compared(straight, relayed)
    exempt = next((entry for entry in EXEMPT if re.fullmatch(entry.asks, one.name, re.DOTALL)), None)
    if exempt is None:
        return found
    if not found:
        return [] if REAL else [f"it is as it should be, and need not be exempt: {exempt.why}"]
    if exempt.status:
        return [] if relayed.status == exempt.status else found
    return compared(exempt.alike(hosts, straight), exempt.alike(hosts, relayed))


# -- asking -------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Both:
    """One host, and Corral before hosts that are like it. ``models`` are the names that stand for those in the asks."""

    direct: str
    stage: Stage
    models: dict[str, str]

    @property
    def names(self) -> list[str]:
        """Of the hosts behind Corral."""
        return [host.name for host in self.stage.hosts]

    def asked(self, asks: Iterable[Ask]) -> list[Ask]:
        """Those that these hosts can be asked, of the models that they have."""
        if not REAL:
            return list(asks)
        return [self._of_theirs(one) for one in asks if not one.alone and self._has_what(one) is not None]

    async def send(self, one: Ask | Case, url: str) -> Answer:
        """The answer at an address."""
        body = one.sent if isinstance(one, Ask) else one.body
        return await ask(url, one.method, one.path, body, one.headers)

    async def compare(self, one: Ask | Case) -> list[str]:
        """Ask both."""
        straight, relayed = await self.send(one, self.direct), await self.send(one, self.stage.url)
        return verdict(one, self.names, straight, relayed)

    async def compare_change(self, one: Ask) -> list[str]:
        """Ask both, each in the same state, with what it looks like then; all is cleaned up after each."""
        urls = [host.url for host in self.stage.hosts]
        then = () if REAL else one.then
        straight = await self._in_turn(one, then, self.direct, [self.direct])
        relayed = await self._in_turn(one, then, self.stage.url, urls)
        pairs = zip((one, *then), straight, relayed, strict=True)
        return [line for each, first, second in pairs for line in verdict(each, self.names, first, second)]

    async def refresh(self) -> None:
        """Let Corral see what the hosts have now."""
        await self.stage.gateway.poller.refresh_changed(self.names, 5.0)

    async def _in_turn(self, one: Ask, then: Iterable[Ask], url: str, hosts: Iterable[str]) -> list[Answer]:
        for host in hosts:
            for first in one.before:
                await self.send(first, host)
        await self.refresh()
        answers = [await self.send(each, url) for each in (one, *then)]
        for host in hosts:
            for last in one.after:
                await self.send(last, host)
        return answers

    def _has_what(self, one: Ask) -> Ask | None:
        """The ask, unless it needs a model for embeddings that is not there."""
        return one if self.models.get(EMBEDDING) or EMBEDDING.encode() not in (one.body or b"").lower() else None

    def _of_theirs(self, one: Ask) -> Ask:
        body, path = one.body, one.path
        for ours, theirs in self.models.items():
            body = body and body.replace(ours.encode(), theirs.encode()).replace(
                ours.upper().encode(), theirs.upper().encode()
            )
            path = path.replace(ours, theirs.replace("/", "%2F"))
        around = {part: tuple(map(self._of_theirs, getattr(one, part))) for part in ("before", "then", "after")}
        return replace(one, body=body, path=path, **around)


def simulated_host(name: str) -> SimulatedHost:
    """All hosts are alike, but that one is slower to pull, so that one progress for both is never in step with the other's.

    Lists are never just as long as Go counts: times are not all equally long.
    """
    models = (TEXT, OTHER, EMBEDDING, AUDIO, "llama3.1:8b", "mistral:7b")
    return simulated(name, *models, pull_bytes_per_second=4e9 if name == "b" else 1e12)


async def before_real(corral: Corral) -> Both:
    """The hosts that are named, and the smallest models that the first one has."""
    stage = await corral(*real_hosts())
    kinds = smallest(orjson.loads((await ask(REAL[0], "GET", "/api/tags")).body)["models"])
    if "completion" not in kinds:
        pytest.skip("the first host in CORRAL_TEST_OLLAMA has no model that completes text")
    return Both(REAL[0], stage, {TEXT: kinds["completion"], EMBEDDING: kinds.get("embedding", "")})


# -- the tests ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", STATELESS)
async def test_what_leaves_nothing_behind(corral: Corral, kind: str) -> None:
    """Every endpoint in every form, and much that is odd, gets the answer of one host."""
    if REAL:
        both = await before_real(corral)
        assert {one.name: lines for one in both.asked(STATELESS[kind]) if (lines := await both.compare(one))} == {}
        return
    async with simulated_host("direct") as direct:
        both = Both(direct.url, await corral(simulated_host("a"), simulated_host("b")), {})
        assert {one.name: lines for one in both.asked(STATELESS[kind]) if (lines := await both.compare(one))} == {}


@pytest.mark.parametrize("one", [pytest.param(one, id=one.name) for one in (*MANAGING, *BROKEN)])
async def test_what_changes_hosts(corral: Corral, one: Ask) -> None:
    """Every call that manages models, and hosts that fail alike: the answer, and what the lists say then, are those of one host."""
    if REAL:
        if one.alone:
            pytest.skip(one.alone)
        both = await before_real(corral)
        assert [line for each in both.asked([one]) for line in await both.compare_change(each)] == []
        return
    hosts = [simulated_host(name) for name in ("direct", "a", "b")]
    async with hosts[0] as direct:
        stage = await corral(*hosts[1:])
        for host in hosts:
            if one.fault:
                host.faults.set(one.fault)
        assert await Both(direct.url, stage, {}).compare_change(one) == []


@pytest.mark.skipif(
    bool(REAL), reason="the recorded cases need the recorded state; what they ask is asked above as well"
)
@pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in CASES.items()])
async def test_what_was_recorded(corral: Corral, case: Case) -> None:
    """Every recorded case in the recorded state."""
    hosts = [recorded_host(name) for name in ("direct", "a", "b")]
    async with hosts[0] as direct:
        both = Both(direct.url, await corral(*hosts[1:]), {})
        for host in hosts:
            await prepare(case, host, host.url)
        await both.refresh()
        assert await both.compare(case) == []


def test_every_exemption_is_for_something() -> None:
    """No entry of the table is left over from what is no more."""
    names = (
        {one.name for kind in STATELESS.values() for one in kind}
        | {one.name for one in (*MANAGING, *BROKEN)}
        | set(CASES)
    )
    assert [entry.why for entry in EXEMPT if not any(re.fullmatch(entry.asks, name, re.DOTALL) for name in names)] == []
