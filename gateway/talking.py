"""Builds what answers in sessions: turns, records of plain chats, titles, conversations."""

import time
from collections.abc import Callable, Collection
from typing import NamedTuple

from gateway.api.conversations import ConversationsApi
from gateway.api.handler import Part
from gateway.api.messages import MessagesApi
from gateway.api.sessions import SessionsApi
from gateway.api.stopping import Stopping
from gateway.api.turns import TurnsApi
from gateway.config import SessionsConfig
from gateway.conversation.conversations import Conversations
from gateway.conversation.rounds import Rounds
from gateway.fleet.registry import Fleet
from gateway.relay.detached import Detached
from gateway.relay.generations import Generations
from gateway.relay.relay import Relay
from gateway.store.session_store import SessionStore
from gateway.tasks import Tasks
from gateway.telemetry.catalogue import Catalogue
from gateway.turns.chats import Chats
from gateway.turns.recording import Recorder
from gateway.turns.titles import Titles


class Talking(NamedTuple):
    """Its parts."""

    chats: Chats
    recorder: Recorder
    titles: Titles
    conversations: Conversations

    def parts(self, store: SessionStore, stopping: Stopping, hosts: Callable[[], Collection[str]]) -> tuple[Part, ...]:
        """Their endpoints. ``hosts``: the names there are."""
        return (
            SessionsApi(store, hosts, stopping),
            MessagesApi(store, time.time),
            TurnsApi(self.chats, self.titles),
            ConversationsApi(self.conversations, hosts),
        )


def talking(
    config: SessionsConfig,
    store: SessionStore,
    relay: Relay,
    detached: Detached,
    generations: Generations,
    fleet: Fleet,
    tasks: Tasks,
    name: str,
    counted: Catalogue,
) -> Talking:
    """``name`` is this gateway's."""
    titles = Titles(store, detached, generations, tasks, config.title_model)
    context = config.context_tokens
    chats = Chats(store, detached, generations, fleet, tasks, name, context, titles.answered)
    recorder = Recorder(store, relay, generations, chats.writer, tasks, chats.busy, name, titles.answered)
    rounds = Rounds(store, detached, generations, fleet, name, context, chats.writer, chats.aside)
    conversations = Conversations(store, detached, generations, rounds, tasks, name, chats.writer, chats.busy, counted)
    return Talking(chats, recorder, titles, conversations)
