"""Who may come in, and how paths are spelled: Ollama's rules as tables, and what must hold whatever is sent."""

import posixpath
from urllib.parse import unquote

import pytest
from aiohttp import web
from hypothesis import assume, given
from hypothesis import strategies as st

from gateway.api.manners import (
    Greeting,
    Manners,
    allow,
    clean,
    exposing,
    is_own_address,
    location,
    matches,
    name_of,
    under,
)
from gateway.config import HttpConfig
from tests.profiles import PROPERTY

HERE = "127.0.0.1:11434"
CONFIGURED = HttpConfig(
    origins=("https://chat.example.com", "https://*.lab.example"), allowed_hosts=("AI.example.com",)
)
FOREIGN_PAGE, FOREIGN_NAME = Greeting(403, why="Origin"), Greeting(403, why="Host")


def manners(http: HttpConfig = CONFIGURED, *, loopback: bool = True) -> Manners:
    """The rules of a machine named `Workbench`."""
    return Manners(http, "Workbench", loopback=loopback)


# -- Origin -----------------------------------------------------------------------------------------------------------------------

ASCII = st.characters(codec="ascii")
ORIGINS = {
    "http://localhost": True,
    "https://localhost:8443": True,
    "http://127.0.0.1:3000": True,
    "https://0.0.0.0:1": True,
    "app://obsidian.md": True,
    "file://": True,
    "tauri://localhost": True,
    "vscode-webview://0a1b": True,
    "vscode-file://vscode-app": True,
    "https://chat.example.com": True,
    "https://a.lab.example": True,
    "https://.lab.example": True,
    "null": False,
    "https://evil.example": False,
    "http://localhost.evil.example": False,
    "http://127.0.0.2": False,
    "http://chat.example.com": False,
    "https://chat.example.com:8443": False,
    "https://chat.example.com.evil.example": False,
    "https://lab.example": False,
    "vscode://x": False,
    "HTTP://LOCALHOST": False,
    "app://\udcff": False,
}


@pytest.mark.parametrize(("origin", "allowed"), ORIGINS.items(), ids=ORIGINS)
def test_origins(origin: str, allowed: bool) -> None:
    """Ollama's defaults and what is configured; an answer to such a page says so, and that it depends on who asks."""
    cors = (("Access-Control-Allow-Origin", origin), ("Vary", "Origin"))
    assert manners().greet("GET", HERE, origin) == (Greeting(0, cors) if allowed else FOREIGN_PAGE)


@pytest.mark.parametrize("origin", ["", "http://ai.internal", "https://ai.internal"])
def test_the_same_origin(origin: str) -> None:
    """A page of ours, or no page at all, needs no leave."""
    assert manners().greet("POST", "ai.internal", origin) == Greeting()


def test_every_origin() -> None:
    """With `*`, to every page alike."""
    anybody = manners(HttpConfig(origins=("*",)))
    assert anybody.greet("GET", HERE, "null") == Greeting(0, (("Access-Control-Allow-Origin", "*"),))
    assert "Vary" not in dict(anybody.greet("OPTIONS", HERE, "null").headers)


def test_a_preflight_asks_for_our_headers() -> None:
    """Those of Corral that a page wants to send are allowed too; others are not."""
    asked = "content-type, x-corral-session,x-secret"
    headers = dict(manners().greet("OPTIONS", HERE, "http://localhost:1", asked).headers)
    assert headers["Access-Control-Allow-Headers"].endswith(",X-Stainless-Timeout,x-corral-session")


def test_the_origin_comes_first() -> None:
    """As in Ollama: a preflight is answered, and a foreign page refused, before Host is looked at."""
    assert manners().greet("OPTIONS", "evil.example", "http://localhost").status == 204
    assert manners().greet("GET", "evil.example", "http://localhost") == FOREIGN_NAME


@given(text=st.text(ASCII, max_size=20), before=st.text(ASCII, max_size=5), after=st.text(ASCII, max_size=5))
@PROPERTY
def test_a_wildcard_stands_for_any_text(text: str, before: str, after: str) -> None:
    """But for nothing of what stands around it."""
    assume("*" not in before + after)
    assert matches(before + text + after, f"{before}*{after}")
    assert matches(text, f"{before}*{after}") is (
        len(text) >= len(before + after) and text == before + text[len(before) : len(text) - len(after)] + after
    )


@given(st.text())
@PROPERTY
def test_a_pattern_without_a_wildcard_is_itself(text: str) -> None:
    """And nothing else."""
    assume("*" not in text)
    assert matches(text, text)
    assert not matches(text + "x", text)


def test_exposing() -> None:
    """A page's script may read our headers, where an answer has any."""
    assert exposing(["Content-Type", "X-Corral-Host", "x-corral-error"]) == (
        ("Access-Control-Expose-Headers", "X-Corral-Host,x-corral-error"),
    )
    assert exposing(["Content-Type"]) == ()


# -- Host -------------------------------------------------------------------------------------------------------------------------

HOSTS = {
    "": True,
    "localhost": True,
    "LocalHost:80": True,
    "workbench": True,
    "WORKBENCH:11434": True,
    "my.localhost:1": True,
    "gpu.local": True,
    "a.b.internal": True,
    "ai.example.com": True,
    "ai.example.com:443": True,
    "127.0.0.1": True,
    "127.8.8.8:1": True,
    "[::1]:11434": True,
    "[::1]": True,
    "::1": True,
    "0.0.0.0:11434": True,
    "[::]:1": True,
    "10.1.2.3": True,
    "172.16.0.1:1": True,
    "192.168.1.1": True,
    "[fd00::1]:1": True,
    "evil.example": False,
    "localhost.evil.example": False,
    "evillocal": False,
    "local": False,
    "notai.example.com": False,
    "192.0.2.1": False,
    "172.32.0.1": False,
    "[2001:db8::1]:80": False,
    "[::1]evil.example": False,
    "127.0.0.1.evil.example": False,
    "a:b:c": False,
}


