"""What the conformance suite asks that changes hosts, or needs such as break: each ask gets hosts of its own."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from tests.builders import PATHS, STREAMING, TEXT, call
from tests.contract.asks import ABSENT, NOBODY, REGISTRY, WORDS, Ask, get, of, post

OURS = "corral-conformance"
"""The model that is made and deleted."""
NEW = "qwen2.5:0.5b"
BLOB = b"a blob that is in no model " * 40_000
DIGEST = f"sha256:{hashlib.sha256(BLOB).hexdigest()}"

BREAKS = "it needs hosts that break on purpose"
STAYS = "a blob would stay on the hosts"

LISTS = (get("/api/tags"), get("/v1/models"))
COPY = post("/api/copy", {"source": TEXT, "destination": OURS})
DROP = post("/api/delete", {"model": OURS}, method="DELETE")
UPLOAD = Ask("upload", "POST", f"/api/blobs/{DIGEST}", BLOB)
CHUNKED = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (BLOB[:500_000], BLOB[500_000:], b""))


def _forms(path: str, body: Mapping[str, Any], **more: Any) -> list[Ask]:
    """A managing request in each form."""
    forms: Iterable[Mapping[str, Any]] = ({}, {"stream": True}, {"stream": False}, {"stream": None})
    return [post(path, {**body, **form}, **more) for form in forms]


MANAGING = [
    *_forms("/api/pull", {"model": NEW}, then=LISTS, alone=REGISTRY),
    *_forms("/api/pull", {"name": NEW.upper()}, then=LISTS, alone=REGISTRY),
    *_forms("/api/pull", {"model": TEXT}, then=LISTS, alone=REGISTRY),
    *_forms("/api/pull", {"model": NOBODY}, then=LISTS, alone=REGISTRY),
    *_forms("/api/pull", {"model": "a b"}, then=LISTS),
    *_forms("/api/pull", {"model": ""}, then=LISTS),
    *_forms("/api/push", {"model": TEXT}, then=LISTS, alone=REGISTRY),
    *_forms("/api/push", {"model": NOBODY}, then=LISTS, alone=REGISTRY),
    *_forms("/api/push", {"model": "a b"}, then=LISTS),
    *_forms("/api/create", {"model": OURS, "from": TEXT, "system": "Be terse."}, then=LISTS, after=(DROP,)),
    *_forms("/api/create", {"name": OURS, "from": TEXT}, then=LISTS, after=(DROP,)),
    *_forms(
        "/api/create",
        {"model": OURS, "files": {"a.gguf": DIGEST}},
        before=(UPLOAD,),
        then=LISTS,
        alone="it needs a real model",
    ),
    *_forms("/api/create", {"model": OURS, "files": {"a.gguf": ABSENT}}, then=LISTS, alone=WORDS),
    *_forms("/api/create", {"model": OURS, "from": NOBODY}, then=LISTS, alone=REGISTRY),
    *_forms("/api/create", {"model": OURS}, then=LISTS),
    *_forms("/api/create", {"model": "a b", "from": TEXT}, then=LISTS),
    post("/api/copy", {"source": TEXT, "destination": OURS}, then=LISTS, after=(DROP,)),
    post(
        "/api/copy",
        {"Source": TEXT.upper(), "Destination": f"library/{OURS}:a"},
        then=LISTS,
        after=(post("/api/delete", {"model": f"{OURS}:a"}, method="DELETE"),),
    ),
    post("/api/copy", {"source": NOBODY, "destination": OURS}, then=LISTS),
    post("/api/copy", {"source": TEXT, "destination": "a b"}, then=LISTS),
    post("/api/copy", {"source": "a b", "destination": OURS}, then=LISTS),
    post("/api/copy", {"source": TEXT}, then=LISTS),
    post("/api/copy", {"source": 1, "destination": OURS}, then=LISTS, alone=WORDS),
    post("/api/delete", {"model": OURS}, method="DELETE", before=(COPY,), then=LISTS),
    post("/api/delete", {"name": OURS.upper()}, method="DELETE", before=(COPY,), then=LISTS),
    post("/api/delete", {"model": f"{OURS}:latest", "stream": False}, method="DELETE", before=(COPY,), then=LISTS),
    post("/api/delete", {"model": NOBODY}, method="DELETE", then=LISTS),
    post("/api/delete", {"model": "a b"}, method="DELETE", then=LISTS),
    replace(UPLOAD, name="a blob", then=(get(f"/api/blobs/{DIGEST}", "HEAD"),), alone=STAYS),
    replace(UPLOAD, name="a blob that is there", before=(UPLOAD,), alone=STAYS),
    replace(UPLOAD, name="a blob by another spelling", path=UPLOAD.path.replace(":", "-"), alone=STAYS),
    replace(UPLOAD, name="a blob in chunks", body=CHUNKED, headers={"Transfer-Encoding": "chunked"}, alone=STAYS),
]
"""Every call that changes models, with what the lists say afterwards."""

BROKEN = (
    [
        of(
            call(path, stream=stream, tokens=20),
            f"stream={stream} error_mid_stream",
            fault="error_mid_stream",
            alone=BREAKS,
        )
        for path in STREAMING
        for stream in (True, False)
    ]
    + [
        of(call(path, tokens=20, **({"stream": True} if path in STREAMING else {})), fault, fault=fault, alone=BREAKS)
        for path in PATHS
        for fault in ("busy", "load_error")
    ]
    + [
        post(
            "/api/create",
            {"model": OURS, "from": TEXT},
            fault="create_error",
            name="/api/create create_error",
            alone=BREAKS,
        ),
        post(
            "/api/copy",
            {"source": TEXT, "destination": OURS},
            fault="copy_error",
            name="/api/copy copy_error",
            alone=BREAKS,
        ),
        post(
            "/api/delete",
            {"model": TEXT},
            method="DELETE",
            fault="delete_error",
            name="/api/delete delete_error",
            alone=BREAKS,
        ),
    ]
)
"""Hosts that fail, all alike."""

CHANGING = MANAGING + BROKEN
"""Asks that need hosts of their own."""
