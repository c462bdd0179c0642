"""The API description: well-formed, complete, and of nothing that is not there."""

import importlib
import inspect
import json
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from openapi_spec_validator import OpenAPIV31SpecValidator

import gateway
import gateway.api
from gateway.api.handler import Described, described
from gateway.api.openapi import ANSWER_HEADERS, REQUEST_HEADERS, document
from tests.builders import TEXT, call, simulated
from tests.conftest import Corral
from tests.contract.raw import ask
from tests.stage import Stage
from tests.turns.talking import Talk

SOURCES = sorted(Path(gateway.__path__[0]).rglob("*.py"))


def routes(stage: Stage) -> list[web.AbstractRoute]:
    """What a gateway serves; HEAD only where there is no GET."""
    assert stage.gateway.listeners._all[0].runner is not None
    every = list(stage.gateway.listeners._all[0].runner.app.router.routes())
    got = {route.handler for route in every if route.method == "GET"}
    return [route for route in every if route.method != "HEAD" or route.handler not in got]


def path_of(route: web.AbstractRoute) -> str:
    """The path, with its parameters in braces."""
    assert route.resource is not None
    return route.resource.canonical


def written() -> Iterator[Described]:
    """Every handler of gateway/api that describes itself."""
    for info in pkgutil.iter_modules(gateway.api.__path__, "gateway.api."):
        for _, kind in inspect.getmembers(importlib.import_module(info.name), inspect.isclass):
            if kind.__module__ == info.name:
                yield from filter(None, map(described, vars(kind).values()))


