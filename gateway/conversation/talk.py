"""One conversation while it runs: what has been said in it so far, and whether that is the end."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from gateway.conversation.events import Ended, Event, Speaker, Started, line
from gateway.conversation.view import winner
from gateway.errors import internal
from gateway.messages import Ending, Message, MessageState, MessageUsage, Session
from gateway.participants import ConversationSettings, EndReason, Failing
from gateway.relay.feed import Feed
from gateway.relay.intents import Intent
from gateway.telemetry.catalogue import Catalogue

UNKEPT = "the database is away: what was said is kept once it is back"
NOTHING_USED = MessageUsage(input_tokens=0, output_tokens=0)


class Said(NamedTuple):
    """What became of a turn. ``kept``: whether it is in the session by now."""

    name: str
    ending: Ending
    kept: bool


@dataclass(slots=True)
class Talk:
    """Owned by the task that runs it. ``left``: tokens of the budget, None: no bound; ``seen``: the number of the last message of the user that
    was told of; ``current``: generations that run."""

    owner: str
    client: str
    intent: Intent
    session: Session
    settings: ConversationSettings
    feed: Feed
    left: int | None
    seen: int
    counted: Catalogue
    current: frozenset[str] = frozenset()
    turns: int = 0
    failed: int = 0  # turns one after another
    used: MessageUsage = NOTHING_USED
    last: Sequence[Said] = field(default_factory=tuple)  # of the round before
    question: Message | None = None  # that it answered
    winner: str | None = None
    reason: EndReason | None = None
    error: str | None = None

    @contextlib.contextmanager
    def telling(self) -> Iterator[None]:
        """Its events can be read inside; they end with it, whatever happens."""
        mode = self.settings.mode
        self.counted.conversations_started.labels(mode).inc()
        self.feed.begin(self.intent.stop)
        try:
            self.tell(_started(self))
            yield
        finally:
            self.ends(EndReason.ERROR, internal().message)
            last = self.ended()
            self.counted.conversations.labels(mode, last.reason).inc()
            self.tell(last)
            self.feed.end()

    def tell(self, event: Event) -> None:
        """Whoever reads."""
        self.feed.tell(line(event))

    def ends(self, reason: EndReason, error: str | None = None) -> None:
        """Let it end. The first word counts."""
        if self.reason is None:
            self.reason, self.error = reason, error

    def heard(self, said: Sequence[Said]) -> None:
        """A round is over."""
        self.last = said
        for one in said:
            self._count(one)
        failures = [one for one in said if one.ending.state is MessageState.ERROR]
        judge = self.settings.judge
        judged = judge is not None and [one.name for one in said] == [judge.name]
        if self.intent.stopped is not None:
            self.ends(EndReason.CANCELLED)
        if not all(one.kept for one in said):
            self.ends(EndReason.ERROR, UNKEPT)
        if failures and (judged or self.settings.on_error is Failing.STOP):
            self.ends(EndReason.ERROR, _blamed(failures[0]))
        if failures and self.failed >= len(self.settings.participants):
            self.ends(EndReason.ERROR, f"nobody could answer; {_blamed(failures[-1])}")
        if any(phrase in one.ending.content for phrase in self.settings.stop for one in said):
            self.ends(EndReason.STOP_PHRASE)
        if self.left is not None and self.left <= 0:
            self.ends(EndReason.TOKEN_BUDGET)

    def _count(self, one: Said) -> None:
        self.counted.conversation_turns.labels(self.settings.mode, one.ending.state).inc()
        if one.ending.usage is not None:
            self.used = MessageUsage(
                input_tokens=self.used.input_tokens + one.ending.usage.input_tokens,
                output_tokens=self.used.output_tokens + one.ending.usage.output_tokens,
            )
            if self.left is not None:
                self.left -= one.ending.usage.output_tokens
        self.failed = self.failed + 1 if one.ending.state is MessageState.ERROR else 0
        judge = self.settings.judge
        if judge is not None and one.name == judge.name:
            names = [participant.name or "" for participant in self.settings.participants]
            self.winner = winner(one.ending.content, names)

    def ended(self) -> Ended:
        """The last word."""
        assert self.reason is not None
        return Ended(reason=self.reason, error=self.error, turns=self.turns, usage=self.used, winner=self.winner)


def _started(talk: Talk) -> Started:
    settings = talk.settings
    everybody = [*settings.participants, *([settings.judge] if settings.judge else [])]
    speakers = [Speaker(name=one.name or "", model=one.model, host=one.host) for one in everybody]
    return Started(id=talk.intent.id, session=talk.session.id, mode=settings.mode, participants=speakers)


def _blamed(one: Said) -> str:
    return f"{one.name}: {one.ending.error or 'failed'}"
