"""Manners over real sockets: who is let in, where a path leads, and what HTTP's small print asks for; on the fast path too."""

import json
from collections.abc import Mapping

import pytest

from gateway.api.middleware import TURNED_AWAY_MOST
from tests.builders import ONE_EACH, PATHS, STREAMING, TEXT, call, simulated
from tests.conftest import Corral
from tests.contract.raw import Answer, ask
from tests.stage import Client, Stage

PAGE = "http://localhost:3000"
EVIL = "https://evil.example"
CORS = "Access-Control-Allow-Origin"
EXPOSED = "Access-Control-Expose-Headers"
REFUSED = {
    "a foreign page": {"Origin": EVIL},
    "a foreign name": {"Host": "evil.example"},
    "no origin": {"Origin": "null"},
}
EVERYWHERE = (
    ("GET", "/"),
    ("GET", "/api/tags"),
    ("GET", "/metrics"),
    ("GET", "/nothing"),
    ("POST", "/api/chat"),
    ("DELETE", "/api/ps"),
)


async def asked(stage: Stage, method: str, path: str, headers: Mapping[str, str]) -> Answer:
    """The answer to a request that could be served."""
    body = call("/api/chat", tokens=2).body if method == "POST" else None
    return await ask(stage.url, method, path, body, headers)


# -- Origin and Host --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("headers", REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize(("method", "path"), EVERYWHERE)
async def test_refused(corral: Corral, method: str, path: str, headers: dict[str, str]) -> None:
    """403 with nothing in it, whatever is asked for; no host hears of it, and it is counted."""
    stage = await corral(simulated())
    answer = await asked(stage, method, path, headers)
    assert (answer.status, answer.body, answer.get(CORS)) == (403, b"", None)
    assert answer.get("X-Corral-Error") == "forbidden"
    assert not stage["gpu1"].ledger.entries
    assert sum((await stage.totals("corral_http_responses_total", "code")).values()) == 1
    assert (await stage.totals("corral_http_responses_total", "code"))["403"] == 1


async def test_the_log_tells_of_the_refused(corral: Corral) -> None:
    """Each Origin and Host once, cut short, and no more than fill a page or two: who is turned away by mistake has to find out why."""
    stage = await corral(simulated())
    for headers in ({"Origin": EVIL}, {"Origin": EVIL}, {"Host": "evil.example"}, {"Origin": "http://" + "x" * 5_000}):
        assert (await asked(stage, "GET", "/api/tags", headers)).status == 403
    for number in range(TURNED_AWAY_MOST):
        assert (await asked(stage, "GET", "/api/tags", {"Host": f"evil{number}.example"})).status == 403
    await stage.stop()
    logged = [json.loads(line)["message"] for line in stage.log.read_text().splitlines() if "turned away" in line]
    assert logged[0] == f"turned away (403), and told this once: Origin {EVIL!r}; http.origins lets it in"
    assert logged[1] == "turned away (403), and told this once: Host 'evil.example'; http.allowed_hosts lets it in"
    assert all(len(line) < 400 for line in logged)
    assert (len(logged), logged[-1].endswith("; the log tells of no more")) == (TURNED_AWAY_MOST, True)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("version", ["1.1", "1.0"])
async def test_an_answer_to_a_page(corral: Corral, path: str, version: str) -> None:
    """A page that is allowed gets the host's answer with leave to read it, and Corral's own headers too."""
    stage = await corral(simulated())
    request = call(path, tokens=2)
    lines = {"Host": "localhost", "Origin": PAGE, "Content-Length": str(len(request.body))} | request.headers
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    async with Client.to(stage.url) as client:
        await client.write(f"POST {path} HTTP/{version}\r\n{head}\r\n".encode() + request.body)
        answer = await client.answer()
    assert (answer.status, answer.all(CORS), answer.all("Vary")) == (200, [PAGE], ["Origin"])
    assert answer.all(EXPOSED) == ["X-Corral-Generation,X-Corral-Host,X-Request-Id"]
    assert "origin" not in {name.lower() for name, _ in stage["gpu1"].ledger.received[-1].headers}
    assert (await stage.totals("corral_http_responses_total", "route"))[path] == 1


