"""Who runs on a host, who waits, who is refused, and which models stay in memory."""

import pytest

from simulator.host import SimulatedHost
from simulator.models import model_named
from simulator.refusal import BUSY
from tests.simulator.hosts import LARGE, SLOW, SMALL, all_of, begun, chat, error, generate, get, lines, post, quick

MEDIUM = "qwen2.5:0.5b"


async def names_in_memory(host: SimulatedHost) -> list[str]:
    return [row["name"] for row in (await get(host, "/api/ps"))["models"]]


async def test_slots_limit_how_many_generate() -> None:
    """With two slots the third request waits, and starts when one of the others ends."""
    async with (
        quick(parallel=2, tokens_per_second=SLOW) as host,
        begun(host, "/api/generate", generate(tokens=100)) as first,
        begun(host, "/api/generate", generate(tokens=100)),
    ):
        await host.wait_until(lambda: host.ledger.generating == 2)
        async with begun(host, "/api/generate", generate(tokens=100)):
            await host.wait_until(lambda: host.ledger.queued == 1)
            assert host.ledger.generating == 2
            await first.close()
            await host.wait_until(lambda: host.ledger.generating == 2 and host.ledger.queued == 0)


async def test_a_loaded_model_queues_without_limit() -> None:
    """Requests for a loaded model are never refused, whatever the queue for loads may hold."""
    async with quick(max_queue=1) as host:
        await host.load(SMALL)
        answers = await all_of(host, "/api/generate", [generate()] * 20)
    assert [answer.status for answer in answers] == [200] * 20


async def test_a_loaded_model_answers_in_order() -> None:
    """The waiting line of a loaded model is first in, first out."""
    async with quick(tokens_per_second=SLOW) as host:
        async with begun(host, "/api/generate", generate(tokens=100)) as busy:
            await host.wait_until(lambda: host.ledger.generating == 1)
            async with begun(host, "/api/generate", generate(tokens=1)) as second:
                await host.wait_until(lambda: host.ledger.queued == 1)
                async with begun(host, "/api/generate", generate(tokens=1)) as third:
                    await host.wait_until(lambda: host.ledger.queued == 2)
                    await busy.close()
                    assert (await third.answer()).status == (await second.answer()).status == 200
        ended = [entry.ended for entry in host.ledger.entries]
        assert ended == sorted(ended)


async def test_cold_requests_beyond_the_queue_are_refused() -> None:
    """While a model loads, max_queue requests wait and the rest get 503, each in the words of its dialect."""
    async with quick(max_queue=2, load_bytes_per_second=2.5e8) as host:
        answers = await all_of(host, "/api/generate", [generate()] * 12)
    assert sorted(answer.status for answer in answers) == [200] * 3 + [503] * 9
    assert {error(answer) for answer in answers if answer.status == 503} == {(503, BUSY)}
    assert host.ledger.loads == 1


async def test_one_load_at_a_time_in_order() -> None:
    """A second model waits until the first is loaded, and is in no list before it is loaded itself."""
    async with quick(load_bytes_per_second=1e6) as host, begun(host, "/api/generate", generate(SMALL)):
        await host.wait_until(lambda: host.ledger.loading == 1)
        async with begun(host, "/api/generate", generate(LARGE)):
            await host.wait_until(lambda: host.ledger.queued == 1)
            assert host.ledger.loading == 1
            assert await names_in_memory(host) == []


async def test_a_load_slows_nobody_who_needs_none() -> None:
    """A loaded model answers while another one loads."""
    async with quick(load_bytes_per_second=1e9) as host:
        await host.load(SMALL)
        async with begun(host, "/api/generate", generate(LARGE)):
            await host.wait_until(lambda: host.ledger.loading == 1)
            assert (await post(host, "/api/generate", generate(SMALL))).status == 200
            assert host.ledger.loading == 1


async def test_memory_for_one_model_evicts_the_idle_one() -> None:
    """When both do not fit, the idle model leaves."""
    need = model_named(LARGE).runner_bytes(4096)
    async with quick(vram_bytes=need + 1) as host:
        await host.load(SMALL)
        await host.load(LARGE)
        assert host.loaded == (LARGE,)
        assert (host.ledger.loads, host.ledger.unloads) == (2, 1)


