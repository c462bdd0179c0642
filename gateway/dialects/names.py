"""Model names as Ollama compares them: ``[host/][namespace/]model[:tag]``, any case, defaults hidden, the tag always shown."""

from functools import lru_cache

DEFAULT_HOST = "registry.ollama.ai"
DEFAULT_NAMESPACE = "library"
DEFAULT_TAG = "latest"
MAX_LENGTH = 600  # host 350 + namespace, model and tag of 80 each, and the separators


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
