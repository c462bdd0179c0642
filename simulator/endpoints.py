"""Which path and method leads where, and who may come in: the rules of gin, gin-contrib/cors and Ollama's Host check."""

import html
import ipaddress
import posixpath
import re
import socket
from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web

from simulator.dialects.inference import Body
from simulator.replies import reply

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Table = Mapping[str, Mapping[str, Handler]]
"""Path → method → handler. A path that ends in `/:` takes exactly one more segment."""

TEXT = "text/plain"
HTML = "text/html; charset=utf-8"
ALLOW_ORIGIN = "Access-Control-Allow-Origin"
_ORIGIN = web.RequestKey("origin", str)
_ORIGINS = re.compile(
    r"https?://(localhost|127\.0\.0\.1|0\.0\.0\.0)(:[^/]*)?|(app|file|tauri|vscode-webview|vscode-file)://.*"
)
_ALLOW_HEADERS = (
    "Authorization,Content-Type,User-Agent,Accept,X-Requested-With,Openai-Beta,X-Stainless-Arch,X-Stainless-Async,"
    "X-Stainless-Custom-Poll-Interval,X-Stainless-Helper-Method,X-Stainless-Lang,X-Stainless-Os,"
    "X-Stainless-Package-Version,X-Stainless-Poll-Helper,X-Stainless-Retry-Count,X-Stainless-Runtime,"
    "X-Stainless-Runtime-Version,X-Stainless-Timeout"
)
_PREFLIGHT = {
    "Access-Control-Allow-Headers": _ALLOW_HEADERS,
    "Access-Control-Allow-Methods": "GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS",
    "Access-Control-Max-Age": "43200",
}
_REGISTERED = ("HEAD", "GET", "POST", "DELETE")
"""The order in which Ollama names methods to gin, and gin in Allow."""
_VARY = ("Origin", "Access-Control-Request-Method", "Access-Control-Request-Headers")
_LOCAL_SUFFIXES = (".localhost", ".local", ".internal")


def pattern(table: Table, path: str) -> str | None:
    """The path of `table` that `path` matches."""
    if path in table:
        return path
    parent, _, last = path.rpartition("/")
    return f"{parent}/:" if last and f"{parent}/:" in table else None


async def dispatch(table: Table, request: web.Request, *, loopback: bool) -> web.StreamResponse:
    """Answer a request. In this order:

    1. a path that is not clean → 307; 2. a trailing slash too many → 301 or 307;
    3. a foreign Origin → 403; a preflight → 204; 4. a foreign Host → 403; OPTIONS to a near name → 204;
    5. no such path → 404, no such method → 405; 6. the handler.
    """
    path, method = request.rel_url.raw_path, request.method
    clean = _clean(path)
    if clean != path:
        return await _redirect(request, 307, clean)
    methods = _methods(table, request.path)
    if len(path) > 1 and path.endswith("/") and not methods and method in _methods(table, request.path[:-1]):
        return await _redirect(request, 301 if method == "GET" else 307, path[:-1])
    origin, host = request.headers.get("Origin"), request.headers.get("Host", "")
    allow = ", ".join(sorted(methods, key=_REGISTERED.index))
    if origin is not None and origin not in (f"http://{host}", f"https://{host}"):
        if not _ORIGINS.fullmatch(origin):
            return await reply(request, 403)
        if method == "OPTIONS":
            return _preflight(origin, allow)
        request[_ORIGIN] = origin
    if loopback and not _is_near_address(host):
        if not _is_near_name(host):
            return await reply(request, 403)
        if method == "OPTIONS":
            return await reply(request, 204, None, {"Allow": allow} if allow else None)
    handler = methods.get(method)
    if handler is not None:
        return await handler(request)
    if not methods:
        return await reply(request, 404, Body(TEXT, b"404 page not found"))
    return await reply(request, 405, Body(TEXT, b"405 method not allowed"), {"Allow": allow})


async def finish_head(request: web.Request, response: web.StreamResponse) -> None:
    """Before a head is sent: what aiohttp adds goes, what CORS wants comes."""
    response.headers.pop("Server", None)
    origin = request.get(_ORIGIN)
    if origin is not None:
        response.headers[ALLOW_ORIGIN] = origin
        response.headers["Vary"] = "Origin"


def _methods(table: Table, path: str) -> Mapping[str, Handler]:
    found = pattern(table, path)
    return {} if found is None else table[found]


def _clean(path: str) -> str:
    clean = posixpath.normpath("/" + path.lstrip("/"))
    return clean + "/" if path.endswith("/") and clean != "/" else clean


async def _redirect(request: web.Request, status: int, path: str) -> web.StreamResponse:
    query = request.rel_url.raw_query_string
    target = f"{path}?{query}" if query else path
    if request.method not in ("GET", "HEAD"):
        return await reply(request, status, None, {"Location": target})
    words = {301: "Moved Permanently", 307: "Temporary Redirect"}[status]
    return await reply(
        request, status, Body(HTML, f'<a href="{html.escape(target)}">{words}</a>.\n\n'.encode()), {"Location": target}
    )


def _preflight(origin: str, allow: str) -> web.StreamResponse:
    response = web.Response(status=204, headers={**_PREFLIGHT, ALLOW_ORIGIN: origin})
    if allow:
        response.headers["Allow"] = allow
    for name in _VARY:
        response.headers.add("Vary", name)
    return response


def _host_part(header: str) -> str:
    host = header.rpartition(":")[0] if re.search(r":\d+$", header) else header
    return host.strip("[]").lower()


def _is_near_address(header: str) -> bool:
    try:
        address = ipaddress.ip_address(_host_part(header))
    except ValueError:
        return False
    return address.is_loopback or address.is_private or address.is_unspecified


def _is_near_name(header: str) -> bool:
    host = _host_part(header)
    return host in ("", "localhost", socket.gethostname().lower()) or host.endswith(_LOCAL_SUFFIXES)
