"""What of a branch a model gets to see: the newest messages that fit into its context, with room left for the answer.

Tokens are estimated, as everywhere: a token for every four bytes of text, IMAGE_TOKENS for an image, MESSAGE_TOKENS for what a template puts
around each message. The system prompt always stays, and so does the newest message: a host cuts what is still too long by itself.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gateway.dialects.names import canonical
from gateway.dialects.request import BYTES_PER_TOKEN
from gateway.fleet.snapshot import FleetSnapshot
from gateway.messages import Message, Role

IMAGE_TOKENS = 768  # as Ollama reckons (server/prompt.go)
MESSAGE_TOKENS = 4
ANSWER_SHARE = 4  # of a context one in so many tokens is the answer's, where nobody says how long that may be


def context_of(options: Mapping[str, Any], model: str, pin: str, fleet: FleetSnapshot, otherwise: int) -> int:
    """Tokens of the model's context: what is asked for, else the smallest with which a host that may be chosen has loaded it."""
    asked = options.get("num_ctx")
    if isinstance(asked, int) and asked > 0:
        return asked
    name = canonical(model)
    views = [view for view in fleet.hosts if pin in ("", view.name)]
    loaded = [view.loaded[digest] for view in views if (digest := view.digest_of(name)) and digest in view.loaded]
    return min((one.context for one in loaded if one.context > 0), default=otherwise)


def tokens_of(text: str, images: int = 0) -> int:
    """An estimate."""
    size = len(text) if text.isascii() else len(text.encode("utf-8", errors="replace"))
    return size // BYTES_PER_TOKEN + images * IMAGE_TOKENS + MESSAGE_TOKENS


class Window:
    """Takes a branch in from its end, until it is ``full``. ``context``: tokens of all; ``options`` may say how long the answer can be."""

    def __init__(self, context: int, options: Mapping[str, Any], system: str | None) -> None:
        asked = options.get("num_predict")
        room = asked if isinstance(asked, int) and asked > 0 else context // ANSWER_SHARE
        self._system = system
        self._left = context - min(room, context // 2) - (tokens_of(system) if system else 0)
        self._taken: list[Message] = []  # newest first
        self.full = False

    @property
    def most(self) -> int:
        """How many messages more there can be room for."""
        return max(1, self._left // MESSAGE_TOKENS)

    def take(self, branch: Sequence[Message]) -> None:
        """The part of the branch before what was taken already, oldest first."""
        for message in reversed(branch):
            if message.role is Role.ASSISTANT and not (message.content or message.tool_calls):
                continue  # it failed before its first word
            cost = tokens_of(message.content, len(message.images or ()))
            if self._taken and cost > self._left:
                self.full = True
                return
            self._left -= cost
            self._taken.append(message)

    def messages(self) -> list[dict[str, Any]]:
        """As ``/api/chat`` takes them. What was cut off begins with a question: an answer without it would say little."""
        taken = self._taken[:]
        while self.full and len(taken) > 1 and taken[-1].role in (Role.ASSISTANT, Role.TOOL):
            taken.pop()
        system = [{"role": "system", "content": self._system}] if self._system else []
        return [*system, *written(reversed(taken))]


def written(messages: Iterable[Message]) -> list[dict[str, Any]]:
    """Messages in Ollama's words."""
    return [_written(message) for message in messages]


def _written(message: Message) -> dict[str, Any]:
    given: dict[str, Any] = {"role": str(message.role), "content": message.content}
    if message.images:
        given["images"] = message.images
    if message.tool_calls:
        given["tool_calls"] = message.tool_calls
        if message.thinking:  # models that call tools want to know what they thought before
            given["thinking"] = message.thinking
    if message.role is Role.TOOL and message.name:
        given["tool_name"] = message.name
    return given
