"""Whether a smaller context that is loaded is enough for a request that asks for a larger one."""

import json
from typing import Any

import pytest

from gateway.config import ReloadsConfig
from gateway.dialects.request import Kind
from gateway.fleet.snapshot import HostView
from gateway.routing.clamping import ANSWER_TOKENS, TEMPLATE_TOKENS, clamped
from tests.builders import TEXT
from tests.fleet.builders import digest_of, loaded, request, snapshot, view

DIGEST = digest_of(TEXT)
CLAMP = (ReloadsConfig(("smollm2*",), "clamp"),)


def host(context: int, name: str = "gpu1", sent: Any = (), **more: Any) -> HostView:
    """One that has the model in memory with so much context."""
    options = (("num_ctx", context), *sent)
    return view(name, holds=[loaded(TEXT, context=context)], runners={DIGEST: options}, **more)


def ask(hosts: list[HostView], num_ctx: int = 8192, *more: tuple[str, Any], **changes: Any) -> tuple[int, int]:
    """(num_ctx that is sent, num_ctx that was asked for if that is another)."""
    predict = {"num_predict": changes.pop("limit")} if "limit" in changes else {}
    rules, lengths = changes.pop("rules", CLAMP), changes.pop("lengths", {})
    options = (("num_ctx", num_ctx), *more)
    body = json.dumps({"model": TEXT, "prompt": "x", "options": dict(options) | predict}).encode()
    one = request(**({"runner_options": options, "prompt_tokens": 10, "body": body} | changes))
    made = clamped(one, snapshot(*hosts, lengths=lengths, reloads=rules))
    sent = dict(made.runner_options)["num_ctx"]
    assert json.loads(made.body)["options"]["num_ctx"] == sent
    assert (made is one) is (sent == num_ctx)
    assert {key: value for key, value in made.runner_options if key != "num_ctx"} == dict(more)
    return sent, made.clamped_from


SENT: dict[str, tuple[list[HostView], dict[str, Any], int]] = {
    "it is enough": ([host(4096)], {}, 4096),
    "it is enough for as much as is asked for": ([host(4096)], {"limit": 3000}, 4096),
    "the answer may get too long": ([host(4096)], {"limit": 4000}, 8192),
    "answers are long as a rule": ([host(4096)], {"lengths": {DIGEST: 1000.0}}, 8192),
    "the prompt is too long": ([host(4096)], {"prompt_tokens": 2000}, 8192),
    "nobody knows how long the prompt is": ([host(65536)], {"num_ctx": 131072, "prompt_tokens": 32768}, 131072),
    "the largest that is loaded": ([host(2048, "a"), host(4096, "b")], {}, 4096),
    "one has it as it is asked for": ([host(4096, "a"), host(8192, "b")], {}, 8192),
    "a larger one is loaded": ([host(16384)], {}, 8192),
    "nothing is loaded": ([view()], {}, 8192),
    "it is loading still": ([host(4096, loading={DIGEST: 1.0})], {}, 8192),
    "the host drains": ([host(4096, draining=True)], {}, 8192),
    "another host was asked for": ([host(4096)], {"pin": "gpu2"}, 8192),
    "another option differs": ([host(4096, sent=(("num_thread", 8),))], {}, 8192),
    "no rule says so": ([host(4096)], {"rules": ()}, 8192),
    "another rule comes first": ([host(4096)], {"rules": (ReloadsConfig(("*",), "group"), *CLAMP)}, 8192),
    "it is to be loaded so": ([host(4096)], {"kind": Kind.LOAD}, 8192),
}


@pytest.mark.parametrize("name", SENT)
def test_clamped(name: str) -> None:
    """Case by case."""
    hosts, more, expected = SENT[name]
    asked = more.get("num_ctx", 8192)
    assert ask(hosts, **more) == (expected, 0 if expected == asked else asked)


def test_other_options_stay() -> None:
    """As they are, where the runner has them too."""
    assert ask([host(4096, sent=(("num_thread", 8),))], 8192, ("num_thread", 8)) == (4096, 8192)


def test_what_is_enough() -> None:
    """To the token."""
    most = 4096 - TEMPLATE_TOKENS - ANSWER_TOKENS
    assert ask([host(4096)], prompt_tokens=int(most / 1.6)) == (4096, 8192)
    assert ask([host(4096)], prompt_tokens=int(most / 1.6) + 1) == (8192, 0)


def test_only_where_options_are() -> None:
    """The other dialects have none."""
    one = request(path="/v1/chat/completions", runner_options=(("num_ctx", 8192),))
    assert clamped(one, snapshot(host(4096), reloads=CLAMP)) is one
