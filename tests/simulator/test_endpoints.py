"""Paths, methods, hosts and origins, where the recordings do not already say it."""

import pytest

from simulator.host import SimulatedHost
from tests.contract.raw import ask
from tests.simulator.hosts import error, generate, post, quick


@pytest.mark.parametrize(
    ("method", "path", "status", "location"),
    [
        ("GET", "/api/tags/", 301, "/api/tags"),
        ("GET", "/api/tags/?x=1", 301, "/api/tags?x=1"),
        ("POST", "/api/generate/", 307, "/api/generate"),
        ("GET", "//api/tags", 307, "/api/tags"),
        ("GET", "/api/../api/tags", 307, "/api/tags"),
        ("GET", "/api/generate/", 404, None),
        ("GET", "/v1/models/a/b", 404, None),
        ("GET", "/api/blobs/sha256:00", 405, None),
    ],
)
async def test_paths(method: str, path: str, status: int, location: str | None) -> None:
    """Slashes too many are redirected, where there is something to redirect to."""
    async with quick() as host:
        answer = await ask(host.url, method, path)
    assert (answer.status, answer.get("Location")) == (status, location)


async def test_allow_lists_every_method() -> None:
    """A wrong method is told the right ones."""
    async with quick() as host:
        answer = await ask(host.url, "PUT", "/api/tags")
    assert (answer.status, answer.get("Allow"), answer.body) == (405, "HEAD, GET", b"405 method not allowed")


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("localhost:11434", 200),
        ("127.0.0.1", 200),
        ("10.1.2.3:80", 200),
        ("[::1]:11434", 200),
        ("box.internal", 200),
        ("my.localhost", 200),
        ("8.8.8.8", 403),
        ("example.com", 403),
    ],
)
async def test_hosts(name: str, status: int) -> None:
    """A host that listens on loopback wants to be addressed as somebody near."""
    async with quick() as host:
        answer = await ask(host.url, "GET", "/api/version", headers={"Host": name})
    assert answer.status == status
    assert (answer.body == b"") is (status == 403)


async def test_a_host_on_every_address_takes_any_name() -> None:
    """Without loopback there is no check of the Host header."""
    host = quick()
    await host.start(address="0.0.0.0")
    answer = await ask(f"http://127.0.0.1:{host.port}", "GET", "/api/version", headers={"Host": "example.com"})
    await host.stop()
    assert answer.status == 200


@pytest.mark.parametrize(
    ("origin", "status", "allowed"),
    [
        ("https://localhost", 200, "https://localhost"),
        ("http://127.0.0.1:1", 200, "http://127.0.0.1:1"),
        ("vscode-webview://x", 200, "vscode-webview://x"),
        ("http://self", 200, None),
        ("null", 403, None),
        ("http://localhost.evil.example", 403, None),
    ],
)
async def test_origins(origin: str, status: int, allowed: str | None) -> None:
    """Near origins are allowed, its own needs nothing, others are refused with no body."""
    async with quick() as host:
        here = origin.replace("self", host.url.removeprefix("http://"))
        answer = await ask(host.url, "GET", "/api/version", headers={"Origin": here})
    assert (answer.status, answer.get("Access-Control-Allow-Origin")) == (status, allowed)


async def test_streams_carry_the_cors_headers() -> None:
    """A browser may read a stream as well as a whole answer."""
    async with quick() as host:
        answer = await post(host, "/api/generate", generate(), Origin="http://localhost:3000")
    assert answer.get("Access-Control-Allow-Origin") == "http://localhost:3000"


async def test_no_preflight_without_an_origin() -> None:
    """OPTIONS alone is a method like another, but not for a host addressed by a name."""
    async with quick() as host:
        assert (await ask(host.url, "OPTIONS", "/api/chat")).status == 405
        assert (await ask(host.url, "OPTIONS", "/api/chat", headers={"Host": "localhost"})).status == 204


async def test_nothing_says_which_server_this_is() -> None:
    """Ollama sends no Server header."""
    async with quick() as host:
        assert (await ask(host.url, "GET", "/")).get("Server") is None


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({}, 400, "model is required"),
        ("", 400, "cannot unmarshal string"),
        ({"model": "a b"}, 400, "invalid model name"),
    ],
)
async def test_show_refuses(body: object, status: int, words: str) -> None:
    """A show without a model it could mean."""
    async with quick() as host:
        found = error(await post(host, "/api/show", body))
    assert found[0] == status
    assert words in found[1]


async def test_show_takes_the_older_key() -> None:
    """`name` works as `model` does."""
    async with quick() as host:
        assert (await post(host, "/api/show", {"name": "SMOLLM2:135m"})).status == 200


async def test_a_host_without_models() -> None:
    """tags has an empty list, and OpenAI's a null."""
    async with SimulatedHost("bare", quick(models=()).profile) as host:
        assert (await ask(host.url, "GET", "/api/tags")).body == b'{"models":[]}'
        assert (await ask(host.url, "GET", "/v1/models")).body == b'{"object":"list","data":null}\n'
