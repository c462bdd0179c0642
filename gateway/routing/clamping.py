"""A request whose ``num_ctx`` alone would load a model anew, though a smaller context is loaded and is enough for it: then the smaller one is sent.

Only where a ``[[reloads]]`` rule says so (``policy = "clamp"``), and only to native endpoints, which alone have options. What may be enough:

    1.6 × the estimated tokens of the prompt + 256 for the template
    + num_predict, or, where the caller sets no limit, four times what the model says on average, at least 1024

A prompt so long that its estimate is cut off is never clamped.
"""

from typing import Final

import msgspec

from gateway.dialects.context import output_limit, with_context
from gateway.dialects.read import PROMPT_TOKENS_LIMIT
from gateway.dialects.request import InferenceRequest, Kind
from gateway.fleet.host import RunnerOptions
from gateway.fleet.runners import differences, rule_for
from gateway.fleet.snapshot import FleetSnapshot, HostView
from gateway.routing.filters import reject

PROMPT_SHARE: Final = 1.6  # a token is four bytes of English, and less of much else
TEMPLATE_TOKENS: Final = 256
ANSWER_TOKENS, ANSWERS = 1024, 4.0


def clamped(request: InferenceRequest, snapshot: FleetSnapshot) -> InferenceRequest:
    """The same, or one that asks for the largest context that a host has the model with and that is enough for it."""
    options = dict(request.runner_options)
    asked = options.get("num_ctx")
    if not asked or request.kind is not Kind.INFER or request.prompt_tokens >= PROMPT_TOKENS_LIMIT:
        return request
    if request.endpoint.dialect != "ollama" or rule_for(request.model, snapshot.reloads) != "clamp":
        return request
    contexts = [context for view in snapshot.hosts if (context := _context(request, view))]
    if not contexts or asked in contexts:
        return request
    digest = next((found for view in snapshot.hosts if (found := view.digest_of(request.model))), "")
    needed = _needed(request, snapshot.lengths.get(digest, 0.0))
    enough = [context for context in contexts if needed <= context < asked]
    if not enough:
        return request
    tokens = max(enough)
    return msgspec.structs.replace(
        request,
        runner_options=_with(request.runner_options, tokens),
        body=with_context(request.body, tokens),
        clamped_from=asked,
    )


def _context(request: InferenceRequest, view: HostView) -> int:
    """With how many tokens this host would serve the request without a load, were it to ask for so many; 0: with none."""
    digest = view.digest_of(request.model)
    there = digest is not None and digest not in view.loading and digest not in view.leaving
    loaded = view.loaded.get(digest or "") if there else None
    if loaded is None or not loaded.context or reject(request, view, frozenset()) is not None:
        return 0
    wanted = _with(request.runner_options, loaded.context)
    return 0 if differences(wanted, view.runners.get(loaded.digest), loaded) else loaded.context


def _with(options: RunnerOptions, tokens: int) -> RunnerOptions:
    return tuple([(key, tokens if key == "num_ctx" else value) for key, value in options])


def _needed(request: InferenceRequest, answer: float) -> float:
    output = output_limit(request.body) or max(ANSWER_TOKENS, ANSWERS * answer)
    return PROMPT_SHARE * request.prompt_tokens + TEMPLATE_TOKENS + output
