"""Where a body ends: lengths, chunks and both, spelled in every way that some proxy reads otherwise. What is not refused leaves both sides
in agreement about where the next request begins."""

import pytest

from tests.hostile.siege import PATHS, Attack, Dialect, Siege, body_for, chunked, judged, named, post, undisturbed

BODY = body_for()
SIZE = len(BODY)
SMUGGLED = b"POST /api/generate?case@@@@ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
PARSED: Dialect = "ollama"  # the parser refuses before there is a path
WHOLE = chunked(BODY, b"")

# -- lengths --------------------------------------------------------------------------------------------------------------------

LENGTHS = [
    *(b"+%d", b"-%d", b"%d.0", b'"%d"', b"%d;", b"%d,%d", b"%d, %d", b"%d %d", b"0x%x", b"%de0", b"%d\0", b"%d\v"),
    *(b"", b"ten", b"1_0", b"\xd9\xa3\xd9\xa7", b"99999999999999999999", b"-1", b"NaN", b"chunked"),
]


def spelled(form: bytes) -> bytes:
    """A length, as this form has it."""
    return form % ((SIZE,) * form.count(b"%")) if b"%" in form else form


def lengths(path: str, dialect: Dialect) -> dict[str, Attack]:
    """Each of them at this path."""
    found = {}
    for form in LENGTHS:
        head = post(path, BODY, b"Content-Length: " + spelled(form), sized=False)
        found[f"length {form!r} at {path}"] = Attack((head,), (400,), error=dialect, code="not_http")
    return found


TOLERATED = {
    f"length {form!r}": Attack(
        (post("/api/generate", BODY, b"Content-Length:" + spelled(form), sized=False),), (200,), False, 1
    )
    for form in (b"%d", b"   %d", b"\t%d", b" %d \t ", b" 0000%d")
}
HUGE = {
    "all that 64 bits hold": (b"18446744073709551615", 400, "not_http"),
    "all that 63 bits hold": (b"9223372036854775807", 400, "not_http"),
    "a hundred zeros": (b"0" * 100 + b"%d" % SIZE, 400, "not_http"),
    "a terabyte": (b"1099511627776", 413, "too_large"),
    "one over the limit": (b"%d" % (64 * 1024 * 1024 + 1), 413, "too_large"),
}
TOO_LONG = {
    f"length {name} at {path}": Attack(
        (post(path, BODY, b"Content-Length: " + length, sized=False),), (status,), error=dialect, code=code
    )
    for name, (length, status, code) in HUGE.items()
    for path, dialect in PATHS.items()
}
MORE_THAN_ONE = {
    name: Attack((post("/api/generate", BODY, *fields, sized=False),), (400,), error=PARSED, code="not_http")
    for name, fields in {
        "two lengths alike": (b"Content-Length: %d" % SIZE, b"Content-Length: %d" % SIZE),
        "two lengths": (b"Content-Length: %d" % SIZE, b"Content-Length: 0"),
        "two lengths, turned": (b"Content-Length: 0", b"Content-Length: %d" % SIZE),
        "two lengths in two cases": (b"content-length: %d" % SIZE, b"CONTENT-LENGTH: %d" % SIZE),
        "a length before the colon's blank": (b"Content-Length : %d" % SIZE,),
        "a length before the colon's tab": (b"Content-Length\t: %d" % SIZE,),
        "a length after a blank": (b" Content-Length: %d" % SIZE,),
        "a folded length": (b"Content-Length:\r\n %d" % SIZE,),
        "a length with an underscore and none": (b"Content_Length: %d" % SIZE,),
    }.items()
    if "underscore" not in name
}
NONE_AT_ALL = {
    "no length, so the body is a request": Attack(
        (post("/api/generate", BODY, sized=False),), (400,), error=PARSED, code="not_http"
    ),
    "an underscore is no hyphen": Attack(
        (post("/api/generate", BODY, b"Content_Length: %d" % SIZE, sized=False),), (400,), error=PARSED, code="not_http"
    ),
    "a short length, and a request in the rest": Attack(
        (post("/api/generate", BODY + SMUGGLED.replace(b"case", b"Case"), b"Content-Length: %d" % SIZE, sized=False),),
        (200, 400),
        False,
        1,
        error="ollama",
        code="bad_request",
    ),
}

