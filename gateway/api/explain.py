"""Where a request would go, and why: asked without sending it."""

import asyncio
from collections.abc import Callable
from typing import Annotated, Any

import msgspec
import orjson
from aiohttp import web

from gateway.access.gate import Principal, asked_by, permit
from gateway.api.handler import handler
from gateway.api.queue import WAITS_FOR, rounded
from gateway.api.rows import Cost, cost
from gateway.config import QueueConfig, RelayConfig
from gateway.dialects.endpoints import ENDPOINTS
from gateway.dialects.read import NAME_LIMIT, read
from gateway.dialects.request import InferenceRequest, Kind
from gateway.dialects.urgency import Background, in_words, priority_of
from gateway.doc import doc
from gateway.errors import BadRequest, ModelNotFound, NoHost, NotFound
from gateway.fleet.health import State
from gateway.fleet.registry import Fleet
from gateway.fleet.snapshot import HostView
from gateway.fleet.targets import pinned
from gateway.keyconfig import PriorityWord
from gateway.record import Costs, Rejected, Route, RouteReason
from gateway.routing.admission import Admission
from gateway.routing.outlook import Outlook, WaitsFor
from gateway.routing.policy import Chance, Unroutable, choose
from gateway.routing.ranks import Policy


class InferenceBody(msgspec.Struct):
    """The body of a request to any inference endpoint; what more it holds is read as that endpoint reads it."""

    model: Annotated[str, doc("the model's name", min_length=1, max_length=NAME_LIMIT, examples=["llama3.2"])]


class ExplainQuery(msgspec.Struct, frozen=True):
    """What the body does not tell."""

    path: Annotated[
        str,
        doc(
            "the endpoint, as in `/v1/messages`; guessed from the body where it is missing. Of `/v1/audio/transcriptions` the body is the form",
            extra_json_schema={"enum": ["", *ENDPOINTS]},
        ),
    ] = ""


class ExplainHeaders(msgspec.Struct, frozen=True):
    """What an inference endpoint reads of the headers."""

    pin: Annotated[
        str, doc("a host's name: the request would go there, or fail; 400 for a name that is not configured")
    ] = msgspec.field(name="X-Corral-Host", default="")
    priority: Annotated[str, doc("`interactive`, `normal` or `background`; where it is missing, the body tells")] = (
        msgspec.field(name="X-Corral-Priority", default="")
    )
    content_type: Annotated[str, doc("of a form")] = msgspec.field(name="Content-Type", default="")
    content_encoding: Annotated[str, doc("`zstd` where the endpoint takes it")] = msgspec.field(
        name="Content-Encoding", default=""
    )


class Asked(msgspec.Struct, frozen=True):
    """The request as it was read."""

    endpoint: Annotated[str, doc("its path, given or guessed")]
    model: Annotated[str, doc("the model's full name")]
    kind: Annotated[Kind, doc("`infer`, or with an empty prompt `load` or `unload`")]
    prompt_tokens: Annotated[int, doc("estimated", ge=0)]
    priority: Annotated[PriorityWord, doc("as the caller said, or as the body tells")]
    runner_options: Annotated[dict[str, Any], doc("those that decide whether a loaded model can be used")]


class Priced(Cost, frozen=True):
    """What one host would cost the request now, in seconds."""

    leases: Annotated[int, doc("slots that are taken", ge=0)]
    slots: Annotated[int, doc("requests that it may serve at once", ge=1)]
    parallel: Annotated[int, doc("of this model: fewer where its answers told that more would wait there", ge=1)]
    health: Annotated[State, doc("as in a host's row")]


class Explained(msgspec.Struct, frozen=True):
    """Where the request would go now."""

    request: Annotated[Asked, doc("how it was read")]
    host: Annotated[str, doc("the cheapest host")]
    reason: Annotated[RouteReason, doc("why it is the cheapest")]
    predicted_seconds: Annotated[float, doc("to the first token")]
    runner_up: Annotated[str | None, doc("the second cheapest host")]
    costs: Annotated[list[Priced], doc("every host that could take it, cheapest first")]
    rejected: Annotated[tuple[Rejected, ...], doc("every other host")]
    policies: Annotated[
        dict[Policy, str], doc("the host that each policy would choose; `routing.policy` is the one in force")
    ]
    queue_place: Annotated[int | None, doc("its place among all that wait, if it came now; null: it would not wait")]
    queue_seconds: Annotated[
        float | None, doc("how long it would wait, those before it counted, as far as can be told")
    ]
    waits_for: Annotated[WaitsFor | None, doc(WAITS_FOR.replace("does not", "would not"))]


