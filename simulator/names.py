"""Names of models: `[host/][namespace/]model[:tag]`, compared without regard to case."""

import re
from dataclasses import dataclass
from typing import Self

_HOST = "registry.ollama.ai"
_NAMESPACE = "library"
_TAG = "latest"
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")
_HOST_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}")


@dataclass(frozen=True, slots=True)
class ModelName:
    """A complete name: every part has its default filled in."""

    host: str
    namespace: str
    model: str
    tag: str

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The name that `text` means, or None when it is not a valid name. White space and `:local` do not count."""
        rest = text.strip().removeprefix("https://").removeprefix("http://").removesuffix(":local")
        host, namespace, tag = _HOST, _NAMESPACE, _TAG
        parts = rest.split("/")
        if len(parts) > 3:
            return None
        model, colon, given_tag = parts[-1].partition(":")
        if colon:
            tag = given_tag
        if len(parts) > 1:
            namespace = parts[-2]
        if len(parts) > 2:
            host = parts[0]
        valid = _HOST_PART.fullmatch(host) and "." not in namespace
        if not valid or not all(_PART.fullmatch(part) for part in (namespace, model, tag)):
            return None
        return cls(host, namespace, model, tag)

    @property
    def key(self) -> tuple[str, str, str, str]:
        """Equal for names that Ollama takes for the same."""
        return (self.host.lower(), self.namespace.lower(), self.model.lower(), self.tag.lower())

    @property
    def short(self) -> str:
        """As Ollama shows it: default host and namespace hidden, the tag always there."""
        text = f"{self.model}:{self.tag}"
        if self.host.lower() != _HOST:
            return f"{self.host}/{self.namespace}/{text}"
        return text if self.namespace.lower() == _NAMESPACE else f"{self.namespace}/{text}"

    @property
    def full(self) -> str:
        """All four parts."""
        return f"{self.host}/{self.namespace}/{self.model}:{self.tag}"


def is_cloud(text: str) -> bool:
    """Whether `text` names a model that runs at ollama.com and not on the host."""
    tag = text.strip().rpartition(":")[2]
    return tag == "cloud" or (":" in text and tag.endswith("-cloud"))


def same(one: str, other: str) -> bool:
    """Whether two spellings name the same model."""
    left, right = ModelName.parse(one), ModelName.parse(other)
    return one == other or (left is not None and right is not None and left.key == right.key)