# -- chunks ---------------------------------------------------------------------------------------------------------------------

CODINGS = [
    *(b"identity", b"gzip", b"gzip, chunked", b"chunked, identity", b"chunked, gzip", b"chunked, chunked", b"xchunked"),
    *(b"chunkedx", b"chunked;q=1", b'"chunked"', b"chu nked", b"chunked,", b",chunked", b", chunked", b"\vchunked"),
    *(b"", b"chunked\0", b"chunked\x80", b"deflate,chunked", b"trailers"),
]
CHUNKED = b"Transfer-Encoding: chunked"


def codings(path: str, dialect: Dialect) -> dict[str, Attack]:
    """Each alone, and beside a length."""
    alone, beside = {}, {}
    for coding in CODINGS:
        field = b"Transfer-Encoding: " + coding
        ours = "chunked" in coding.decode("latin-1") and coding in (
            b"gzip, chunked",
            b",chunked",
            b", chunked",
            b"deflate,chunked",
        )
        alone[f"coding {coding!r} at {path}"] = Attack(
            (post(path, WHOLE, field, sized=False),), (400,), error=dialect if ours else PARSED, code="not_http"
        )
        beside[f"coding {coding!r} and a length at {path}"] = Attack(
            (post(path, WHOLE, field),), (400,), error=PARSED, code="not_http"
        )
    return alone | (beside if dialect == "ollama" else {})


