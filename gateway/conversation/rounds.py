"""One round: everybody whose turn it is speaks at once, each as a generation like any other, told and kept as it comes."""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET

from gateway.conversation.events import Delta, TurnBegan, TurnEnded, UserSaid, line
from gateway.conversation.order import Round
from gateway.conversation.talk import Said, Talk
from gateway.conversation.view import alternating, for_judge, framing, seen
from gateway.errors import Cancelled, CorralError
from gateway.fleet.registry import Fleet
from gateway.messages import Ending, Message, Role
from gateway.participants import EndReason, Mode, Participant
from gateway.relay.detached import Detached
from gateway.relay.generations import Generations
from gateway.relay.kept import KeptAnswer
from gateway.store.session_store import SessionStore
from gateway.store.turns import Answering
from gateway.turns.aside import Aside
from gateway.turns.history import Window, context_of
from gateway.turns.reading import PAGE, fill
from gateway.turns.spoken import Spoken, refused
from gateway.turns.writer import Place, Writer

MEASURED_SECONDS = 0.1  # of a stream: less says nothing about its speed


class _Turn(NamedTuple):
    """``tokens``: how long the answer may be; None: as long as it wants."""

    number: int
    speaker: Participant
    place: Place
    tokens: int | None


class Rounds:
    """Runs them. ``name`` is this gateway's; ``context_tokens``: a model's context where nothing tells of it."""

    def __init__(
        self,
        store: SessionStore,
        detached: Detached,
        generations: Generations,
        fleet: Fleet,
        name: str,
        context_tokens: int,
        writer: Writer,
        aside: Aside,
    ) -> None:
        self._store = store
        self._detached = detached
        self._generations = generations
        self._fleet = fleet
        self._name = name
        self._context_tokens = context_tokens
        self._writer = writer
        self._aside = aside

    async def run(self, talk: Talk, speakers: Round) -> None:
        """Everybody's turn, unless it ends here: ``talk`` knows afterwards."""
        if talk.intent.stopped is not None:
            talk.ends(EndReason.CANCELLED)
            return
        if self._detached.draining:
            talk.ends(EndReason.ERROR, "the gateway is shutting down")
            return
        judge = talk.settings.judge
        judging = judge is not None and speakers == (judge,)
        if judging and not any(one.ending.content for one in talk.last):
            talk.ends(EndReason.ERROR, "there is no answer that could be judged")
            return
        owed = judge is not None and not judging  # the judge has to have a token left, too
        if talk.left is not None:
            speakers = speakers[: max(1, talk.left - owed)]
        ids = [self._detached.fresh_id() for _ in speakers]
        answers = [Answering(id_, one.model, one.name) for id_, one in zip(ids, speakers, strict=True)]
        owner, session, claim = talk.owner, talk.session.id, talk.intent.id
        try:
            begun = await self._store.turns.begin(
                owner, session, claim=claim, replica=self._name, held=True, answers=answers
            )
            assert begun.parent is not None  # somebody has said something
            branch = await self._store.messages.history(owner, session, begun.parent, PAGE)
            await self._tell_what_was_said(talk, branch)
        except CorralError as error:  # what may have begun is given up with the claim
            talk.ends(EndReason.ERROR, error.message)
            return
        if not judging:
            talk.question = next((message for message in reversed(branch) if message.role is Role.USER), None)
        share = None if talk.left is None else max(1, talk.left // (len(speakers) + owed))
        talk.current = frozenset(ids)
        async with asyncio.TaskGroup() as group:
            tasks = []
            for id_, speaker, answer in zip(ids, speakers, begun.answers, strict=True):
                talk.turns += 1
                turn = _Turn(talk.turns, speaker, Place(owner, session, id_, answer, claim), share)
                tasks.append(group.create_task(self._turn(talk, turn, branch)))
        talk.current = frozenset()
        talk.heard([task.result() for task in tasks])

    async def _tell_what_was_said(self, talk: Talk, branch: Sequence[Message]) -> None:
        """All that the user said since it was told last, however much."""
        pages = [branch]
        while (before := pages[-1][0].parent) is not None and before > talk.seen:
            pages.append(await self._store.messages.history(talk.owner, talk.session.id, before, PAGE))
        for page in reversed(pages):
            new = [message for message in page if message.role is Role.USER and message.seq > talk.seen]
            talk.seen = new[-1].seq if new else talk.seen
            for told in await self._aside.do(partial(_said, new)):
                talk.feed.tell(told)

    async def _turn(self, talk: Talk, turn: _Turn, branch: Sequence[Message]) -> Said:
        talk.tell(_began(turn))
        try:
            body = await self._body(talk, turn, branch)
            if talk.intent.stopped is not None:
                raise Cancelled(talk.intent.stopped[1])
            answer = await self._detached.ask(
                "/api/chat",
                body,
                session=talk.session.id,
                pin=turn.speaker.host or "",
                client=talk.client,
                principal=talk.owner,
                id_=turn.place.generation,
                keep=False,
            )
        except CorralError as error:
            ending = refused(error)
            talk.tell(_over(turn, ending))
            return Said(turn.speaker.name or "", ending, await self._writer.end(turn.place, ending))
        async with asyncio.TaskGroup() as group:
            writing = group.create_task(self._writer.write(turn.place, answer, Spoken()))
            ending = await self._told(talk, turn, answer)
        return Said(turn.speaker.name or "", ending, writing.result())

    async def _told(self, talk: Talk, turn: _Turn, answer: KeptAnswer) -> Ending:
        """An answer as it comes, to its end."""
        spoken = Spoken()
        with answer.reader() as reader:
            async for batch in reader:
                spoken.lost = spoken.lost or batch.gone > 0
                pieces = [spoken.take(chunk) for chunk in batch.chunks]
                content = "".join(piece.content for piece in pieces)
                thinking = "".join(piece.thinking for piece in pieces)
                if content or thinking:
                    name = turn.speaker.name or ""
                    talk.tell(Delta(turn=turn.number, participant=name, content=content, thinking=thinking))
        assert answer.record is not None
        ending = spoken.ending(answer.record)
        talk.tell(_over(turn, ending))
        return ending

    async def _body(self, talk: Talk, turn: _Turn, branch: Sequence[Message]) -> bytes:
        speaker, settings = turn.speaker, talk.settings
        options = dict(speaker.options)
        if turn.tokens is not None:
            asked = options.get("num_predict")
            options["num_predict"] = min(asked, turn.tokens) if isinstance(asked, int) and asked > 0 else turn.tokens
        snapshot = self._fleet.snapshot(self._generations.clock())
        context = context_of(options, speaker.model, speaker.host or "", snapshot, self._context_tokens)
        if settings.mode is Mode.JUDGE and speaker == settings.judge:
            answers = [(one.name, one.ending.content) for one in talk.last if one.ending.content]
            messages = for_judge(speaker, talk.question or branch[-1], answers, context // 2)
        else:
            window, view = (
                Window(context, options, framing(speaker, settings)),
                partial(seen, me=speaker, mode=settings.mode),
            )
            await self._aside.do(lambda: window.take(view(branch)))
            await fill(window, self._aside, self._store.messages, talk.owner, talk.session.id, branch[0].parent, view)
            messages = await self._aside.do(lambda: alternating(window.messages()))
        given: dict[str, Any] = {"model": speaker.model, "messages": messages, "stream": True}
        given |= {"options": options} if options else {}
        given |= {"think": speaker.think} if speaker.think is not UNSET else {}
        return await self._aside.do(lambda: msgspec.json.encode(given))


def _said(messages: Sequence[Message]) -> list[bytes]:
    return [line(UserSaid(message=one.seq, content=one.content)) for one in messages]


def _began(turn: _Turn) -> TurnBegan:
    speaker, place = turn.speaker, turn.place
    assert place.answer is not None
    return TurnBegan(
        turn=turn.number,
        participant=speaker.name or "",
        model=speaker.model,
        message=place.answer,
        generation=place.generation,
    )


def _over(turn: _Turn, ending: Ending) -> TurnEnded:
    return TurnEnded(
        turn=turn.number,
        participant=turn.speaker.name or "",
        state=ending.state,
        error=ending.error,
        host=ending.host,
        usage=ending.usage,
        timings=ending.timings,
        tokens_per_second=_speed(ending),
    )


def _speed(ending: Ending) -> float | None:
    """By the host's own measure, else from the first byte to the end."""
    usage, timings = ending.usage, ending.timings
    if usage is None or timings is None or not usage.output_tokens:
        return None
    if timings.decode_seconds:
        return round(usage.output_tokens / timings.decode_seconds, 3)
    if timings.ttft_seconds is None or timings.total_seconds is None or usage.output_tokens < 2:
        return None
    seconds = timings.total_seconds - timings.ttft_seconds
    return round((usage.output_tokens - 1) / seconds, 3) if seconds >= MEASURED_SECONDS else None
