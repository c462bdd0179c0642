"""What each participant gets to see. Pure.

In a dialogue and on a panel a model sees its own turns as its answers and what everybody else said as a user's words, with their names in front;
who compares sees what the user said and its own answers. Templates of models want users and assistants to alternate, so what others say one after
another becomes one message.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any

import msgspec

from gateway.dialects.request import BYTES_PER_TOKEN
from gateway.messages import Message, Role
from gateway.participants import ConversationSettings, Mode, Participant

GO_ON = "(Nobody else has said anything. Go on.)"
JUDGE = (
    "You are {name}, an impartial judge. You get a question and the answers of {names}. Compare how correct, complete, clear and helpful they are;"
    " neither their order nor their length matters. Say in a few sentences what decides it. End with a line of its own: `Winner: ` and the name."
)
CUT = " […]"
VERDICT_LOOK = 4_000  # characters at its end
_MARKS = " \t*_`#>-\"'«»“”„‘’.,!"


def seen(messages: Iterable[Message], me: Participant, mode: Mode) -> list[Message]:
    """A part of a branch as ``me`` sees it."""
    shown = []
    for message in _own_first(messages, me) if mode is Mode.PANEL else messages:
        if message.role is Role.USER or (message.role is Role.ASSISTANT and message.name == me.name):
            shown.append(message)
        elif message.role is Role.ASSISTANT and message.content and mode in (Mode.DIALOGUE, Mode.PANEL):
            shown.append(_spoken(message, message.name or message.model or "Somebody"))
    return shown


def _own_first(messages: Iterable[Message], me: Participant) -> Iterator[Message]:
    """A panel speaks at once: what the others said in a round came after one's own answer, whatever the order in which it is kept."""
    waiting: list[Message] = []
    names: set[str | None] = set()
    for message in messages:
        if message.role is not Role.ASSISTANT or message.name in names:  # the next round
            yield from waiting
            waiting, names = [], set()
        if message.role is Role.ASSISTANT and message.name != me.name:
            waiting.append(message)
        else:
            yield message
        if message.role is Role.ASSISTANT:
            names.add(message.name)
    yield from waiting


def _spoken(message: Message, name: str) -> Message:
    return msgspec.structs.replace(
        message, role=Role.USER, content=f"{name}: {message.content}", tool_calls=None, thinking=None
    )


def framing(me: Participant, settings: ConversationSettings) -> str | None:
    """The system prompt: who it is among whom, and what it was told itself."""
    if settings.mode not in (Mode.DIALOGUE, Mode.PANEL):
        return me.system
    others = _enumerated([one.name or "" for one in settings.participants if one.name != me.name])
    words = [
        f"You are {me.name}, in a conversation with {others}. What they say begins with their names.",
        "Speak for yourself only, in the first person, and do not put your name in front.",
    ]
    if settings.topic:
        words.append(f"The conversation began with: {settings.topic}")
    return "\n".join([*words, *(["", me.system] if me.system else [])])


def alternating(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Messages in Ollama's words, what users say one after another joined; the last word is a user's."""
    joined: list[dict[str, Any]] = []
    for role, said in itertools.groupby(messages, key=itemgetter("role")):
        if role != "user":
            joined += map(dict, said)
            continue
        together = list(said)
        images = [image for message in together for image in message.get("images", ())]
        content = "\n\n".join(message["content"] for message in together)
        joined.append({"role": role, "content": content} | ({"images": images} if images else {}))
    if not joined or joined[-1]["role"] != "user":
        joined.append({"role": "user", "content": GO_ON})
    return joined


def for_judge(
    judge: Participant, question: Message, answers: Sequence[tuple[str, str]], tokens: int
) -> list[dict[str, Any]]:
    """What a judge gets: the question, and (name, text) of each answer, all cut to fit into ``tokens``."""
    share = max(1, tokens // (len(answers) + 1)) * BYTES_PER_TOKEN
    parts = [f"The question:\n{_cut(question.content, share)}"]
    parts += [f"The answer of {name}:\n{_cut(text, share)}" for name, text in answers]
    system = JUDGE.format(name=judge.name, names=_enumerated([name for name, _ in answers]))
    given: dict[str, Any] = {"role": "user", "content": "\n\n".join(parts)}
    if question.images:
        given["images"] = question.images
    return [{"role": "system", "content": "\n\n".join([system, *([judge.system] if judge.system else [])])}, given]


def winner(verdict: str, names: Sequence[str]) -> str | None:
    """Whom a judge named in the last line that does; None: nobody that there is."""
    for line in reversed(verdict[-VERDICT_LOOK:].splitlines()):
        word, _, name = line.partition(":")
        if _bare(word) != "winner":
            continue
        for known in names:
            if name.strip() == known or _bare(name) == _bare(known):
                return known
    return None


def _bare(text: str) -> str:
    return text.strip(_MARKS).casefold()


def _cut(text: str, most: int) -> str:
    data = text.encode("utf-8", errors="replace")
    return text if len(data) <= most else data[:most].decode("utf-8", errors="ignore") + CUT


def _enumerated(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
