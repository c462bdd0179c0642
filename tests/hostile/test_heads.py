"""What stands before a body: request lines, targets, names and sizes of headers, Host and Origin."""

import pytest

from tests.hostile.siege import PATHS, Attack, Dialect, Siege, body_for, judged, named, post, undisturbed

BODY = body_for()
LENGTH = b"Content-Length: %d" % len(BODY)


def begun(line: bytes, *fields: bytes, host: bytes = b"Host: localhost\r\n") -> bytes:
    """A request with this first line."""
    return line + b"\r\n" + host + b"".join(field + b"\r\n" for field in (LENGTH, *fields)) + b"\r\n" + BODY


def refused(said: bytes, code: str = "not_http", status: int = 400, dialect: Dialect = "ollama") -> Attack:
    """An attack that is told so, and whose connection ends."""
    return Attack((said,), (status,), error=dialect, code=code)


# -- the first line -------------------------------------------------------------------------------------------------------------

NONSENSE = {
    f"line {line!r}": refused(begun(line))
    for line in (
        b"POST\t/api/generate HTTP/1.1",
        b"POST\v/api/generate HTTP/1.1",
        b" POST /api/generate HTTP/1.1",
        b"POST /api/generate\tHTTP/1.1",
        b"POST /api/generate HTTP/1.1 ",
        b"POST /api/generate HTTP/1.1 x",
        b"POST /api/generate HTTP/1.2",
        b"POST /api/generate HTTP/1.10",
        b"POST /api/generate HTTP/01.1",
        b"POST /api/generate HTTP/1,1",
        b"POST /api/generate HTTP/3",
        b"POST /api/generate HTTP/\xff.1",
        b"POST /api/generate http/1.1",
        b"POST /api/generate HTTPS/1.1",
        b"POST /api/generate ICE/1.0",
        b"post /api/generate HTTP/1.1",
        b"Post /api/generate HTTP/1.1",
        b"PO ST /api/generate HTTP/1.1",
        b"POST\0 /api/generate HTTP/1.1",
        b"POST /api/gen\0erate HTTP/1.1",
        b"POST /api/gen\rerate HTTP/1.1",
        b"POST /api/gen\nerate HTTP/1.1",
        b"POST /api/gen\xfferate HTTP/1.1",
        b"POST /api/generate?\x01 HTTP/1.1",
        b"POST api/generate HTTP/1.1",
        b"POST ../api/generate HTTP/1.1",
        b"POST \\api\\generate HTTP/1.1",
        b"POST ?x HTTP/1.1",
        b"POST * HTTP/1.1",
        b"POST localhost HTTP/1.1",
        b"POST :11434/api/generate HTTP/1.1",
        b"POST http:///api/generate HTTP/1.1",
        b"POST http:/api/generate HTTP/1.1",
        b"FOO /api/generate HTTP/1.1",
        b"PRI * HTTP/2.0",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"SSH-2.0-OpenSSH_9.9",
        b"EHLO localhost",
        b"*1\r\n$4\r\nPING",
        b"\0\0\0\0\0\0\0\0",
        b"{}",
    )
}
OTHERS = {
    f"line {line!r}": refused(begun(line))
    for line in (
        b"POST http://evil.example/api/generate HTTP/1.1",
        b"POST https://evil.example/api/generate HTTP/1.1",
        b"POST http://localhost:80/api/generate HTTP/1.1",
        b"POST http://me@localhost/api/generate HTTP/1.1",
        b"POST http://localhost@evil.example/api/generate HTTP/1.1",
        b"POST ftp://localhost/api/generate HTTP/1.1",
        b"POST file://localhost/api/generate HTTP/1.1",
        b"POST http://169.254.169.254/api/generate HTTP/1.1",
        b"CONNECT evil.example:443 HTTP/1.1",
        b"CONNECT localhost:11434 HTTP/1.1",
        b"POST /api/generate#x HTTP/1.1",
        b"POST /" + b"a/" * 3000 + b" HTTP/1.1",
        b"POST /api/" + b"../api/" * 100 + b"generate HTTP/1.1",
        b"POST /api/generate?x#y HTTP/1.1",
        b"POST /api/generate HTTP/2.0",
        b"POST /api/generate HTTP/0.9",
        b"POST /api/generate",
    )
}
METHODS = {
    f"method {method.decode()}": Attack((begun(b"%b /api/generate HTTP/1.1" % method),), (405,), False, error="plain")
    for method in (b"PUT", b"PATCH", b"TRACE", b"PROPFIND", b"M-SEARCH", b"PURGE", b"LINK", b"QUERY", b"DELETE")
}
PLACES = {
    f"path {path!r}": Attack((begun(b"POST %b HTTP/1.1" % path),), (status,), False, error="plain")
    for path, status in {
        b"/api/generate%00": 404,
        b"/api/generate%0d%0aX:y": 404,
        b"/api/generate;x": 404,
        b"/api/generate/x": 404,
        b"/api/generat%C3%A9": 404,
        b"/api\\generate": 404,
        b"/api/%zz": 404,
        b"/api/%ff%fe": 404,
        b"/%2e%2e/api/generate": 404,
        b"/api/%2e%2e/api/generate": 404,
        b"/..%2fapi/generate": 404,
        b"/API/GENERATE": 404,
        b"/k/crl_x/api/generate": 404,
        b"/" + b"a/" * 98 + b"a?" + b"/" * 3000: 404,
        b"/etc/passwd": 404,
        b"/.git/config": 404,
    }.items()
}
MOVED = {
    f"path {path!r}": Attack((begun(b"POST %b HTTP/1.1" % path),), (307,), False)
    for path in (
        b"//evil.example/api/generate",
        b"/\\/../evil.example/",
        b"/api/./generate",
        b"/api/x/../generate",
        b"/../../api/generate",
        b"///api///generate",
        b"/api/generate/",
    )
}
LONG = {
    f"{name} at {path}": refused(said, "head_too_large", 431)
    for path in PATHS
    for name, said in (
        ("a long query", post(path + "?" + "a" * 8200, BODY)),
        ("a long path", post("/" + "a" * 9000, BODY, b"X: " + path.encode())),
        ("a long header", post(path, BODY, b"X: " + b"a" * 8200)),
        ("a header without end", post(path, BODY, b"X: " + b"a" * 1_000_000)),
        ("a long name", post(path, BODY, b"X" * 8200 + b": a")),
        ("a hundred long headers", post(path, BODY, *(b"X%d: " % at + b"a" * 8000 for at in range(100)))),
        ("nine long headers", post(path, BODY, *(b"X%d: " % at + b"a" * 8100 for at in range(9)))),
    )
}
MANY = {
    f"{count} headers": refused(post("/api/generate", BODY, *(b"X%d: a" % at for at in range(count))))
    for count in (127, 1000, 100_000)
}
SLOWLY_LONG = {
    "a head in pieces": Attack(
        (
            b"POST /api/generate HTTP/1.1\r\nHost: localhost\r\n",
            *(b"X%d: %b\r\n" % (at, b"a" * 8000) for at in range(9)),
        ),
        (431,),
        error="ollama",
        code="head_too_large",
    ),
    "nine long headers in pieces": Attack(
        (
            b"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\n",
            b"".join(b"X%d: %b\r\n" % (at, b"a" * 8000) for at in range(7)),
            b"".join(b"Y%d: %b\r\n" % (at, b"a" * 8000) for at in range(2)) + b"\r\n",
        ),
        (431,),
        error="ollama",
        code="head_too_large",
    ),
}

