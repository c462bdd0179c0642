"""A key that is good for one model, and every way to have Ollama obey another. What could be read in two ways reaches no host."""

import json

import pytest
import zstandard

from gateway.access.keys import digest, make
from gateway.keyconfig import KeyConfig
from tests.builders import TEXT
from tests.hostile.siege import MARK, PATHS, SECRET, Attack, Dialect, Siege, judged, named, post, undisturbed

KEY, OPERATOR = make(lambda size: b"\7" * size), make(lambda size: b"\1" * size)
SECTIONS = {
    "keys": (KeyConfig("some", digest(KEY), models=("smollm2:*",)), KeyConfig("root", digest(OPERATOR), "admin"))
}
AUTH = b"Authorization: Bearer " + KEY.encode()
GOOD, BAD, NOTE = TEXT.encode(), SECRET.encode(), MARK
ZSTD = zstandard.ZstdCompressor().compress

BODIES: dict[str, tuple[bytes, int, str]] = {
    "the other one": (b'{"model":"%b"}' % BAD, 403, "not_allowed"),
    "last of two": (b'{"model":"%b","model":"%b"}' % (GOOD, BAD), 403, "not_allowed"),
    "last of two, first escaped": (b'{"\\u006dodel":"%b","model":"%b"}' % (GOOD, BAD), 403, "not_allowed"),
    "last of two, last escaped": (b'{"model":"%b","\\u006d\\u006fdel":"%b"}' % (GOOD, BAD), 403, "not_allowed"),
    "capital after": (b'{"model":"%b","Model":"%b"}' % (GOOD, BAD), 400, "bad_request"),
    "capital before": (b'{"MODEL":"%b","model":"%b"}' % (BAD, GOOD), 400, "bad_request"),
    "capital alone": (b'{"mOdEl":"%b"}' % BAD, 403, "not_allowed"),
    "capital escaped": (b'{"model":"%b","\\u004dodel":"%b"}' % (GOOD, BAD), 400, "bad_request"),
    "escaped value": (b'{"model":"\\u0073ecret:1b"}', 403, "not_allowed"),
    "in capitals": (b'{"model":"%b"}' % BAD.upper(), 403, "not_allowed"),
    "with its library": (b'{"model":"library/%b"}' % BAD, 403, "not_allowed"),
    "with its registry": (b'{"model":"registry.ollama.ai/library/%b"}' % BAD, 403, "not_allowed"),
    "with blanks": (b'{"model":" %b\\n"}' % BAD, 403, "not_allowed"),
    "a trailing value": (b'{"model":"%b"}{"model":"%b"}' % (BAD, GOOD), 403, "not_allowed"),
    "a list of two": (b'{"model":["%b","%b"]}' % (GOOD, BAD), 400, "bad_request"),
    "an object": (b'{"model":{"%b":1}}' % GOOD, 400, "bad_request"),
    "no text": (b'{"model":1}', 400, "bad_request"),
    "half a character": (b'{"model":"%b","mod\\ud800el":1,"model":"%b"}' % (GOOD, BAD), 400, "bad_request"),
    "bad bytes before": (b'{"\xff":1,"model":"%b"}' % BAD, 403, "not_allowed"),
    "bad bytes within": (b'{"model":"%b","mod\xc0\xaeel":1,"model":"%b"}' % (GOOD, BAD), 403, "not_allowed"),
    "long s": (
        f'{{"model":"{TEXT}","messages":[{{}}],"mes\u017fages":[],"keep_alive":0}}'.encode(),
        400,
        "bad_request",
    ),
    "a Kelvin sign": (f'{{"model":"{TEXT}","keep_alive":1,"\u212aeep_alive":0}}'.encode(), 400, "bad_request"),
}
"""A body, and what the key's holder is told."""

UNLOADS = {
    "an unload": b'{"model":"%b","messages":[],"prompt":"","keep_alive":0}',
    "an unload in capitals": b'{"MODEL":"%b","MESSAGES":[],"PROMPT":"","KEEP_ALIVE":0}',
    "an unload by the last word": b'{"model":"%b","messages":[{}],"messages":[],"prompt":"x","prompt":"","keep_alive":9,"keep_alive":0}',
    "an unload in words": b'{"model":"%b","messages":[],"prompt":"","keep_alive":"0h0.0s"}',
    "an unload of nothing less": b'{"model":"%b","messages":[],"prompt":"","keep_alive":-0.0}',
    "an unload escaped": b'{"model":"%b","messages":[],"prompt":"","\\u006beep_alive":0e5}',
}
NATIVE: dict[str, Dialect] = {"/api/chat": "ollama", "/api/generate": "ollama"}