async def test_a_busy_model_is_evicted_when_it_is_done() -> None:
    """A load that needs the memory of a busy model waits for it, and every other load waits behind."""
    async with (
        quick(max_loaded=1, tokens_per_second=SLOW, models=(SMALL, LARGE, MEDIUM)) as host,
        begun(host, "/api/generate", generate(SMALL, tokens=100)) as busy,
    ):
        await host.wait_until(lambda: host.ledger.generating == 1)
        async with begun(host, "/api/generate", generate(LARGE)), begun(host, "/api/generate", generate(MEDIUM)):
            await host.wait_until(lambda: host.ledger.queued == 2)
            assert host.loaded == (SMALL,)
            await busy.close()
            await host.wait_until(lambda: host.loaded == (LARGE,))
            assert host.ledger.queued == 1


async def test_the_shortest_keep_alive_leaves_first() -> None:
    """Among idle models the one that wants to stay the least is evicted."""
    async with quick(max_loaded=2, models=(SMALL, LARGE, MEDIUM)) as host:
        await post(host, "/api/generate", {"model": SMALL, "keep_alive": "1h"})
        await post(host, "/api/generate", {"model": LARGE, "keep_alive": "5m"})
        await host.load(MEDIUM)
        assert set(host.loaded) == {SMALL, MEDIUM}


async def test_an_idle_model_leaves_before_a_busy_one() -> None:
    """However long the idle one wants to stay."""
    async with quick(max_loaded=2, tokens_per_second=SLOW, models=(SMALL, LARGE, MEDIUM)) as host:
        await post(host, "/api/generate", {"model": LARGE, "keep_alive": "1h"})
        async with begun(host, "/api/generate", generate(SMALL, tokens=100, keep_alive="1m")):
            await host.wait_until(lambda: host.ledger.generating == 1)
            await host.load(MEDIUM)
            assert host.loaded == (SMALL, MEDIUM)


async def test_a_model_too_large_is_loaded_in_part() -> None:
    """A model larger than the memory is loaded with what there is of it."""
    async with quick(vram_bytes=10**9) as host:
        await host.load(LARGE)
        row = (await get(host, "/api/ps"))["models"][0]
    assert row["size_vram"] == 10**9 < row["size"]


@pytest.mark.parametrize(
    ("change", "causes"),
    [
        ({"options": {"num_ctx": 2048}}, {"num_ctx": 1}),
        ({"options": {"num_ctx": 4096}}, {}),
        ({"options": {"num_batch": 128}}, {"num_batch": 1}),
        ({"options": {"num_thread": 2, "num_gpu": 3}}, {"num_gpu": 1, "num_thread": 1}),
        ({"options": {"num_gpu": -1}}, {}),
        ({"options": {"use_mmap": False}}, {"use_mmap": 1}),
        ({"shift": False}, {"shift": 1}),
        ({"options": {"temperature": 0.1, "num_keep": 8, "top_k": 1, "seed": 3, "stop": ["x"]}}, {}),
    ],
)
async def test_runner_options_reload_and_others_do_not(change: dict[str, object], causes: dict[str, int]) -> None:
    """A difference in a runner's options reloads the model and is counted; sampling options do nothing."""
    async with quick() as host:
        await host.load(SMALL)
        assert (await post(host, "/api/generate", generate(**change))).status == 200
        assert dict(host.ledger.reloads) == causes
        assert host.ledger.loads == 1 + bool(causes)


async def test_the_context_is_never_longer_than_the_model_was_trained_for() -> None:
    """num_ctx is cut to the model's own, and asking for more again does not reload."""
    async with quick() as host:
        for num_ctx in (1_000_000, 8192, 2_000_000):
            await post(host, "/api/generate", generate(options={"num_ctx": num_ctx}))
        assert (await get(host, "/api/ps"))["models"][0]["context_length"] == 8192
        assert host.ledger.loads == 1


