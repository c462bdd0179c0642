"""The outermost layer: every exception becomes an answer in one place, and every answer is counted."""

import logging
from collections.abc import Callable

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler, Middleware

from gateway.api.answers import plain, rendered
from gateway.dialects.endpoints import ENDPOINTS
from gateway.errors import CorralError

log = logging.getLogger(__name__)
Counted = Callable[[str, int], None]


def boundary(responded: Counted) -> Middleware:
    """A middleware that renders what is raised and tells ``responded(route, status)``."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            response = await handler(request)
        except web.HTTPException as error:
            response = _of_http(error)
        except CorralError as error:
            response = rendered(error)
        except Exception:  # the request's supervisor: one caller gets a 500, the service goes on
            log.exception("handler of %s failed", _route(request))
            response = rendered(CorralError("internal error; the log has the details"))
        if not (request.method == "POST" and _route(request) in ENDPOINTS):  # those count themselves
            responded(_route(request), response.status)
        return response

    return middleware


class QuietNonsense(logging.Filter):
    """What a client sends that is not HTTP is one debug line, not a traceback: anybody could fill the log with them."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let everything else pass."""
        if record.exc_info and isinstance(record.exc_info[1], HttpProcessingError):
            logging.getLogger(__name__).debug("not HTTP: %s", record.exc_info[1].message)
            return False
        return True


def _route(request: web.Request) -> str:
    """The route's template: bounded, whatever is asked for."""
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else "_unmatched"


def _of_http(error: web.HTTPException) -> web.Response:
    if error.status == 404:
        return plain(404, "404 page not found")
    if error.status == 405:
        return plain(405, "405 method not allowed", {"Allow": error.headers.get("Allow", "")})
    return plain(error.status, error.text or error.reason)