def asking(path: str, body: bytes, status: int, dialect: Dialect, code: str, *fields: bytes) -> Attack:
    """With the key."""
    return Attack((post(f"{path}?{NOTE.decode()}", body, AUTH, *fields),), (status,), False, error=dialect, code=code)


JSON = {
    f"{name} at {path}": asking(path, body, status, dialect, code)
    for name, (body, status, code) in BODIES.items()
    for path, dialect in PATHS.items()
}
PACKED = {
    f"{name} packed at {path}": asking(path, ZSTD(body), status, dialect, code, b"Content-Encoding: zstd")
    for name, (body, status, code) in list(BODIES.items())[:3]
    for path, dialect in PATHS.items()
    if path.startswith("/v1/")
}
FRAMES = {
    "two frames": asking(
        "/v1/chat/completions",
        ZSTD(b'{"model":"%b",' % GOOD) + ZSTD(b'"model":"%b"}' % BAD),
        403,
        "openai",
        "not_allowed",
        b"Content-Encoding: zstd",
    ),
    "two encodings": asking(
        "/v1/chat/completions",
        ZSTD(b'{"model":"%b"}' % BAD),
        400,
        "openai",
        "bad_request",
        b"Content-Encoding: zstd",
        b"Content-Encoding: identity",
    ),
}
LOADS = {
    f"{name} at {path}": asking(path, body % GOOD, 403, dialect, "not_allowed")
    for name, body in UNLOADS.items()
    for path, dialect in NATIVE.items()
}

# -- forms ----------------------------------------------------------------------------------------------------------------------

SPEECH = "/v1/audio/transcriptions"
FORM = b"Content-Type: multipart/form-data; boundary=B"


def part(disposition: bytes, value: bytes, more: bytes = b"") -> bytes:
    """One part of a form whose boundary is B."""
    return b"--B\r\nContent-Disposition: form-data%b\r\n%b\r\n%b\r\n" % (disposition, more, value)