@pytest.mark.parametrize("path", PATHS)
async def test_an_error_to_a_page(corral: Corral, path: str) -> None:
    """So do errors, Corral's and the host's: a page must be able to show them."""
    stage = await corral(simulated())
    unknown = await ask(stage.url, "POST", path, call(path, "nobody:1b").body, call(path).headers | {"Origin": PAGE})
    assert (unknown.status, unknown.all(CORS), unknown.all("Vary")) == (404, [PAGE], ["Origin"])
    assert unknown.all(EXPOSED) == ["X-Corral-Error,X-Corral-Generation,X-Request-Id"]
    stage["gpu1"].faults.set("busy", times=1)
    busy = await ask(stage.url, "POST", path, call(path).body, call(path).headers | {"Origin": PAGE})
    assert (busy.status, busy.all(CORS)) == (503, [PAGE])


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 200),
        ("HEAD", "/api/tags", 200),
        ("GET", "/nothing", 404),
        ("GET", "/api/chat", 405),
        ("GET", "/api/tags/", 301),
    ],
)
async def test_every_answer_to_a_page(corral: Corral, method: str, path: str, status: int) -> None:
    """Lists, errors and redirects alike; with nothing more than Ollama gives, which a page could not read in Ollama's answers either."""
    stage = await corral(simulated())
    answer = await ask(stage.url, method, path, headers={"Origin": PAGE})
    assert (answer.status, answer.all(CORS), answer.all("Vary"), answer.all(EXPOSED)) == (
        status,
        [PAGE],
        ["Origin"],
        [],
    )


@pytest.mark.parametrize("path", ["/api/chat", "/api/tags"])
async def test_no_page(corral: Corral, path: str) -> None:
    """Without an Origin, and with our own, there is no word of it."""
    stage = await corral(simulated())
    for headers in ({}, {"Origin": stage.url}, {"Origin": stage.url.replace("http:", "https:")}):
        answer = await asked(stage, "POST" if "chat" in path else "GET", path, headers)
        assert (answer.status, answer.get(CORS), answer.get("Vary")) == (200, None, None)


async def test_configured_pages_and_names(corral: Corral) -> None:
    """What the configuration lets in, comes in."""
    http = {"origins": ("https://*.example.com",), "allowed_hosts": ("ai.example.com",)}
    stage = await corral(simulated(), http=http)
    for method, path in (("POST", "/api/chat"), ("GET", "/api/tags")):
        answer = await asked(stage, method, path, {"Host": "ai.example.com", "Origin": "https://chat.example.com"})
        assert (answer.status, answer.get(CORS)) == (200, "https://chat.example.com")
        assert (await asked(stage, method, path, {"Host": "other.example.com"})).status == 403


async def test_any_page(corral: Corral) -> None:
    """`*` lets every page in."""
    stage = await corral(simulated(), http={"origins": ("*",)})
    for method, path in (("POST", "/api/chat"), ("GET", "/api/tags")):
        answer = await asked(stage, method, path, {"Origin": EVIL})
        assert (answer.status, answer.get(CORS), answer.get("Vary")) == (200, "*", None)


PREFLIGHT = {
    "Origin": PAGE,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "x-corral-session",
}


@pytest.mark.parametrize(
    ("path", "allowed"),
    [("/api/chat", "POST"), ("/api/tags", "HEAD, GET"), ("/v1/models/x", "GET"), ("/nothing", None)],
)
async def test_preflights(corral: Corral, path: str, allowed: str | None) -> None:
    """Answered for every path, with what it takes where there is one."""
    stage = await corral(simulated())
    answer = await ask(stage.url, "OPTIONS", path, headers=PREFLIGHT)
    assert (answer.status, answer.get(CORS), answer.get("Allow")) == (204, PAGE, allowed)
    assert (answer.get("Access-Control-Allow-Headers") or "").endswith(",x-corral-session")
    assert answer.get("Content-Length") is None
    assert (await ask(stage.url, "OPTIONS", path, headers=PREFLIGHT | {"Origin": EVIL})).status == 403


@pytest.mark.parametrize(("host", "status"), [(None, 405), ("localhost", 204), ("box.local:1", 204)])
async def test_options(corral: Corral, host: str | None, status: int) -> None:
    """Without a page it is a method that no path has, but that names of this machine are told well."""
    stage = await corral(simulated())
    answer = await ask(stage.url, "OPTIONS", "/api/chat", headers={"Host": host} if host else {})
    assert (answer.status, answer.get("Allow")) == (status, "POST")


ODD = {
    "an origin": (b"GET /api/tags", b"Origin: app://\xff", 403),
    "an origin on the fast path": (b"POST /api/chat", b"Origin: app://\xff\xe4", 403),
    "a name": (b"GET /api/tags", b"Host: \xff.local", 200),
    "a preflight": (b"OPTIONS /api/chat", b"Origin: app://a\r\nAccess-Control-Request-Headers: x-corral-\xff", 204),
    "a path": (b"GET //\xff/", b"X: y", 400),
}


@pytest.mark.parametrize(("line", "header", "status"), ODD.values(), ids=ODD)
async def test_what_is_no_text(corral: Corral, line: bytes, header: bytes, status: int) -> None:
    """Bytes that no header should have are judged like any others, and never sent back."""
    stage = await corral(simulated())
    host = b"" if header.startswith(b"Host") else b"Host: localhost\r\n"
    async with Client.to(stage.url) as client:
        await client.write(
            b"%b HTTP/1.1\r\n%b%b\r\nContent-Length: 0\r\n\r\n" % (line, host, header), line.split()[0].decode()
        )
        answer = await client.answer()
    assert answer.status == status
    assert all(name.isascii() and value.isascii() for name, value in answer.headers)