BOTH = {
    name: Attack((post("/api/generate", WHOLE, *fields, sized=False),), (400,), error=PARSED, code="not_http")
    for name, fields in {
        "length, then chunked": (b"Content-Length: %d" % len(WHOLE), CHUNKED),
        "chunked, then length": (CHUNKED, b"Content-Length: %d" % len(WHOLE)),
        "chunked and no length at all": (CHUNKED, b"Content-Length: 0"),
        "chunked twice": (CHUNKED, CHUNKED),
        "chunked, then identity": (CHUNKED, b"Transfer-Encoding: identity"),
        "identity, then chunked": (b"Transfer-Encoding: identity", CHUNKED),
        "chunked before the colon's blank": (b"Transfer-Encoding : chunked",),
        "chunked folded": (b"Transfer-Encoding:\r\n chunked",),
        "chunked after a bare line feed": (b"X: y\nTransfer-Encoding: chunked",),
        "chunked after a bare return": (b"X: y\rTransfer-Encoding: chunked",),
    }.items()
}
OLD = {
    "chunked over HTTP/1.0": Attack(
        (post("/api/generate", WHOLE, CHUNKED, sized=False).replace(b"/1.1", b"/1.0"),),
        (400,),
        error="ollama",
        code="not_http",
    )
}
DATA = b"%x\r\n%b\r\n"
CHUNKS: dict[str, bytes] = {
    "0x": b"0x%x\r\n%b\r\n" % (SIZE, BODY),
    "a minus": b"-5\r\n" + BODY,
    "a plus": b"+%x\r\n%b\r\n" % (SIZE, BODY),
    "a blank before": b" %x\r\n%b\r\n" % (SIZE, BODY),
    "a blank after": b"%x \r\n%b\r\n" % (SIZE, BODY),
    "a tab after": b"%x\t\r\n%b\r\n" % (SIZE, BODY),
    "seventeen digits": b"fffffffffffffffff\r\n" + BODY,
    "no size": b"\r\n" + BODY,
    "no hexadecimal": b"xyz\r\n" + BODY,
    "a comma": b"%x,\r\n%b\r\n" % (SIZE, BODY),
    "a bare line feed": b"%x\n%b\r\n" % (SIZE, BODY),
    "a bare return": b"%x\r%b\r\n" % (SIZE, BODY),
    "two returns": b"%x\r\r\n%b\r\n" % (SIZE, BODY),
    "a line feed in an extension": b"%x;a\nb\r\n%b\r\n" % (SIZE, BODY),
    "a NUL in an extension": b"%x;a\0b\r\n%b\r\n" % (SIZE, BODY),
    "more data than its size": b"5\r\n%b\r\n" % BODY,
    "less data than its size": b"%x\r\n%b\r\n" % (SIZE + 1, BODY),
    "no end of its line": b"%x\r\n%b" % (SIZE, BODY),
    "a bare line feed behind the data": b"%x\r\n%b\n" % (SIZE, BODY),
    "digits of Arabia": "\u0665\r\n".encode() + BODY,
}
SPLIT = {
    f"chunk {name}": Attack(
        (post("/api/generate", said + b"0\r\n\r\n", CHUNKED, sized=False),), (400,), error=PARSED, code="not_http"
    )
    for name, said in CHUNKS.items()
}
LATER = {
    f"chunk {name}, once it is being read at {path}": Attack(
        (post(path, b"", CHUNKED, sized=False), said + b"0\r\n\r\n"), (400,), error=dialect, code="not_http"
    )
    for name, said in list(CHUNKS.items())[:8]
    for path, dialect in PATHS.items()
}
TRAILERS = {
    f"trailer {name}": Attack(
        (post("/api/generate", DATA % (SIZE, BODY) + b"0\r\n" + said + b"\r\n", CHUNKED, sized=False),),
        (status,),
        error=PARSED,
        code=code,
    )
    for name, (said, status, code) in {
        "of a length": (b"Content-Length: 5\r\n", 400, "not_http"),
        "without a colon": (b"X y\r\n", 400, "not_http"),
        "folded": (b"X: a\r\n b\r\n", 400, "not_http"),
        "with a NUL": (b"X: a\0b\r\n", 400, "not_http"),
        "without end": (b"X: y\r\n" * 10_000, 400, "not_http"),
        "of one long line": (b"X: " + b"y" * 100_000 + b"\r\n", 431, "head_too_large"),
    }.items()
}
FINE_CHUNKS = {
    f"chunks {name}": Attack((post("/api/generate?case@@@@", said, coding, sized=False),), (200,), False, 1)
    for name, (said, coding) in {
        "one by one": (chunked(*(BODY[at : at + 1] for at in range(SIZE)), b""), CHUNKED),
        "with an extension": (b"%x;a=b\r\n%b\r\n0;c\r\n\r\n" % (SIZE, BODY), CHUNKED),
        "with a trailer": (b"%x\r\n%b\r\n0\r\nX-T: y\r\n\r\n" % (SIZE, BODY), CHUNKED),
        "with zeros": (b"000000%x\r\n%b\r\n0000\r\n\r\n" % (SIZE, BODY), CHUNKED),
        "in capitals": (WHOLE, b"TRANSFER-ENCODING: CHUNKED"),
    }.items()
}

ATTACKS = named(
    *(lengths(path, "ollama") for path in PATHS),
    TOLERATED,
    TOO_LONG,
    MORE_THAN_ONE,
    NONE_AT_ALL,
    *(codings(path, dialect) for path, dialect in PATHS.items()),
    BOTH,
    OLD,
    SPLIT,
    LATER,
    TRAILERS,
    FINE_CHUNKS,
)


@pytest.mark.parametrize("name", ATTACKS)
def test_framing(siege: Siege, name: str) -> None:
    """Refused and closed, or read as the one thing that it says."""
    judged(ATTACKS[name], siege.struck[name])


def test_the_others(siege: Siege) -> None:
    """Nobody else notices, and hosts hear only what is framed by one plain length."""
    undisturbed(siege)