# -- headers --------------------------------------------------------------------------------------------------------------------

FIELDS = {
    f"field {field[:40]!r}": refused(post("/api/generate", BODY, field))
    for field in (
        b"X: a\nY: b",
        b"X: a\rY: b",
        b"X: a\r\n b",
        b"X: a\r\n\tb",
        b"X: a\0b",
        b"X: a\x01b",
        b"X: a\x7fb",
        b"X\0: a",
        b"X Y: a",
        b"X\t: a",
        b"X(: a",
        b"X\xc3\xa4: a",
        b"X@: a",
        b"Xyz",
        b": a",
        b" X: a",
        b"\tX: a",
        b'"X": a',
        b"Host: evil.example",
        b"Host: localhost",
        b"host: ",
        b"Content-Type: a\r\nContent-Type: b",
        b"Sec-WebSocket-Key1: x",
    )
}
HOSTS: dict[bytes, int] = {
    **dict.fromkeys(
        (
            *(
                b"evil.example",
                b"evil.example:11434",
                b"localhost.evil.example",
                b"127.0.0.1.evil.example",
                b"evil@localhost",
            ),
            *(b"localhost@evil", b"localhost/evil", b"localhost#", b"localhost?", b"localhost evil", b"localhost,evil"),
            *(
                b"http://localhost",
                b"localhost:80:80",
                b"localhost.",
                b"xlocalhost",
                b"local",
                b"8.8.8.8",
                b"[2001:db8::1]",
            ),
            *(
                b"0",
                b"127.1",
                b"2130706433",
                b"0x7f.1",
                b"0177.0.0.1",
                b"[::1",
                b"[::1]x",
                b"::1]",
                b"[::ffff:8.8.8.8]",
            ),
            *(
                b"localhost\\evil",
                b"localhost%00",
                b"%6cocalhost",
                "\uff4cocalhost".encode(),
                b"\xff\xfe",
                b"localhost;x",
            ),
        ),
        403,
    )
}
REBOUND = {
    f"Host {host!r} at {path}": Attack((post(path, BODY, host=host),), (403,), False, code="forbidden")
    for host in HOSTS
    for path in ("/api/chat", "/api/show")
}
HOSTLESS = {
    "no Host": refused(begun(b"POST /api/generate HTTP/1.1", host=b"")),
    "two Hosts": refused(begun(b"POST /api/generate HTTP/1.1", host=b"Host: localhost\r\nHost: evil.example\r\n")),
    "a Host with a NUL": refused(begun(b"POST /api/generate HTTP/1.1", host=b"Host: localhost\0\r\n")),
    "a folded Host": refused(begun(b"POST /api/generate HTTP/1.1", host=b"Host:\r\n localhost\r\n")),
}
ORIGINS = {
    f"Origin {origin!r} at {path}": Attack((post(path, BODY, b"Origin: " + origin),), (403,), False, code="forbidden")
    for origin in (
        *(
            b"null",
            b"https://evil.example",
            b"http://localhost.evil.example",
            b"http://evil.example:11434",
            b"http://localhost@evil",
        ),
        *(
            b"http://127.0.0.1.evil.example",
            b"HTTP://LOCALHOST.evil",
            b"file",
            b"//localhost",
            b"localhost",
            b"http://localhost, http://evil",
        ),
        *(
            b"http:localhost",
            b"http://[::1]",
            b"chrome-extension://x",
            b"data:text/html,x",
            b"app:/\\evil",
            b"http://loc\xc3\xa4lhost",
        ),
    )
    for path in ("/api/chat", "/v1/messages")
}
CLIENTS = {
    "a web socket": Attack(
        (post("/api/generate", BODY, b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Key: x"),),
        (200,),
        False,
        1,
    ),
    "HTTP/2 in the clear": Attack(
        (post("/api/generate", BODY, b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: x"),),
        (200,),
        False,
        1,
    ),
    "another expectation": Attack((post("/api/generate", BODY, b"Expect: 200-ok"),), (417,), False, error="plain"),
    "an expectation of what is too large": Attack(
        (post("/api/generate", b"", b"Content-Length: 999999999", b"Expect: 100-continue", sized=False),),
        (100, 413),
        error="ollama",
        code="too_large",
    ),
    "two requests at once": Attack((post("/api/generate", BODY) * 2,), (200, 200), False, 2),
    "forty requests at once": Attack((post("/api/generate", BODY) * 40,), (200,) * 40, False, 40),
    "a request behind nonsense": Attack(
        (b"xyz\r\n\r\n" + post("/api/generate", BODY),), (400,), error="ollama", code="not_http"
    ),
    "nonsense behind a request": Attack(
        (post("/api/generate", BODY) + b"xyz\r\n\r\n",), (400,), error="ollama", code="not_http"
    ),
    "nonsense later": Attack(
        (
            post("/api/generate", BODY),
            b"xyz\r\n\r\n",
        ),
        (200, 400),
        seen=1,
        error="ollama",
        code="not_http",
    ),
}

ATTACKS = named(
    NONSENSE, OTHERS, METHODS, PLACES, MOVED, LONG, MANY, SLOWLY_LONG, FIELDS, REBOUND, HOSTLESS, ORIGINS, CLIENTS
)  # fmt: skip


@pytest.mark.parametrize("name", ATTACKS)
def test_heads(siege: Siege, name: str) -> None:
    """Refused in the caller's dialect as far as there is a path, and no host hears of it."""
    judged(ATTACKS[name], siege.struck[name])


def test_where_paths_lead(siege: Siege) -> None:
    """A redirect stays here, whatever it is asked for."""
    for name in MOVED:
        answer = siege.struck[name].last
        assert answer is not None
        where = answer.get("Location") or ""
        assert where.startswith("/")
        assert not where.startswith(("//", "/\\"))


def test_the_others(siege: Siege) -> None:
    """Nobody else notices."""
    undisturbed(siege)
