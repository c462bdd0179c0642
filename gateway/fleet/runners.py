"""Which requests make Ollama load a model anew that is loaded already: those whose runner options differ from its runner's (server/sched.go,
needsReload). Pure.

What Corral knows of a runner is what it sent for it last, and the context that /api/ps tells. ``shift`` counts as left out where it is true, as
that is what it is by default; ``num_gpu`` where it is missing or -1 suits every runner.
"""

from collections.abc import Iterable

import msgspec

from gateway.config import ReloadsConfig
from gateway.fleet.host import LoadedModel, ReloadCause, RunnerOptions
from gateway.fleet.targets import named_by


def differences(wanted: RunnerOptions, sent: RunnerOptions | None, loaded: LoadedModel) -> list[str]:
    """The options for which Ollama would load anew; none: it would not. ``sent``: those last sent for this runner, None if not by us."""
    asked, had = dict(wanted), dict(sent or ())
    context, had_context = asked.pop("num_ctx", None), had.pop("num_ctx", None)
    if asked.get("num_gpu", -1) == -1:
        asked.pop("num_gpu", None)
        had.pop("num_gpu", None)
    found = ["num_ctx"] if (had_context is not None if context is None else context != loaded.context) else []
    return found + [key for key in {**asked, **had} if asked.get(key) != had.get(key)]


def cause(wanted: RunnerOptions, sent: RunnerOptions | None, loaded: LoadedModel) -> ReloadCause | None:
    """The same in a word; None: it would not."""
    found = differences(wanted, sent, loaded) if wanted != sent else []
    return None if not found else ReloadCause(found[0]) if len(found) == 1 else ReloadCause.SEVERAL


def recast(loaded: LoadedModel, context: int) -> LoadedModel:
    """The same model, loaded anew with another context."""
    return msgspec.structs.replace(loaded, context=context)


def rule_for(model: str, rules: Iterable[ReloadsConfig]) -> str:
    """What is to be done about a model's runner options, by the first rule that names it."""
    for rule in rules:
        if named_by(model, rule.models):
            return rule.policy
    return "group"


def left_to_ollama(model: str, rules: Iterable[ReloadsConfig]) -> bool:
    """Whether they do not count in choosing."""
    return rule_for(model, rules) == "leave"
