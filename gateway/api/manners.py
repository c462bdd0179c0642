"""Who may come in, by Origin and Host, and how a path is spelled: Ollama's rules. Verdicts only; ``api/middleware.py`` acts on them.

Origin keeps pages of other sites from using the browser of somebody who can reach us. Host keeps them from doing so by a name of
their own that they point at us (DNS rebinding); it matters, and is looked at, where only this machine can reach us anyway.
"""

import ipaddress
import posixpath
import socket
import string
from collections.abc import Iterable
from typing import ClassVar, NamedTuple
from urllib.parse import quote

from aiohttp import hdrs, web
from multidict import CIMultiDict

from gateway.config import HttpConfig

Headers = tuple[tuple[str, str], ...]

CORS = web.RequestKey("cors", tuple)
"""Where a request keeps the headers that its answer needs for a page of another origin."""

NAME = "X-Request-Id"
NAMED = web.RequestKey("named", str)
"""Where a request keeps its name: the caller's, or one that was made."""

ABOUT = web.RequestKey("about", tuple)
"""Where a request keeps what it is about, if its path does not tell: names, for who reads what was done."""

_LOCAL_NAMES = ("localhost", "127.0.0.1", "0.0.0.0")
_DEFAULT_ORIGINS = (
    *(f"{scheme}://{name}{port}" for scheme in ("http", "https") for name in _LOCAL_NAMES for port in ("", ":*")),
    *(f"{scheme}://*" for scheme in ("app", "file", "tauri", "vscode-webview", "vscode-file")),
)
_ALLOW_HEADERS = (
    "Authorization,Content-Type,User-Agent,Accept,X-Requested-With,Openai-Beta,X-Stainless-Arch,X-Stainless-Async,"
    "X-Stainless-Custom-Poll-Interval,X-Stainless-Helper-Method,X-Stainless-Lang,X-Stainless-Os,"
    "X-Stainless-Package-Version,X-Stainless-Poll-Helper,X-Stainless-Retry-Count,X-Stainless-Runtime,"
    "X-Stainless-Runtime-Version,X-Stainless-Timeout"
)
_ALLOW_METHODS = "GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS"
_MAX_AGE_SECONDS = "43200"
_METHODS = ("HEAD", "GET", "POST", "DELETE")  # the order of Ollama's Allow
_PRIVATE = tuple(map(ipaddress.ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")))
_NEAR_ENDINGS = (".localhost", ".local", ".internal")
_OURS = (  # how our headers begin
    *("x-corral-", "x-request-id", "traceparent", "tracestate", "traceresponse"),
    *("ratelimit", "x-ratelimit-", "anthropic-ratelimit-", "retry-after"),
)


class Greeting(NamedTuple):
    """What a request gets at the door: an answer with this ``status``, or (0) its handler; ``headers`` for either answer.

    ``why``: the header for which it is turned away.
    """

    status: int = 0
    headers: Headers = ()
    why: str = ""


class Manners:
    """The rules in force. ``hostname`` is this machine's, ``loopback`` says that nobody else can reach us."""

    def __init__(self, http: HttpConfig, hostname: str, *, loopback: bool) -> None:
        self.prefix = http.prefix
        self._hostname = hostname
        self._loopback = loopback
        self.configure(http)

    def configure(self, http: HttpConfig) -> None:
        """These origins and hosts from now on. The prefix stays: the routes are made."""
        self.hosts = _Hosts((self._hostname, *http.allowed_hosts), everybody=not self._loopback)
        self._any_origin = "*" in http.origins
        self._origins = (*_DEFAULT_ORIGINS, *http.origins)

    def greet(self, method: str, host: str, origin: str, asked_headers: str = "") -> Greeting:
        """``host``, ``origin`` and Access-Control-Request-Headers as sent, empty where missing. In Ollama's order:

        1. a page of an origin that is not allowed → 403; 2. the preflight of one that is → 204;
        3. a Host that is not allowed → 403; 4. OPTIONS to a name of this machine → 204; 5. everything else → its handler.
        """
        cors: Headers = ()
        if origin and origin not in (f"http://{host}", f"https://{host}"):
            if not self._any_origin and not any(matches(origin, pattern) for pattern in self._origins):
                return Greeting(403, why=hdrs.ORIGIN)
            allowed = "*" if self._any_origin else origin
            if method == "OPTIONS":
                return Greeting(204, preflight(allowed, asked_headers))
            cors = (("Access-Control-Allow-Origin", allowed), *(() if self._any_origin else (("Vary", "Origin"),)))
        if not self.hosts[host]:
            return Greeting(403, why=hdrs.HOST)
        if method == "OPTIONS" and self._loopback and not is_near_address(name_of(host)):
            return Greeting(204)
        return Greeting(0, cors)


class _Hosts(dict[str, bool]):
    """Whether a Host header is let in: worked out once for each that is seen, for at most LIMIT."""

    LIMIT: ClassVar[int] = 1024

    def __init__(self, names: Iterable[str], *, everybody: bool) -> None:
        super().__init__()
        self._names = frozenset(name.lower() for name in names)
        self._everybody = everybody

    def __missing__(self, header: str) -> bool:
        name = name_of(header)
        verdict = self._everybody or name in self._names or is_near_name(name) or is_near_address(name)
        if len(self) < self.LIMIT:
            self[header] = verdict
        return verdict


def matches(origin: str, pattern: str) -> bool:
    """Whether an origin is one of ``pattern``, in which one ``*`` stands for any text. It will be sent back: ASCII only."""
    before, star, after = pattern.partition("*")
    if not star:
        return origin == pattern
    fits = len(origin) >= len(before) + len(after) and origin.startswith(before) and origin.endswith(after)
    return fits and origin.isascii()


def preflight(allowed: str, asked_headers: str) -> Headers:
    """The headers of a preflight's answer: Ollama's, and those of our own request headers that were asked for."""
    ours = [
        name for name in map(str.strip, asked_headers.split(",")) if name.lower().startswith(_OURS) and name.isascii()
    ]
    names = () if allowed == "*" else ("Origin", "Access-Control-Request-Method", "Access-Control-Request-Headers")
    return (
        ("Access-Control-Allow-Headers", ",".join((_ALLOW_HEADERS, *ours))),
        ("Access-Control-Allow-Methods", _ALLOW_METHODS),
        ("Access-Control-Allow-Origin", allowed),
        ("Access-Control-Max-Age", _MAX_AGE_SECONDS),
        *(("Vary", name) for name in names),
    )


def exposing(names: Iterable[str]) -> Headers:
    """What lets a page's script read those of our headers that an answer has. Answers as Ollama's own get nothing more than Ollama's."""
    ours = [name for name in names if name.lower().startswith(_OURS)]
    return (("Access-Control-Expose-Headers", ",".join(ours)),) if ours not in ([], [NAME]) else ()


def sign(request: web.Request, headers: CIMultiDict[str]) -> None:
    """What every answer of ours has: its request's name, unless it has one, and what a page of another origin needs."""
    headers.setdefault(NAME, request[NAMED])
    if cors := request.get(CORS, ()):
        headers.extend((*cors, *exposing(headers)))


def name_of(header: str) -> str:
    """A Host header less its port, in lower case."""
    if header.startswith("["):
        name, closed, port = header[1:].partition("]")
        return name.lower() if closed and (not port or port.startswith(":")) else header
    return (header.partition(":")[0] if header.count(":") == 1 else header).lower()


def is_near_name(name: str) -> bool:
    """Whether a name always means this machine or its network, whoever answers for it in DNS."""
    return name in ("", "localhost") or name.endswith(_NEAR_ENDINGS)


def is_near_address(name: str) -> bool:
    """Whether ``name`` is an address of this machine or of a private network."""
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    return (
        address.is_loopback
        or address.is_unspecified
        or any(address in network for network in _PRIVATE)
        or is_own_address(name)
    )


def is_own_address(address: str) -> bool:
    """Whether an IP address is one of this machine's: only such can be bound."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind((address, 0))
    except OSError:
        return False
    return True


def clean(path: str) -> str:
    """A path as Go's ServeMux wants it: no empty segments, no dots; a slash at its end stays."""
    if not path.startswith("/") or ("//" not in path and "/." not in path):
        return path
    tidy = posixpath.normpath("/" + path.lstrip("/"))
    return f"{tidy}/" if path.endswith("/") and tidy != "/" else tidy


def bare(path: str, prefix: str) -> str:
    """A path without the prefix: ``/api/me`` does not begin with the prefix ``/a``."""
    return path.removeprefix(prefix) or "/" if f"{path}/".startswith(f"{prefix}/") else path


def location(path: str, query: str) -> str:
    """A Location header. A backslash would be a slash to browsers, and lead to another site."""
    safe = quote(path, safe="/%:@!$&'()*+,;=~", errors="surrogateescape")
    return f"{safe}?{quote(query, safe=string.punctuation, errors='surrogateescape')}" if query else safe


def allow(methods: Iterable[str]) -> str:
    """An Allow header in Ollama's order."""
    order = {method: place for place, method in enumerate(_METHODS)}
    return ", ".join(sorted(methods, key=lambda method: (order.get(method, len(order)), method)))


def under(prefix: str, routes: Iterable[web.RouteDef]) -> list[web.RouteDef]:
    """The same routes below ``prefix``; its root answers without the slash too."""
    moved = [
        web.RouteDef(route.method, path, route.handler, route.kwargs)
        for route in routes
        for path in ([prefix, f"{prefix}/"] if route.path == "/" else [prefix + route.path])
    ]
    return moved if prefix else []