# -- paths ------------------------------------------------------------------------------------------------------------------------

MOVED = [
    ("GET", "/api/tags/", 301, "/api/tags"),
    ("GET", "/api/tags/?a=%20&b", 301, "/api/tags?a=%20&b"),
    ("GET", "/v1/models/", 301, "/v1/models"),
    ("GET", "/api/generations/", 301, "/api/generations"),
    ("HEAD", "/api/tags/", 307, "/api/tags"),
    ("POST", "/v1/messages/?beta=true", 307, "/v1/messages?beta=true"),
    ("GET", "//api/tags", 307, "/api/tags"),
    ("GET", "//evil.example/", 307, "/evil.example/"),
    ("GET", "/./\\evil.example", 307, "/%5Cevil.example"),
    ("POST", "/api//chat?a=b", 307, "/api/chat?a=b"),
    ("POST", "/v1/../api/chat", 307, "/api/chat"),
]


@pytest.mark.parametrize("prefix", ["", "/corral"])
@pytest.mark.parametrize(("method", "path", "status", "target"), MOVED)
async def test_moved(corral: Corral, prefix: str, method: str, path: str, status: int, target: str) -> None:
    """A path spelled otherwise leads to the right one, with its query and below its prefix; the connection stays."""
    stage = await corral(simulated(), http={"prefix": "/corral"})
    async with Client.to(stage.url) as client:
        for _ in range(2):
            await client.send(method, prefix + path, b"{}" if method == "POST" else None)
            answer = await client.answer()
            assert (answer.status, answer.get("Location")) == (status, prefix + target)
            told = answer.get("Content-Type") == "text/html; charset=utf-8"
            assert (told, bool(answer.body)) == (method != "POST", method == "GET")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/nothing/"),
        ("GET", "/api/chat/"),
        ("HEAD", "/api/ps/"),
        ("GET", "/api/tags/x/"),
        ("OPTIONS", "/api/chat/"),
    ],
)
async def test_nowhere_to_go(corral: Corral, method: str, path: str) -> None:
    """Where the path without its slash would not do either, there is nothing."""
    stage = await corral(simulated())
    assert (await ask(stage.url, method, path)).status == 404


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/api/tags", "HEAD, GET"),
        ("POST", "/", "HEAD, GET"),
        ("HEAD", "/api/ps", "GET"),
        ("HEAD", "/v1/models", "GET"),
        ("HEAD", "/v1/models/x", "GET"),
        ("DELETE", "/api/version", "HEAD, GET"),
        ("GET", "/api/chat", "POST"),
    ],
)
async def test_wrong_method(corral: Corral, method: str, path: str, allowed: str) -> None:
    """Allow says what would do, in the order of Ollama's routes."""
    stage = await corral(simulated())
    answer = await ask(stage.url, method, path)
    assert (answer.status, answer.get("Allow"), answer.get("Content-Type")) == (405, allowed, "text/plain")
    assert answer.body == (b"" if method == "HEAD" else b"405 method not allowed")


@pytest.mark.parametrize("path", PATHS)
async def test_a_prefix(corral: Corral, path: str) -> None:
    """Below it is the same as above it: to clients, to the host, and in the metrics."""
    stage = await corral(simulated(), http={"prefix": "/a/b"})
    request = call(path, tokens=2)
    for prefix in ("", "/a/b"):
        answer = await ask(stage.url, "POST", f"{prefix}{path}?x=1", request.body, request.headers)
        assert (answer.status, answer.get("X-Corral-Host")) == (200, "gpu1")
        assert stage["gpu1"].ledger.received[-1].path == f"{path}?x=1"
    page = await ask(stage.url, "POST", f"/a/b{path}", request.body, request.headers | {"Origin": PAGE})
    assert (page.status, page.get(CORS)) == (200, PAGE)
    assert await stage.totals("corral_http_responses_total", "route") == {path: 3}


async def test_everything_below_a_prefix(corral: Corral) -> None:
    """Lists, the root with or without its slash, and errors."""
    stage = await corral(simulated(), http={"prefix": "/corral"})
    assert await stage.get("/corral/api/tags") == await stage.get("/api/tags")
    for path in ("/corral", "/corral/"):
        assert (await ask(stage.url, "GET", path)).body == b"Ollama is running"
        assert (await ask(stage.url, "HEAD", path)).status == 200
    assert (await ask(stage.url, "GET", "/corral/nothing")).status == 404
    assert (await ask(stage.url, "GET", "/corral/corral/api/tags")).status == 404
    assert (await ask(stage.url, "GET", "/corralapi/tags")).status == 404
    assert (await ask(stage.url, "GET", "/corral/api/chat")).get("Allow") == "POST"
    routes = await stage.totals("corral_http_responses_total", "route")
    assert set(routes) == {"/", "/api/tags", "_unmatched"}