async def test_copies_share_a_runner_under_the_first_name() -> None:
    """Names of the same blob are one model in memory, listed as the name that loaded it."""
    async with quick() as host:
        await post(host, "/api/copy", {"source": SMALL, "destination": "twin"})
        await post(host, "/api/generate", generate("twin"))
        answer = await post(host, "/api/generate", generate(SMALL, stream=False))
        assert lines(answer)[0]["model"] == SMALL
        assert await names_in_memory(host) == ["twin:latest"]
        assert host.ledger.loads == 1


async def test_keep_alive_stays_until_another_is_given() -> None:
    """A keep_alive holds for later requests without one; a negative one means for ever."""
    async with quick(keep_alive_seconds=0.0) as host:
        await post(host, "/api/generate", generate(keep_alive=-1))
        await post(host, "/api/generate", generate())
        assert (await get(host, "/api/ps"))["models"][0]["expires_at"].startswith("23")
        await post(host, "/api/chat", chat(keep_alive="0s"))
        await host.wait_until(lambda: host.loaded == ())


async def test_an_idle_model_leaves_when_its_time_is_over() -> None:
    """keep_alive counts from the end of the last request."""
    async with quick() as host:
        await post(host, "/api/generate", generate(keep_alive=0.05))
        assert host.loaded == (SMALL,)
        await host.wait_until(lambda: host.loaded == ())
        assert host.ledger.unloads == 1


async def test_unloading_waits_for_those_who_use_the_model() -> None:
    """An unload request is answered at once and takes effect when the last request has ended."""
    async with quick(tokens_per_second=SLOW) as host, begun(host, "/api/generate", generate(tokens=100)) as busy:
        await host.wait_until(lambda: host.ledger.generating == 1)
        answer = await post(host, "/api/generate", {"model": SMALL, "keep_alive": 0})
        assert lines(answer)[0]["done_reason"] == "unload"
        assert host.loaded == (SMALL,)
        await busy.close()
        await host.wait_until(lambda: host.loaded == ())


async def test_a_deleted_model_stays_in_memory() -> None:
    """Deleting takes a model from the disk only."""
    async with quick() as host:
        await host.load(SMALL)
        await host_delete(host)
        assert host.loaded == (SMALL,)
        assert error(await post(host, "/api/generate", generate())) == (404, f"model '{SMALL}' not found")


async def host_delete(host: SimulatedHost) -> None:
    model = host.store.find(SMALL)
    assert model is not None
    host.store.delete(model)


async def test_a_repeated_prompt_is_in_the_cache() -> None:
    """Of a prompt that a slot has seen, only the last token is evaluated again."""
    prompt = "word " * 500
    async with quick(prefill_tokens_per_second=5000.0) as host:
        first, second = [lines(await post(host, "/api/generate", generate(prompt=prompt)))[-1] for _ in range(2)]
        assert [entry.cached_tokens for entry in host.ledger.entries] == [0, 508]
    assert first["prompt_eval_count"] == second["prompt_eval_count"] == 509
    assert first["prompt_eval_duration"] > max(100e6, second["prompt_eval_duration"])


async def test_the_next_turn_of_a_chat_is_in_the_cache() -> None:
    """A conversation's earlier turns, the model's own words among them, cost no prefill."""
    async with quick() as host:
        first = lines(await post(host, "/api/chat", chat(stream=False)))[0]
        messages = [
            {"role": "user", "content": "Why is the sky blue?"},
            first["message"],
            {"role": "user", "content": "And at night?"},
        ]
        await post(host, "/api/chat", {"model": SMALL, "messages": messages, "options": {"num_predict": 1}})
        one, two = host.ledger.entries
        assert two.cached_tokens == one.prompt_tokens + one.output_tokens


async def test_a_conversation_returns_to_its_own_slot() -> None:
    """With two slots, the one that knows the prompt's beginning is taken."""
    async with quick(parallel=2) as host:
        for prompt in ("alpha " * 50, "beta " * 50, "alpha " * 50, "beta " * 50):
            await post(host, "/api/generate", generate(prompt=prompt))
        cached = [entry.cached_tokens for entry in host.ledger.entries]
        assert cached[2] == cached[3] == 58
