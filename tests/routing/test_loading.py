"""A host that makes room as Ollama does, and what the fleet knows of it meanwhile: nothing that has to be loaded goes out as if it were there, or beside a load."""

import msgspec
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.fleet.host import Observation
from gateway.routing.admission import Grant
from tests.fleet.builders import SIZE, host, loaded, observation
from tests.profiles import MACHINE
from tests.routing.room import Client, Room

MODELS = ("a:latest", "b:latest", "c:latest", "d:latest")
ROOM = 2  # models that fit

models = st.sampled_from(MODELS)


class Loading(RuleBasedStateMachine):
    """Requests come and end, loads begin, are done or given up, and polls tell of it, now or later. The host is one that has memory for two models."""

    @initialize(order=st.permutations(MODELS), told=st.booleans())
    def start(self, order: list[str], told: bool) -> None:
        """``order``: in which models leave, of those that nobody uses. ``told``: the memory is configured."""
        self.now = 0.0
        self.order = order
        self.held = list(MODELS[:ROOM])  # what it has, by its own book
        self.leaving: set[str] = set()  # as soon as nobody uses it
        self.load = ""
        self.running: list[Client] = []
        self.ready: set[int] = set()  # leases that had their first byte
        self.posted: list[Observation] = []
        self.room = Room(host(slots=6, vram_bytes=ROOM * SIZE if told else 0), holds=())
        self.tell(self.look())

    def look(self) -> Observation:
        """What a poll that is sent now will tell."""
        held = tuple(map(loaded, self.held))
        return msgspec.structs.replace(observation(self.now, has=MODELS), loaded=held, began=self.now)

    def tell(self, seen: Observation) -> None:
        """It comes in."""
        self.room.fleet.observe("gpu1", msgspec.structs.replace(seen, at=self.now))

    def uses(self, model: str) -> bool:
        """Whether a request for it is at the host."""
        return any(client.request.model == model for client in self.running)

    def evict(self) -> None:
        """What has to leave leaves once nobody uses it; one after the other, those that nobody uses first."""
        self.held = [model for model in self.held if model not in self.leaving or self.uses(model)]
        self.leaving &= set(self.held)
        while self.load and len(self.held) >= ROOM and not self.leaving:
            self.leaving.add(min(self.held, key=lambda model: (self.uses(model), self.order.index(model))))
            self.held = [model for model in self.held if model not in self.leaving or self.uses(model)]
            self.leaving &= set(self.held)

    @rule(model=models)
    def come(self, model: str) -> None:
        """Somebody asks, and leaves where they would have to wait."""
        client = Client(model)
        verdict = self.room.admission.grant(client.request, self.now)
        if not isinstance(verdict, Grant):
            return
        client.deliver(verdict)
        if not verdict.lease.cold:
            assert model in self.held, f"{model} is not there"
            assert not self.load or model not in self.leaving, f"{model} has to leave for {self.load}"
            self.ready.add(verdict.lease.number)
        elif model in self.held and not (self.load and model in self.leaving):
            self.ready.add(verdict.lease.number)  # it was there, though nobody knew
            self.room.admission.answered(verdict.lease, model, self.now)
        else:
            assert self.load in ("", model), f"{model} waits behind {self.load}"
            self.load = model
        self.running.append(client)
        self.evict()

    @precondition(lambda self: self.load and len(self.held) < ROOM)
    @rule()
    def done(self) -> None:
        """The model is loaded: those who asked for it have their first bytes."""
        model, self.load = self.load, ""
        self.held.append(model)
        for client in self.running:
            lease = client.grant.lease
            if client.request.model == model and lease.number not in self.ready:
                self.ready.add(lease.number)
                self.room.admission.answered(lease, model, self.now)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        """A request ends, or is given up: a load with the last that waits for it. What had to leave for it leaves all the same."""
        client = data.draw(st.sampled_from(self.running))
        self.running.remove(client)
        if not [one for one in self.running if one.grant.lease.number not in self.ready]:
            self.load = ""
        self.room.end(client, self.now)
        self.evict()

    @rule()
    def ask(self) -> None:
        """A poll is sent."""
        self.posted.append(self.look())

    @precondition(lambda self: self.posted)
    @rule()
    def hear(self) -> None:
        """What it saw comes in."""
        self.tell(self.posted.pop(0))

    @rule(seconds=st.sampled_from([0.1, 2.0, 20.0]))
    def wait(self, seconds: float) -> None:
        """Time passes; a poll takes less than that."""
        while self.posted:
            self.hear()
        self.now += seconds

    @invariant()
    def time_passes(self) -> None:
        """No two things are at once."""
        self.now += 0.01

    @invariant()
    def one_load_at_a_time(self) -> None:
        """And what leaves is there."""
        view = self.room.fleet.view("gpu1", self.now)
        assert len(view.loading) <= 1
        assert view.leaving <= view.loaded.keys()


TestLoading = Loading.TestCase
TestLoading.settings = MACHINE