# -- connections ------------------------------------------------------------------------------------------------------------------

EXPECTING = {
    "the fast path": ("/api/chat", {}, 200),
    "a page": ("/api/chat", {"Origin": PAGE}, 200),
    "a prefix": ("/corral/api/chat", {}, 200),
    "an endpoint that reads": ("/api/route/explain", {}, 200),
}


@pytest.mark.parametrize(("path", "headers", "status"), EXPECTING.values(), ids=EXPECTING)
async def test_expect(corral: Corral, path: str, headers: dict[str, str], status: int) -> None:
    """100 is said once, then the answer; and the connection serves on."""
    stage = await corral(simulated(), http={"prefix": "/corral"})
    body = call("/api/chat", tokens=2).body
    async with Client.to(stage.url) as client:
        for _ in range(2):
            lengths = {"Content-Length": str(len(body)), "Expect": "100-continue"}
            await client.send("POST", path, None, headers | lengths)
            assert (await client.head()).status == 100
            await client.write(body)
            answer = await client.answer()
            assert (answer.status, answer.get("Connection")) == (status, None)
        await client.send("GET", "/healthz")
        assert (await client.answer()).status == 200


@pytest.mark.parametrize("headers", REFUSED.values(), ids=REFUSED)
async def test_expect_of_the_refused(corral: Corral, headers: dict[str, str]) -> None:
    """Who is not let in is told so, and nothing is relayed."""
    stage = await corral(simulated())
    body = call("/api/chat").body
    async with Client.to(stage.url) as client:
        await client.send("POST", "/api/chat", body, headers | {"Expect": "100-continue"})
        head = await client.head()
        if head.status == 100:
            head = await client.head()
        assert head.status == 403
    assert not stage["gpu1"].ledger.entries


async def test_what_else_is_expected(corral: Corral) -> None:
    """Nothing but 100-continue can be."""
    stage = await corral(simulated())
    answer = await ask(stage.url, "POST", "/api/chat", call("/api/chat").body, {"Expect": "a miracle"})
    assert answer.status == 417
    assert not stage["gpu1"].ledger.entries


@pytest.mark.parametrize("path", ["/", "/api/tags", "/api/tags/", "/nothing"])
async def test_http_1_0_reads(corral: Corral, path: str) -> None:
    """Without a Host, whole, and the door closed after it, unless asked to keep it open."""
    stage = await corral(simulated())
    async with Client.to(stage.url) as client:
        await client.write(f"GET {path} HTTP/1.0\r\n\r\n".encode(), "GET")
        answer = await client.answer()
        assert (answer.status, answer.get("Transfer-Encoding")) == ((await ask(stage.url, "GET", path)).status, None)
        assert await client.ended() is False
    async with Client.to(stage.url) as client:
        for _ in range(2):
            await client.write(f"GET {path} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n".encode(), "GET")
            kept = await client.answer()
            assert (kept.status, kept.get("Connection")) == (answer.status, "keep-alive")


@pytest.mark.parametrize("path", ONE_EACH)
async def test_http_1_0_kept(corral: Corral, path: str) -> None:
    """An answer with a length leaves the connection open for who asks for it."""
    stage = await corral(simulated())
    body = call(path, stream=False, tokens=2).body
    head = f"POST {path} HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    async with Client.to(stage.url) as client:
        for _ in range(2):
            await client.write(head + body)
            answer = await client.answer()
            assert (answer.status, answer.get("Connection")) == (200, "keep-alive")


@pytest.mark.parametrize("path", STREAMING)
async def test_pages_keep_their_connection(corral: Corral, path: str) -> None:
    """Answers, refusals and redirects follow each other on one connection."""
    stage = await corral(simulated())
    request = call(path, stream=True, tokens=3)
    async with Client.to(stage.url) as client:
        for origin, target, status in (
            (PAGE, path, 200),
            (EVIL, path, 403),
            (PAGE, f"{path}/", 307),
            (PAGE, path, 200),
        ):
            await client.send("POST", target, request.body, request.headers | {"Origin": origin})
            answer = await client.answer()
            assert (answer.status, answer.get("Connection")) == (status, None)


async def test_the_names_of_the_fleet_are_not_asked(corral: Corral) -> None:
    """A model's own path may end in anything: only the gateway's paths are tidied."""
    stage = await corral(simulated())
    assert (await ask(stage.url, "GET", f"/v1/models/{TEXT}")).status == 200
    assert json.loads((await ask(stage.url, "GET", "/v1/models/x.")).body)["error"]["message"].startswith("model 'x.")