class Unrouted(msgspec.Struct, frozen=True):
    """Nobody could take the request now."""

    request: Annotated[Asked, doc("how it was read")]
    host: Annotated[None, doc("nobody")]
    reason: Annotated[
        str,
        doc("the code of the error that it would get: `no_host` or `model_not_found`"),
    ]
    rejected: Annotated[tuple[Rejected, ...], doc("every host")]
    predicted_seconds: Annotated[None, doc("nobody knows")] = None
    runner_up: Annotated[None, doc("nobody")] = None
    costs: Annotated[tuple[Priced, ...], doc("empty")] = ()
    policies: Annotated[dict[Policy, str], doc("empty: no policy finds a host")] = {}
    queue_place: Annotated[None, doc("it would be refused")] = None
    queue_seconds: Annotated[None, doc("idem")] = None
    waits_for: Annotated[None, doc("idem")] = None


class Explain:
    """The handler of ``/api/route/explain``."""

    def __init__(
        self,
        fleet: Fleet,
        admission: Admission,
        clock: Callable[[], float],
        rng: Chance,
        relay: RelayConfig,
        queue: QueueConfig,
    ) -> None:
        self._fleet = fleet
        self._clock = clock
        self._rng = rng
        self._admission = admission
        self._background = Background(queue.background_prompts) if queue.background else None
        self._model_at_host = relay.model_at_host

    def routes(self) -> list[web.RouteDef]:
        """The one path."""
        return [web.post("/api/route/explain", self.route)]

    @handler(NotFound)
    async def route(
        self,
        query: ExplainQuery,
        headers: ExplainHeaders,
        body: Annotated[bytes, InferenceBody],
        request: web.Request,
        who: Principal,
    ) -> Explained | Unrouted:
        """Where a request would go and why; nothing is sent. Takes any inference body, a form as well.

        Where nobody can take it, the answer is a 200 all the same, with no host and no seconds.
        """
        path = query.path or _endpoint_of(body, headers.content_type)
        if path not in ENDPOINTS:
            raise NotFound(f"no inference endpoint {path[:200]!r}; known: {', '.join(ENDPOINTS)}")
        inference = await asyncio.to_thread(  # it may be large, or packed
            read,
            ENDPOINTS[path],
            body,
            "explain",
            content_type=headers.content_type,
            content_encoding=headers.content_encoding,
            client=request.remote or "",
            pin=pinned(headers.pin, self._fleet.names),
            at_hosts=self._fleet.names if self._model_at_host else (),
            priority=priority_of(headers.priority) if headers.priority else None,
            background=self._background,
        )
        if not inference.model:
            raise BadRequest("model is required")
        permit(who, inference.model, inference.pin)
        inference = asked_by(who, inference)
        now = self._clock()
        snapshot = self._fleet.snapshot(now)
        hosts = {policy: choose(inference, snapshot, self._rng, policy=policy) for policy in Policy}
        chosen = hosts[self._admission.policy]
        if isinstance(chosen, Unroutable):
            error = ModelNotFound if chosen.unknown_model else NoHost
            return Unrouted(_asked(inference), None, error.code, chosen.rejected)
        others = {policy: route.host for policy, route in hosts.items() if isinstance(route, Route)}
        told = self._admission.foretell(inference, now)
        return _explained(inference, chosen, {view.name: view for view in snapshot.hosts}, others, told)


def _asked(inference: InferenceRequest) -> Asked:
    options = dict(inference.runner_options)
    priority = in_words(inference.priority)
    return Asked(inference.endpoint.path, inference.model, inference.kind, inference.prompt_tokens, priority, options)


def _explained(
    inference: InferenceRequest,
    route: Route,
    views: dict[str, HostView],
    policies: dict[Policy, str],
    told: Outlook | None,
) -> Explained:
    return Explained(
        request=_asked(inference),
        host=route.host,
        reason=route.reason,
        predicted_seconds=round(route.predicted_seconds, 4),
        runner_up=route.runner_up,
        costs=[_priced(costs, views[costs.host], inference.model) for costs in route.costs],
        rejected=route.rejected,
        policies=policies,
        queue_place=told.place if told else None,
        queue_seconds=rounded(told.wait_seconds) if told else None,
        waits_for=told.waits_for if told else None,
    )


def _priced(costs: Costs, view: HostView, model: str) -> Priced:
    told = msgspec.structs.asdict(cost(costs))
    return Priced(
        **told, leases=view.leases, slots=view.slots, parallel=_parallel(view, model), health=view.health.state
    )


def _parallel(view: HostView, model: str) -> int:
    return view.parallel.get(view.digest_of(model) or "", view.host.slots or 1)


def _endpoint_of(body: bytes, content_type: str) -> str:
    if content_type.lower().startswith("multipart/"):
        return next(path for path, endpoint in ENDPOINTS.items() if endpoint.multipart)
    try:
        keys = {str(key).lower() for key in orjson.loads(body)}
    except (orjson.JSONDecodeError, TypeError):
        raise BadRequest("the body must be a JSON object, as an inference endpoint takes it") from None
    if "messages" in keys:
        return "/v1/messages" if "max_tokens" in keys and "system" in keys else "/api/chat"
    return "/api/embed" if "input" in keys else "/api/generate"