def texts(value: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """Every place in the document that needs a text, and the text: properties, parameters, headers, schemas and tags."""
    if isinstance(value, list):
        for number, each in enumerate(value):
            yield from texts(each, f"{where}/{number}")
    if isinstance(value, dict):
        needs = re.search(r"/(properties|parameters|schemas|headers|responses)/[^/]+$|^/tags/\d+$", where)
        if needs and "$ref" not in value:
            yield where, value.get("description")
        for key, each in value.items():
            yield from texts(each, f"{where}/{key.replace('/', '~1')}")


async def test_it_is_openapi(corral: Corral) -> None:
    """Well-formed by the rules of OpenAPI 3.1, and each shape has a short name of its own."""
    said = await (await corral(simulated())).get("/openapi.json")
    assert list(OpenAPIV31SpecValidator(said).iter_errors()) == []
    assert [name for name in said["components"]["schemas"] if not name.isidentifier()] == []


async def test_everything_has_words(corral: Corral) -> None:
    """Every endpoint, parameter, header, shape and field says what it is; no two endpoints say the same."""
    said = await (await corral(simulated())).get("/openapi.json")
    assert [where for where, text in texts(said) if not text] == []
    told = [operation["summary"] for path in said["paths"].values() for operation in path.values()]
    assert all(told)
    assert len(set(told)) == len(told)


async def test_what_corral_adds_is_described(corral: Corral) -> None:
    """What does not describe itself is Ollama's own: an Ollama host knows the path and the method."""
    stage = await corral(simulated())
    foreign = []
    for route in routes(stage):
        if described(route.handler) is None:
            path = re.sub(r"{\w+}", "x", path_of(route))
            answer = await ask(stage["gpu1"].url, route.method, path, b"{}" if route.method != "GET" else None)
            if answer.status in (404, 405) and (answer.get("Content-Type") or "").startswith("text/plain"):
                foreign.append((route.method, path_of(route)))
    assert foreign == []


async def test_what_is_described_is_there(corral: Corral) -> None:
    """Every handler that describes itself has a route, and the document has all of them and no more."""
    stage = await corral(simulated())
    served = [(route, what) for route in routes(stage) if (what := described(route.handler)) is not None]
    assert {what.method for what in written()} == {what.method for _, what in served}
    said = await stage.get("/openapi.json")
    assert {(method.upper(), path) for path, methods in said["paths"].items() for method in methods} == {
        (route.method, path_of(route)) for route, _ in served
    }


async def test_below_a_prefix(corral: Corral) -> None:
    """The document is there as well, and says where its paths are."""
    stage = await corral(simulated(), http={"prefix": "/corral"})
    said = await stage.get("/openapi.json")
    assert said == await stage.get("/corral/openapi.json")
    assert said["servers"] == [{"url": "/corral"}]
    assert not [path for path in said["paths"] if path.startswith("/corral")]
    assert (await ask(stage.url, "GET", "/corral/api/fleet")).status == 200


def test_without_routes() -> None:
    """A document of nothing is a document."""
    said = document([], "", "1")
    assert (said["paths"], said["tags"], said["servers"]) == ({}, [], [{"url": "/"}])


def test_every_header_is_described() -> None:
    """Those of ours that the code names, and no others."""
    named = {name for path in SOURCES for name in re.findall(r"\bX-Corral-[A-Z][\w-]*\w", path.read_text("utf-8"))}
    assert named == {name for name in REQUEST_HEADERS | ANSWER_HEADERS if name.startswith("X-Corral-")}


@pytest.mark.parametrize(
    ("method", "path", "body", "names"),
    [
        ("POST", "/api/chat", call("/api/chat").body, {"X-Corral-Generation", "X-Corral-Host"}),
        ("POST", "/api/chat", call("/api/chat", "nobody").body, {"X-Corral-Generation", "X-Corral-Error"}),
        ("POST", "/api/pull", b'{"model": "smollm2:135m"}', {"X-Corral-Job", "X-Corral-Hosts"}),
        ("GET", "/api/jobs/no", None, {"X-Corral-Error"}),
        ("GET", "/api/jobs", None, set()),
    ],
)
async def test_the_headers_of_answers(
    corral: Corral, method: str, path: str, body: bytes | None, names: set[str]
) -> None:
    """Are as described."""
    stage = await corral(simulated())
    answer = await ask(stage.url, method, path, body)
    assert {name for name, _ in answer.headers if name.startswith("X-Corral-")} == names <= ANSWER_HEADERS.keys()


@pytest.mark.parametrize("how", [{}, {"stream": False}, {"detach": True}])
@pytest.mark.parametrize("path", ["/api/sessions/{id}/chat", "/api/chat/multi-model"])
async def test_answers_of_several_kinds(corral: Corral, file_url: str, path: str, how: dict[str, bool]) -> None:
    """A stream, one object, or where to read it: each is described, with what is always in it."""
    stage = await corral(simulated(tokens_per_second=1e9), database={"url": file_url})
    body: dict[str, Any] = {"topic": "Why?", "participants": [{"model": TEXT}] * 2, "turns": 1}
    asked = path
    if "{id}" in path:
        body = {"message": {"content": "Why?"}}
        asked = path.format(id=(await Talk.new(stage)).id)
    answer = await ask(stage.url, "POST", asked, json.dumps(body | how).encode())
    said = await stage.get("/openapi.json")
    described = said["paths"][path]["post"]["responses"][str(answer.status)]["content"]
    shape = described[str(answer.get("Content-Type")).partition(";")[0]]["schema"]
    if how:
        names = [one["$ref"].rpartition("/")[2] for one in shape["anyOf"]]
        needed = [set(said["components"]["schemas"][name]["required"]) for name in names]
        assert any(fields <= json.loads(answer.body).keys() for fields in needed)
    else:
        assert shape == {"type": "string"}


async def test_the_document_is_json_with_a_type(corral: Corral) -> None:
    """GET and HEAD answer it."""
    stage = await corral(simulated())
    answer = await ask(stage.url, "GET", "/openapi.json")
    assert (answer.status, answer.get("Content-Type")) == (200, "application/json; charset=utf-8")
    assert json.loads(answer.body)["openapi"] == "3.1.0"
    assert (await ask(stage.url, "HEAD", "/openapi.json")).status == 200
