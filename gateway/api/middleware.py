"""The outermost layer: who may come in is decided, every exception becomes an answer, and every answer is counted, in one place."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable

from aiohttp import hdrs, web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler, Middleware
from yarl import URL

from gateway.access.gate import EVERYBODY, NOBODY, USER, Gate, require
from gateway.access.rights import CHANGING, Right, needed
from gateway.api.answers import Answer, moved, plain, rendered
from gateway.api.bodies import BODIES, Bodies
from gateway.api.caller import NEAR, WHO, keyless, who_asks
from gateway.api.manners import ABOUT, CORS, NAME, NAMED, Greeting, Manners, allow, bare, clean, location, sign
from gateway.dialects.endpoints import ENDPOINTS
from gateway.errors import (
    BadRequest,
    CorralError,
    Forbidden,
    NotAllowed,
    NotHttp,
    StoreUnavailable,
    TooSlow,
    Unauthorized,
    internal,
)
from gateway.store.audit import Deed

log = logging.getLogger(__name__)
Counted = Callable[[str, int], None]
TURNED_AWAY_MOST = 100
"""Origins and Hosts of which the log tells, each once: anybody could fill it with them."""
TEXT_MOST = 200
_MENDS: dict[str, str] = {hdrs.ORIGIN: "http.origins", hdrs.HOST: "http.allowed_hosts"}
UNMATCHED = "_unmatched"
SAYS_ITSELF = web.RequestKey("says itself", bool)
"""Whether a request is inference, which counts and logs itself."""


def boundary(
    manners: Manners, gate: Gate, did: Callable[[Deed], None], responded: Counted, bodies: Bodies
) -> Middleware:
    """A middleware that turns away whom ``manners`` or the ``gate`` do, renders what is raised and tells ``responded(route, status)``. ``did`` is told
    who changed something."""

    turned_away: set[tuple[str, str]] = set()

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        headers, route = request.headers, bare(route_of(request), manners.prefix)
        asked = headers.get(hdrs.ACCESS_CONTROL_REQUEST_HEADERS, "")
        greeting = manners.greet(request.method, headers.get(hdrs.HOST, ""), headers.get(hdrs.ORIGIN, ""), asked)
        if greeting.status:
            response: web.StreamResponse = _at_the_door(request, greeting)
            if greeting.why:
                response.headers["X-Corral-Error"] = Forbidden.code
                _tell(turned_away, greeting.why, headers.get(greeting.why, ""))
        else:
            request[CORS] = greeting.headers
            request[SAYS_ITSELF] = itself = request.method == "POST" and route in ENDPOINTS
            request[BODIES] = bodies
            try:
                response = await _handled(request, handler if itself else _guarded(gate, did, route, handler))
            finally:
                bodies.let_go(request)
            if not response.prepared:
                sign(request, response.headers)
            if itself:
                return response
        responded(route, response.status)
        return response

    return middleware


def _guarded(gate: Gate, did: Callable[[Deed], None], route: str, handler: Handler) -> Handler:
    """The handler, for who may use it. A path that is not there needs nothing; inference asks the gate itself."""
    if route == UNMATCHED:
        return handler

    async def guarded(request: web.Request) -> web.StreamResponse:
        right, near = needed(request.method, route), request.get(NEAR, False)
        if right is Right.NONE:
            with contextlib.suppress(BadRequest, NotAllowed, Unauthorized, StoreUnavailable):
                request[WHO] = who_asks(gate, request, near=near)
            request.setdefault(WHO, NOBODY)
            return await handler(request)
        told_apart = not gate.open[near] or USER in request.headers
        request[WHO] = who = who_asks(gate, request, near=near) if told_apart else EVERYBODY
        if right not in CHANGING or request.method in ("GET", "HEAD"):
            require(who, right)
            return await handler(request)
        status = 500
        try:
            require(who, right)
            response = await handler(request)
            status = response.status
        except (CorralError, web.HTTPException) as error:
            status = error.status
            raise
        except asyncio.CancelledError:
            status = 499
            raise
        else:
            return response
        finally:
            if status != 401:  # anybody can try, and nobody is to be named
                about = " ".join((*request.match_info.values(), *request.get(ABOUT, ())))
                operation, client = f"{request.method} {route}", request.remote or ""
                did(Deed(time.time(), who.name, who.role or "", client, operation, about, status))

    return guarded


async def _handled(request: web.Request, handler: Handler) -> web.StreamResponse:
    path = request.rel_url.raw_path
    if (tidy := clean(path)) != path and keyless(path) == path:  # a key goes into no Location
        return _moved(request, 307, tidy)
    try:
        return await handler(request)
    except web.HTTPException as error:
        return await _of_http(request, error)
    except CorralError as error:
        return rendered(error)
    except Exception:  # the request's supervisor: one caller gets a 500, the service goes on
        log.exception("handler of %s failed", route_of(request))
        return rendered(internal())


def _tell(turned_away: set[tuple[str, str]], header: str, value: str) -> None:
    told = header, value[:TEXT_MOST]
    if told in turned_away or len(turned_away) >= TURNED_AWAY_MOST:
        return
    turned_away.add(told)
    last = "; the log tells of no more" if len(turned_away) == TURNED_AWAY_MOST else ""
    log.warning("turned away (403), and told this once: %s %r; %s lets it in%s", *told, _MENDS[header], last)


class QuietNonsense(logging.Filter):
    """What a client sends that is not HTTP is one debug line, not a traceback: anybody could fill the log with them."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let everything else pass."""
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, (HttpProcessingError, NotHttp, TooSlow, web.RequestPayloadError)):
            log.debug("not HTTP: %s", error)
            return False
        return True


def route_of(request: web.Request) -> str:
    """The route's template: bounded, whatever is asked for."""
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else UNMATCHED


def _at_the_door(request: web.Request, greeting: Greeting) -> web.Response:
    response = Answer(status=greeting.status)
    response.headers.extend((*greeting.headers, (NAME, request[NAMED])))
    if greeting.status == 204 and (allowed := _allow(request)):
        response.headers["Allow"] = allowed
    return response


async def _of_http(request: web.Request, error: web.HTTPException) -> web.Response:
    if error.status == 404:
        path = request.rel_url.raw_path.removesuffix("/")
        if path and path != request.rel_url.raw_path and await _leads_somewhere(request, path):
            return _moved(request, 301 if request.method == "GET" else 307, path)
        return plain(404, "404 page not found")
    if error.status == 405:
        return plain(405, "405 method not allowed", {"Allow": _allow(request)})
    return plain(error.status, error.text or error.reason)


async def _leads_somewhere(request: web.Request, path: str) -> bool:
    """Whether this request would find a handler at ``path``."""
    match = await request.app.router.resolve(request.clone(rel_url=URL(path, encoded=True)))
    return match.http_exception is None


def _moved(request: web.Request, status: int, path: str) -> web.Response:
    return moved(status, location(path, request.rel_url.raw_query_string), told=request.method in ("GET", "HEAD"))


def _allow(request: web.Request) -> str:
    """The methods of the path that was asked with another one."""
    error = request.match_info.http_exception
    return allow(error.allowed_methods) if isinstance(error, web.HTTPMethodNotAllowed) else ""