OURS, THEIRS = part(b'; name="model"', GOOD), part(b'; name="model"', BAD)
END = b"--B--\r\n"
FORMS: dict[str, tuple[bytes, int, str]] = {
    "the other one": (THEIRS + END, 403, "not_allowed"),
    "two of them": (OURS + THEIRS + END, 400, "bad_request"),
    "two of them, turned": (THEIRS + OURS + END, 400, "bad_request"),
    "one after half a line's end": (OURS[:-2] + b"\r" + THEIRS + END, 400, "bad_request"),
    "in another case first": (part(b'; name="Model"', GOOD) + THEIRS + END, 403, "not_allowed"),
    "an escaped name": (part(b'; name="mod\\el"', BAD) + OURS + END, 400, "bad_request"),
    "an encoded name": (part(b"; name*=utf-8''model", BAD) + OURS + END, 400, "bad_request"),
    "a name in pieces": (part(b'; name*0="mo"; name*1="del"', BAD) + OURS + END, 400, "bad_request"),
    "two names": (part(b'; name="x"; name="model"', BAD) + OURS + END, 400, "bad_request"),
    "a name in a file's name": (part(b'; filename="\\"; name=\\"model"', GOOD) + THEIRS + END, 403, "not_allowed"),
    "a name in another line": (
        b'--B\r\nX: ;name="model"\r\nContent-Disposition: form-data; name="x"\r\n\r\n%b\r\n%b%b' % (GOOD, THEIRS, END),
        403,
        "not_allowed",
    ),
    "two dispositions": (
        part(b'; name="x"', BAD, b'Content-Disposition: form-data; name="model"\r\n') + OURS + END,
        400,
        "bad_request",
    ),
    "a folded line": (part(b';\r\n name="model"', BAD) + OURS + END, 400, "bad_request"),
    "no form's data": (b'--B\r\nContent-Disposition: file; name="model"\r\n\r\nx\r\n' + OURS + END, 400, "bad_request"),
    "a file of that name": (part(b'; name="model"; filename="x"', GOOD) + THEIRS + END, 400, "bad_request"),
    "a file named otherwise": (
        part(b"; name=\"model\"; filename*=utf-8''x", GOOD) + THEIRS + END,
        400,
        "bad_request",
    ),
    "quoted printable": (
        part(b'; name="model"', b"=73ecret:1b", b"Content-Transfer-Encoding: quoted-printable\r\n") + END,
        400,
        "bad_request",
    ),
    "bare line feeds": ((THEIRS + OURS + END).replace(b"\r\n", b"\n"), 400, "bad_request"),
    "one bare line feed": (OURS[:-2] + b"\n" + THEIRS + END, 400, "bad_request"),
    "a bare line feed in a head": (part(b'; name="model"\nX: y', BAD) + OURS + END, 400, "bad_request"),
    "something before": (b"x\r\n" + THEIRS + OURS + END, 400, "bad_request"),
    "a blank behind the boundary": (OURS.replace(b"--B", b"--B ") + THEIRS + END, 400, "bad_request"),
    "a dash behind the boundary": (OURS + b"--B-\r\n" + THEIRS[5:] + END, 400, "bad_request"),
    "a boundary in the value": (part(b'; name="model"', GOOD + b"\n\r--B\r\n\r\n" + BAD) + END, 400, "bad_request"),
    "something behind the end": (OURS + b"--B--B\r\n" + THEIRS[5:] + END, 400, "bad_request"),
    "no end": (OURS + THEIRS[:-2] + b"x", 400, "bad_request"),
    "no head": (b"--B\r\nno head at all\r\n" + THEIRS + END, 400, "bad_request"),
    "a NUL in a name": (part(b'; name="model\0"', BAD) + OURS + END, 400, "bad_request"),
}
TYPES: dict[str, tuple[bytes, int, str]] = {
    "two boundaries": (b"Content-Type: multipart/form-data; boundary=A; boundary=B", 400, "bad_request"),
    "a boundary in a word": (b'Content-Type: multipart/form-data; x="; boundary=A"; boundary=B', 403, "not_allowed"),
    "an encoded boundary": (b"Content-Type: multipart/form-data; boundary*=utf-8''B", 400, "bad_request"),
    "no boundary": (b"Content-Type: multipart/form-data", 400, "bad_request"),
}
QUERIES = {
    "in the query": "model=secret:1b",
    "in the query, escaped": "%6dodel=secret:1b",
    "in the query, later": "x=y&model",
}
SPOKEN = named(
    {
        f"form: {name}": asking(SPEECH, body, status, "openai", code, FORM)
        for name, (body, status, code) in FORMS.items()
    },
    {
        f"form: {name}": asking(SPEECH, THEIRS + END, status, "openai", code, kind)
        for name, (kind, status, code) in TYPES.items()
    },
    {
        f"form: {name}": asking(f"{SPEECH}?{query}&", OURS + END, 400, "openai", "bad_request", FORM)
        for name, query in QUERIES.items()
    },
)
KEYS: dict[str, tuple[int, tuple[bytes, ...]]] = {
    "none": (401, ()),
    "another": (401, (AUTH[:-1] + b"x",)),
    "half of it": (401, (AUTH[:-20],)),
    "two": (400, (AUTH[:-1] + b"x", AUTH)),
    "in Chinese": (401, ("Authorization: Bearer crl_\u6f22".encode(),)),
    "in bad bytes": (401, (b"Authorization: Bearer crl_\xff\xfe",)),
    "with a NUL escaped": (401, (AUTH + b"%00",)),
    "of another scheme": (401, (AUTH.replace(b"Bearer", b"Digest"),)),
    "in Basic that is none": (401, (b"Authorization: Basic \xff\xfe\xfd",)),
    "in a cookie": (401, (b"Cookie: Authorization=" + KEY.encode(),)),
    "forwarded": (401, (b"X-Forwarded-Authorization: Bearer " + KEY.encode(),)),
}
CALLERS = {
    f"key: {name}": Attack(
        (post(f"/api/chat?{NOTE.decode()}", json.dumps({"model": TEXT, "messages": []}).encode(), *fields),),
        (status,),
        False,
        error="ollama",
        code={400: "bad_request", 401: "unauthorized"}[status],
    )
    for name, (status, fields) in KEYS.items()
}
ATTACKS = named(JSON, PACKED, FRAMES, LOADS, SPOKEN, CALLERS)


@pytest.mark.parametrize("name", ATTACKS)
def test_rights(siege: Siege, name: str) -> None:
    """Refused, in words of the caller's dialect, and no host hears of it."""
    judged(ATTACKS[name], siege.struck[name])


def test_the_others(siege: Siege) -> None:
    """Nobody else notices."""
    undisturbed(siege)