@pytest.mark.parametrize(("host", "allowed"), HOSTS.items(), ids=[host or "none" for host in HOSTS])
def test_hosts(host: str, allowed: bool) -> None:
    """Names and addresses that mean this machine or its network, and what is configured; twice, as the verdict is remembered."""
    rules = manners()
    for _ in range(2):
        assert rules.greet("POST", host, "") == (Greeting() if allowed else FOREIGN_NAME)


def test_where_others_can_reach_us_too() -> None:
    """No Host is looked at: they come by any name."""
    assert manners(loopback=False).greet("GET", "evil.example", "") == Greeting()


@pytest.mark.parametrize(
    ("host", "loopback", "status"),
    [
        ("localhost:1", True, 204),
        ("workbench", True, 204),
        (HERE, True, 0),
        ("localhost:1", False, 0),
        ("[::1]", True, 0),
    ],
)
def test_options_without_a_page(host: str, loopback: bool, status: int) -> None:
    """To a name of this machine it is answered; else it is a method like any other."""
    assert manners(loopback=loopback).greet("OPTIONS", host, "").status == status


def test_endless_hosts() -> None:
    """Verdicts are remembered for a bounded number of them, and right beyond."""
    hosts = manners().hosts
    assert not any(hosts[f"{number}.example"] for number in range(3000))
    assert all(hosts[f"{number}.local"] for number in range(3000))
    assert len(hosts) <= hosts.LIMIT


@given(st.text(max_size=40))
@PROPERTY
def test_any_host(header: str) -> None:
    """Whatever is sent, there is a verdict, and a port changes nothing."""
    rules = manners()
    verdict = rules.hosts[header]
    if ":" not in header and not header.startswith("["):
        assert rules.hosts[f"{header}:80"] is verdict
        assert name_of(f"{header}:80") == header.lower()


@pytest.mark.parametrize(
    ("address", "own"), [("127.0.0.1", True), ("192.0.2.1", False), ("2001:db8::1", False), ("fe80::1%nowhere", False)]
)
def test_own_addresses(address: str, own: bool) -> None:
    """Those that this machine can bind."""
    assert is_own_address(address) is own


# -- paths ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/api/tags", "/api/tags"),
        ("/api/tags/", "/api/tags/"),
        ("//api/tags", "/api/tags"),
        ("/api//tags", "/api/tags"),
        ("/api/tags//", "/api/tags/"),
        ("/api/../x", "/x"),
        ("/./api/./tags", "/api/tags"),
        ("/../../x/", "/x/"),
        ("/api/..", "/"),
        ("//", "/"),
        ("/v1/models/.hidden", "/v1/models/.hidden"),
        ("*", "*"),
        ("", ""),
    ],
)
def test_clean_paths(path: str, expected: str) -> None:
    """Empty segments and dots go, a slash at the end stays."""
    assert clean(path) == expected


@given(st.text(alphabet="/.ab", max_size=12).map("/".__add__))
@PROPERTY
def test_a_clean_path_stays(path: str) -> None:
    """A redirect leads to a path that is not redirected again, on this site."""
    tidy = clean(path)
    assert clean(tidy) == tidy
    assert posixpath.normpath(path).lstrip("/") == tidy.strip("/")
    assert not tidy.startswith("//")


@given(st.text().map("/".__add__))
@PROPERTY
def test_a_location_is_one_header_of_this_site(path: str) -> None:
    """Nothing in a path can end the header or make another site of it, and it still means that path."""
    found = location(path, "")
    assert found.isascii()
    assert not set(found) & set('\r\n\\ "<>')
    assert unquote(found, errors="surrogateescape") == unquote(path, errors="surrogateescape")


def test_a_location_keeps_the_query() -> None:
    """As it was sent."""
    assert location("/api/tags", 'a=%20&b[]={"}') == '/api/tags?a=%20&b[]={"}'
    assert location("/", "\udcff ") == "/?%FF%20"


@pytest.mark.parametrize(
    ("methods", "expected"),
    [
        ({"POST"}, "POST"),
        ({"GET", "HEAD"}, "HEAD, GET"),
        ({"DELETE", "GET"}, "GET, DELETE"),
        ({"PUT", "POST"}, "POST, PUT"),
        (set(), ""),
    ],
)
def test_allow(methods: set[str], expected: str) -> None:
    """In the order of Ollama's routes."""
    assert allow(methods) == expected


async def handle(_request: web.Request) -> web.Response:
    """Nothing."""
    return web.Response()


def test_under_a_prefix() -> None:
    """The same handlers with the same options; the root with and without its slash."""
    routes = [web.get("/", handle), web.post("/api/chat", handle), web.get("/api/ps", handle, allow_head=False)]
    moved = under("/corral", routes)
    assert [(route.method, route.path) for route in moved] == [
        ("GET", "/corral"),
        ("GET", "/corral/"),
        ("POST", "/corral/api/chat"),
        ("GET", "/corral/api/ps"),
    ]
    assert [route.kwargs for route in moved[2:]] == [route.kwargs for route in routes[1:]]
    assert under("", routes) == []
