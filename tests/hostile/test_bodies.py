"""What stands in a body: deep, huge, packed, misspelt, and values that somebody might write into a head, a log line or a URL."""

import gzip
import json

import pytest
import zstandard

from tests.builders import TEXT
from tests.hostile.siege import MARK, PATHS, Attack, Dialect, Siege, judged, named, post, undisturbed

ZSTD = zstandard.ZstdCompressor().compress
GOOD = TEXT.encode()
MODEL = b'{"model":"%b"' % GOOD


def asking(path: str, body: bytes, status: int, dialect: Dialect, code: str, *fields: bytes, seen: int = 0) -> Attack:
    """One request; its connection serves the next."""
    return Attack((post(f"{path}?{MARK.decode()}", body, *fields),), (status,), False, seen, dialect, code)


BROKEN = {
    "nothing": b"",
    "blanks": b" \r\n\t ",
    "half an object": b'{"model":',
    "half a text": b'{"model":"smol',
    "half an escape": b'{"model":"\\u00',
    "no escape": b'{"model":"\\x"}',
    "a bare line feed in a text": b'{"model":"a\nb"}',
    "a NUL in a text": b'{"model":"a\0b"}',
    "a NUL before": b"\0" + MODEL + b"}",
    "a byte order mark": b"\xef\xbb\xbf" + MODEL + b"}",
    "UTF-16": (MODEL + b"}").decode().encode("utf-16"),
    "a list": b"[" + MODEL + b"}]",
    "a text": b'"model"',
    "a number": b"1e999999",
    "single quotes": b"{'model':'x'}",
    "a comment": b"/*x*/" + MODEL + b"}",
    "a comma too many": MODEL + b",}",
    "no comma": MODEL + b'"a":1}',
    "no colon": b'{"model" "x"}',
    "a key that is none": b"{model:1}",
    "NaN": MODEL + b',"x":NaN}',
    "deep lists": b"[" * 100_000,
    "deep objects": b'{"a":' * 100_000,
    "a deep value": MODEL + b',"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "a model in depth": b'{"model":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "a name without end": b'{"model":"' + b"x" * 1_000_000 + b'"}',
    "a model of a thousand digits": b'{"model":' + b"9" * 1000 + b"}",
    "a model that is true": b'{"model":true}',
    "YAML": b"model: x\n",
    "XML": b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>',
    "a form": b"model=smollm2:135m&prompt=x",
    "what was packed, untold": ZSTD(MODEL + b"}"),
}
JSON = {
    f"{name} at {path}": asking(path, body, 400, dialect, "bad_request")
    for name, body in BROKEN.items()
    for path, dialect in PATHS.items()
}
SHOWN = {
    f"{name} at {path}": asking(path, body, 400, "ollama", "bad_request")
    for name, body in BROKEN.items()
    for path in ("/api/show",)
}


def frame(*pieces: bytes) -> bytes:
    """Frames of zstd."""
    compressor = zstandard.ZstdCompressor(level=3)
    return b"".join(map(compressor.compress, pieces))


BLANKS = b" " * 1_000_000
PACKED = {
    "a bomb": frame(MODEL + b',"x":"' + b"x" * 100_000_000 + b'"}'),
    "a bomb of blanks": frame(*(BLANKS,) * 100),
    "a bomb of frames": frame(b"") * 200_000,
    "a bomb behind": frame(MODEL + b"}", *(BLANKS,) * 100),
    "no zstd": b"no zstd",
    "half of it": frame(MODEL + b"}")[:-4],
    "gzip": gzip.compress(MODEL + b"}"),
    "nothing": b"",
    "an empty frame": frame(b""),
    "something packed twice": frame(frame(MODEL + b"}")),
}
UNPACKED = {
    f"zstd: {name} at {path}": asking(path, body, 400, dialect, "bad_request", b"Content-Encoding: zstd")
    for name, body in PACKED.items()
    for path, dialect in PATHS.items()
    if path.startswith("/v1/")
}
SKIPPED = {
    "zstd: frames to skip": asking(
        "/v1/messages",
        b"P*M\x18\xff\xff\xff\x7f" + b"x" * 100,
        400,
        "anthropic",
        "bad_request",
        b"Content-Encoding: zstd",
    ),
    "zstd: a window of gigabytes": asking(
        "/v1/messages",
        b"\x28\xb5\x2f\xfd\x00\xf8" + b"\0" * 100,
        400,
        "anthropic",
        "bad_request",
        b"Content-Encoding: zstd",
    ),
}

# -- values ---------------------------------------------------------------------------------------------------------------------

EVIL = [
    "a\r\nX-Evil: b",
    "a\nb",
    "a\rb",
    "a\0b",
    "a\u2028b",
    "a\x1b[2Jb",
    "../../etc/passwd",
    "http://169.254.169.254/",
    "file:///etc/passwd",
]
EVIL += [
    "$(id)",
    "'; DROP TABLE requests; --",
    "{{7*7}}",
    "<script>alert(1)</script>",
    "\ud800",
    "\u202eevil",
    "a" * 5000,
    "%0d%0aX: y",
]
NAMES = {
    f"a model {name[:20]!r} at {path}": asking(
        path,
        json.dumps({"model": name}).encode(),
        400 if len(name) > 4096 or name == "\ud800" else 404,
        dialect,
        "bad_request" if len(name) > 4096 or name == "\ud800" else "model_not_found",
    )
    for name in EVIL
    for path, dialect in PATHS.items()
}
HEADERS = {
    f"{header} {value[:20]!r}": asking(
        "/api/chat", MODEL + b"}", status, "ollama", code, f"{header}: ".encode() + value, seen=seen
    )
    for header, value, status, code, seen in (
        ("X-Corral-Host", b"http://169.254.169.254/", 400, "bad_request", 0),
        ("X-Corral-Host", b"169.254.169.254:80", 400, "bad_request", 0),
        ("X-Corral-Host", b"../gpu1", 400, "bad_request", 0),
        ("X-Corral-Host", b"gpu1,gpu2", 400, "bad_request", 0),
        ("X-Corral-Host", b"\xff\xfe", 400, "bad_request", 0),
        ("X-Corral-Priority", b"root", 400, "bad_request", 0),
        ("X-Corral-Priority", b"-1", 400, "bad_request", 0),
        ("X-Corral-Deadline", b"NaN", 400, "bad_request", 0),
        ("X-Corral-Deadline", b"-1", 400, "bad_request", 0),
        ("X-Corral-Deadline", b"1e999", 400, "bad_request", 0),
        ("X-Corral-Deadline", b"inf", 400, "bad_request", 0),
        ("X-Request-Id", b"a\xff\xfeb", 200, "", 1),
        ("X-Request-Id", b"a" * 8000, 200, "", 1),
        ("X-Request-Id", b'"><script>', 200, "", 1),
        ("traceparent", b"00-" + b"f" * 5000, 200, "", 1),
        ("traceparent", b"ff-00000000000000000000000000000000-0000000000000000-00", 200, "", 1),
        ("tracestate", b"a=" + b"b" * 7000, 200, "", 1),
        ("Connection", b"Host, Content-Length, X-Corral-Generation, Authorization", 200, "", 1),
        ("X-Forwarded-Host", b"evil.example", 200, "", 1),
        ("X-Forwarded-Prefix", b"//evil.example", 200, "", 1),
        ("Content-Type", b"text/html\xff", 200, "", 1),
        ("Content-Encoding", b"gzip", 200, "", 1),
        ("Content-Encoding", b"zstd", 200, "", 1),
    )
}
LED = {
    f"SSRF: {method.decode()} {path.decode()}": Attack(
        (b"%b %b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n" % (method, path),), (status,), False, error=dialect, code=code
    )
    for method, path, status, dialect, code in (
        (b"GET", b"/api/models/server/models?server_url=http://169.254.169.254/", 404, "ollama", "not_found"),
        (b"GET", b"/api/models/server/models?server_url=file:///etc/passwd", 404, "ollama", "not_found"),
        (b"GET", b"/api/models/server/models?server_url=http://evil@localhost", 404, "ollama", "not_found"),
        (b"GET", b"/api/models/server/models?server_url=%0d%0aX", 404, "ollama", "not_found"),
        (b"POST", b"/api/hosts/http:%2f%2fevil.example/drain", 404, "ollama", "not_found"),
        (b"POST", b"/api/hosts/..%2fgpu1/drain", 404, "ollama", "not_found"),
        (b"HEAD", b"/api/blobs/sha256:..%2f..", 400, "none", "bad_request"),
        (b"GET", b"/v1/models/..%2f..%2fetc%2fpasswd", 400, "openai", "bad_request"),
        (b"GET", b"/v1/models/%00", 400, "openai", "bad_request"),
        (b"GET", b"/api/generations/..%2f..%2fx", 404, "ollama", "not_found"),
        (b"DELETE", b"/api/generations/%0d%0a", 404, "ollama", "not_found"),
        (b"GET", b"/api/jobs/%ff", 404, "ollama", "not_found"),
    )
}  # fmt: skip
ATTACKS = named(JSON, SHOWN, UNPACKED, SKIPPED, NAMES, HEADERS, LED)


@pytest.mark.parametrize("name", ATTACKS)
def test_bodies(siege: Siege, name: str) -> None:
    """Refused in the caller's dialect; or passed on as it is, to the one host that may have it, in a head that holds."""
    judged(ATTACKS[name], siege.struck[name])


def test_the_others(siege: Siege) -> None:
    """Nobody else notices, and what hosts hear has no header that was smuggled in."""
    undisturbed(siege)
    for asked in siege.asked:
        assert b"X-Evil" not in asked.head
        assert b"evil.example" not in asked.head or b"X-Forwarded-Host" in asked.head
