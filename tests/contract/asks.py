"""What the conformance suite asks beyond the recorded cases: every endpoint, streaming and not, and much that is odd.

All of it leaves hosts as they were; `changes.py` has the rest.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import zstandard

from tests.builders import EMBEDDING, PATHS, STREAMING, TEXT, Call, call

NOBODY = "nobody-has-this:1b"
ABSENT = f"sha256:{'1' * 64}"
PAGE = {"Origin": "http://localhost:3000"}
FOREIGN = {"Origin": "https://evil.example"}

REGISTRY = "it needs a registry in reach"
STATE = "it needs hosts with the same models"
WORDS = "hosts of different versions have other words for it"


@dataclass(frozen=True, slots=True)
class Ask:
    """One request, with what surrounds it.

    One that changes something says what has to be there `before`, what shall be looked at `then`, and what takes it away `after`:
    the hosts may be somebody's. `fault` is one that all simulated hosts have. `alone` says why it is for simulated hosts only.
    """

    name: str
    method: str
    path: str
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    before: tuple["Ask", ...] = ()
    then: tuple["Ask", ...] = ()
    after: tuple["Ask", ...] = ()
    fault: str = ""
    alone: str = ""
    packed: bool = False

    @property
    def sent(self) -> bytes | None:
        """The body as it is sent: `packed` with zstd."""
        return zstandard.compress(self.body) if self.packed and self.body else self.body


def get(path: str, method: str = "GET", name: str = "", **headers: str) -> Ask:
    """A request without a body."""
    return Ask(name or f"{method} {path}", method, path, None, headers)


def post(path: str, value: Any, name: str = "", method: str = "POST", **more: Any) -> Ask:
    """A request with JSON, or with bytes as they are."""
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    title = name or f"{method} {path} {body[:120].decode(errors='replace')}"
    return Ask(title, method, path, body, more.pop("headers", {"Content-Type": "application/json"}), **more)


def of(made: Call, name: str, **more: Any) -> Ask:
    """A request that `call` made."""
    return Ask(f"{made.path} {name}", "POST", made.path, made.body, made.headers, **more)


def _streams(path: str) -> list[bool | None]:
    return [None, True, False] if path in STREAMING else [None]


INFERENCE = [
    of(
        call(path, stream=stream, tokens=20),
        f"stream={stream}",
        alone=WORDS if path == "/v1/audio/transcriptions" else "",
    )
    for path in PATHS
    for stream in _streams(path)
]
"""Every inference endpoint, in each form."""

MORE = [
    of(call("/api/generate", **more), str(more))
    for more in (
        {"raw": True},
        {"format": "json"},
        {"logprobs": True, "top_logprobs": 2},
        {"system": "Be brief.", "stream": False},
        {"context": [1, 2, 3]},
        {"options": {"num_ctx": 2048}},
        {"keep_alive": "1h", "stream": False},
    )
] + [
    of(call("/v1/chat/completions", stream=True, stream_options={"include_usage": True}), "usage"),
    of(call("/v1/completions", stream=True, stream_options={"include_usage": True}), "usage"),
    of(call("/v1/embeddings", encoding_format="base64"), "base64"),
    of(call("/api/embed", input="one"), "one input"),
    of(call("/api/embed", input=[]), "no input"),
    of(call("/api/chat", messages=[]), "load"),
    of(call("/api/generate", prompt=""), "load"),
    of(call("/api/chat", messages=[], keep_alive=0), "unload"),
    of(call("/api/generate", prompt="", keep_alive="0s"), "unload"),
    of(call("/api/generate", NOBODY, prompt="", keep_alive=0), "unload what nobody has"),
    of(call("/v1/audio/transcriptions", response_format="text"), "text", alone=WORDS),
    of(call("/v1/audio/transcriptions", NOBODY), "unknown model"),
    of(call("/v1/audio/transcriptions", TEXT), "a model that hears nothing", alone=WORDS),
]
"""Options that change the shape of an answer."""

REFUSED = [
    of(call(path, **more), str(more))
    for path in PATHS
    if path != "/v1/audio/transcriptions"
    for more in ({"model": NOBODY}, {"model": "somebody/else:x"}, {"model": "a b"}, {"model": "x" * 400}, {"model": 1})
] + [
    of(call("/api/generate", keep_alive="abc"), "keep_alive"),
    of(call("/api/chat", keep_alive="abc"), "keep_alive"),
    of(call("/api/generate", options={"num_ctx": "big"}), "options"),
    of(call("/api/chat", think="odd"), "an odd think"),
    of(call("/api/chat", think=True), "think"),
    of(call("/api/generate", EMBEDDING), "an embedding model"),
    of(call("/v1/chat/completions", messages=[]), "no messages"),
    of(call("/v1/messages", max_tokens=0), "no tokens"),
    of(call("/api/chat", messages="x"), "messages", alone=WORDS),
    of(call("/api/chat", stream="x"), "stream", alone=WORDS),
]
"""What hosts refuse before any byte, in every dialect."""

NAMES = (
    [
        of(call(path, name, tokens=3, **({"stream": False} if path in STREAMING else {})), repr(name))
        for path in ("/api/generate", "/api/chat", "/v1/chat/completions", "/v1/messages")
        for name in (TEXT.upper(), f"library/{TEXT}", f"registry.ollama.ai/library/{TEXT}", f" {TEXT} ")
    ]
    + [
        of(call(path, name), repr(name), alone="" if ":" in name else "its tag may be another")
        for path in ("/api/embed", "/v1/embeddings")
        for name in (EMBEDDING.partition(":")[0], EMBEDDING.upper())
    ]
    + [post("/api/show", {"model": name}) for name in (TEXT.upper(), f"library/{TEXT}", NOBODY, "a b", "", "é")]
    + [get(f"/v1/models/{name}") for name in (TEXT, TEXT.upper(), f"library%2F{TEXT}", NOBODY, "a%20b")]
)
"""One model by many names."""

_GENERATE = call("/api/generate", tokens=3, stream=False)
_ODD = {
    "nothing": b"",
    "an empty object": b"{}",
    "a list": b"[]",
    "null": b"null",
    "a text": b'"x"',
    "a number": b"1",
    "half an object": b'{"model":',
    "no JSON": b"model=x",
    "half a text": b'{"model":"x',
}
_TAKES_JSON = (
    *(path for path in PATHS if "audio" not in path),
    "/api/show",
    "/api/pull",
    "/api/push",
    "/api/create",
    "/api/copy",
)
JSON = [post(path, body, f"{path} {name}") for path in _TAKES_JSON for name, body in _ODD.items()] + [
    post("/api/delete", body, f"/api/delete {name}", "DELETE") for name, body in _ODD.items()
]
"""Bodies that are no request."""

ODD = [
    post("/api/generate", _GENERATE.body + b" {}", "trailing bytes"),
    post("/api/generate", _GENERATE.body.replace(b'"model"', b'"MODEL"'), "a key in upper case"),
    post("/api/generate", b" \n" + _GENERATE.body, "blanks before"),
    post("/api/generate", _GENERATE.body.replace(b"{", b'{"model":"x",', 1), "a key twice"),
    post("/api/generate", _GENERATE.body.replace(b"Why", b"\\u0057h\\u0079 \xe2\x80\xa8"), "escapes"),
    post("/api/generate", _GENERATE.body.replace(b"Why", b"\xff"), "no UTF-8"),
    post(
        "/api/generate", _GENERATE.body, "a form's type", headers={"Content-Type": "application/x-www-form-urlencoded"}
    ),
    post("/api/generate", _GENERATE.body, "no type", headers={}),
    post("/api/generate", _GENERATE.body, "gzip", headers={"Accept-Encoding": "gzip"}),
    post("/api/generate?a=b", _GENERATE.body, "a query"),
    post("/api/generate", call("/api/generate", stream=None, tokens=3).body[:-1] + b',"stream":null}', "stream null"),
    *(
        post(path, call(path, tokens=3).body, f"{path} zstd", headers={"Content-Encoding": "zstd"}, packed=True)
        for path in ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/messages")
    ),
    post(
        "/v1/chat/completions",
        b"\x28\xb5\x2f\xfd",
        "/v1/chat/completions no zstd",
        headers={"Content-Encoding": "zstd"},
    ),
]
"""Bodies that are odd, and are requests."""

_KNOWN = (
    *PATHS,
    "/",
    "/api/version",
    "/api/status",
    "/api/tags",
    "/api/ps",
    "/api/show",
    "/api/pull",
    "/api/push",
    "/api/create",
    "/api/copy",
    "/api/delete",
    f"/api/blobs/{ABSENT}",
    "/api/me",
    "/api/signout",
    "/api/user/keys/x",
    "/api/experimental/web_search",
    "/api/experimental/web_fetch",
    "/api/experimental/model-recommendations",
    "/v1/models",
    f"/v1/models/{TEXT}",
)
_UNKNOWN = (
    "/nope",
    "/api",
    "/api/",
    "/v1",
    "/api/blobs",
    "/health",
    "/v1/images/generations",
    "/v1/messages/count_tokens",
)
_LISTS = ("/api/tags", "/api/ps", "/v1/models")
_METHODS = ("GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "POST")
_SERVED = {
    "GET": {"/", "/api/version", "/api/status", "/api/tags", "/api/ps", "/v1/models", f"/v1/models/{TEXT}"},
    "POST": {path for path in _KNOWN if path.startswith(("/api/", "/v1/"))} - {"/v1/models", f"/v1/models/{TEXT}"},
}
METHODS = [
    replace(get(path, method), alone=STATE if method == "GET" and path in _LISTS else "")
    for path in (*_KNOWN, *_UNKNOWN)
    for method in _METHODS
    if not (method == "POST" and path in _SERVED["POST"])  # those are asked with a body elsewhere
]
"""Every path with every method: lists, HEAD, 404, 405 and what it allows."""

PAGES = [
    replace(get(path, method, f"{method} {path} {name}"), headers=headers)
    for path, method in (
        ("/api/tags", "GET"),
        ("/api/tags", "HEAD"),
        ("/nope", "GET"),
        ("/api/chat", "GET"),
        ("/api/tags/", "GET"),
        ("/api/chat", "OPTIONS"),
        ("/nope", "OPTIONS"),
    )
    for name, headers in {
        "a page": PAGE,
        "a foreign page": FOREIGN,
        "null": {"Origin": "null"},
        "an application": {"Origin": "app://x"},
        "a preflight": PAGE
        | {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"},
        "a near name": {"Host": "localhost"},
        "a foreign name": {"Host": "evil.example"},
    }.items()
] + [
    replace(of(call(path, tokens=3), "from a page"), headers=call(path).headers | headers)
    for path in ("/api/chat", "/v1/chat/completions", "/v1/messages", "/api/embed")
    for headers in (PAGE, FOREIGN)
]
"""Who may call, and what a page is told."""

MOVED = [
    get(path, method)
    for path in (
        "/api/tags/",
        "/api/tags/?a=%20&b",
        "/v1/models/",
        "//api/tags",
        "/api//tags",
        "/api/./tags",
        "/v1/../api/tags",
        "/nope/",
    )
    for method in ("GET", "HEAD")
] + [post(path, b"{}") for path in ("/api/chat/", "/v1/messages/?beta=true", "//api/chat", "/api/pull/", "/api/show/")]
"""Paths that are spelled otherwise."""

ACCOUNT = [
    post(path, {"query": "x"}, alone=REGISTRY)
    for path in ("/api/me", "/api/signout", "/api/experimental/web_search", "/api/experimental/web_fetch")
] + [replace(get("/api/user/keys/eA%3D%3D", "DELETE"), alone=REGISTRY)]
"""What one host answers for all."""

BLOBS = [
    get(f"/api/blobs/{ABSENT}", "HEAD"),
    get(f"/api/blobs/{ABSENT.replace(':', '-')}", "HEAD"),
    get("/api/blobs/sha256:xyz", "HEAD"),
    get("/api/blobs/nonsense", "HEAD"),
    post("/api/blobs/nonsense", b"x"),
    post(f"/api/blobs/{ABSENT}", b"x"),
    post(f"/api/blobs/{ABSENT}", b""),
    replace(post(f"/api/blobs/{ABSENT}", b"x"), name="from a page", headers=PAGE),
]
"""Blobs that are not stored."""

STATELESS: dict[str, list[Ask]] = {
    "inference": INFERENCE,
    "more": MORE,
    "refused": REFUSED,
    "names": NAMES,
    "json": JSON,
    "odd": ODD,
    "methods": METHODS,
    "pages": PAGES,
    "moved": MOVED,
    "account": ACCOUNT,
    "blobs": BLOBS,
}
"""By kind. The same hosts can be asked all of a kind in turn."""
