"""Model names as Ollama compares them: ``[host/][namespace/]model[:tag]``, any case, defaults hidden, the tag always shown."""

import re
from functools import lru_cache
from typing import Final

DEFAULT_HOST: Final = "registry.ollama.ai"
DEFAULT_NAMESPACE: Final = "library"
DEFAULT_TAG: Final = "latest"
_PART: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}\Z")
_HOST: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}\Z")
MAX_LENGTH: Final = 600  # host 350 + namespace, model and tag of 80 each, and the separators


@lru_cache(maxsize=4096)
def canonical(name: str) -> str:
    """The one spelling used for routing and labels, e.g. `` library/SmolLM2 `` → ``smollm2:latest``.

    Never raises: what is no valid name simply matches no model. The client's own spelling is what is sent on.
    """
    return full(name.strip()[:MAX_LENGTH].lower())


def full(name: str) -> str:
    """A name as Ollama's own messages have it: defaults hidden, the tag shown, the case kept: ``library/SmolLM2`` → ``SmolLM2:latest``."""
    text = name.strip()[:MAX_LENGTH]
    for default in ("http://", "https://", f"{DEFAULT_HOST}/", f"{DEFAULT_NAMESPACE}/"):
        if text.lower().startswith(default):
            text = text[len(default) :]
    if not text:
        return ""
    path, slash, last = text.rpartition("/")
    model, _, tag = last.partition(":")
    if tag.lower().endswith(":local"):  # `name:tag:local` and `name:local` force the local copy
        tag = tag[: -len(":local")]
    elif tag.lower() == "local":
        tag = ""
    return f"{path}{slash}{model}:{tag or DEFAULT_TAG}"


def is_name(text: str) -> bool:
    """Whether a model can have that name; Ollama tells such names apart from those that nobody has."""
    path, _, tag = full(text).rpartition(":")
    *owner, model = path.split("/")
    namespace = owner[-1] if owner else DEFAULT_NAMESPACE
    host = "/".join(owner[:-1]) or DEFAULT_HOST
    parts = all(_PART.match(part) for part in (namespace, model, tag))
    return parts and "." not in namespace and _HOST.match(host) is not None
