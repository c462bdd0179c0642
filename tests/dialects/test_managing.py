"""Reading managing requests: as leniently as Ollama, and no byte changed but where progress was not asked for."""

import json

import pytest

from gateway.dialects.managing import Operation, read_management
from gateway.errors import BadRequest


@pytest.mark.parametrize(
    ("operation", "body", "model", "name", "stream"),
    [
        pytest.param("pull", b'{"model":"A:1b"}', "A:1b", "a:1b", True, id="model"),
        pytest.param("pull", b'{"name":"a"}', "a", "a:latest", True, id="name"),
        pytest.param("pull", b'{"name":"a","model":"b"}', "b", "b:latest", True, id="model wins"),
        pytest.param("pull", b'{"name":"a","model":""}', "a", "a:latest", True, id="empty is none"),
        pytest.param("pull", b'{"MODEL":"a","Stream":null}', "a", "a:latest", True, id="any case, null"),
        pytest.param("delete", b'{"name":"library/a"} and more', "library/a", "a:latest", True, id="what follows"),
        pytest.param("copy", b'{"source":"a","destination":"b","model":"c"}', "a", "a:latest", True, id="copy"),
        pytest.param("pull", b"{}", "", "", True, id="nothing"),
        pytest.param("push", b'{"model":"a","stream":"no"}', "a", "a:latest", True, id="no flag"),
    ],
)
def test_read(operation: str, body: bytes, model: str, name: str, stream: bool) -> None:
    """Which model, and whether to stream; the body is sent on unchanged."""
    request = read_management(Operation(operation), body)
    assert (request.model, request.name, request.stream) == (model, name, stream)
    assert request.body is body


def test_hosts_stream_in_any_case() -> None:
    """Only `stream` changes; other values keep their bytes."""
    request = read_management(Operation.CREATE, b'{"model":"a","Stream":false,"parameters":{"x":1.10,"y":"\\u2028"}}')
    assert not request.stream
    assert json.loads(request.body)["stream"] is True
    assert b'"parameters":{"x":1.10,"y":"\\u2028"}' in request.body


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"model":1}', b'{"model":"a","MODEL":"b"}'])
def test_what_cannot_be_read(body: bytes) -> None:
    """It is the caller's fault."""
    with pytest.raises(BadRequest):
        read_management(Operation.PULL, body)
