"""Which headers pass: none of the client's credentials to a host, nothing of the hop, and our own words on top."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.relay.headers import inbound, passing, request_head, response_head, to_host, value_of
from tests.profiles import PROPERTY

TO_HOSTS = {
    "Content-Type": True,
    "Content-Encoding": True,
    "Accept": True,
    "User-Agent": True,
    "X-Request-Id": True,
    "X-Forwarded-For": True,
    "X-Stainless-Lang": True,
    "anthropic-version": True,
    "Host": False,
    "Content-Length": False,
    "Transfer-Encoding": False,
    "Connection": False,
    "Keep-Alive": False,
    "Proxy-Connection": False,
    "TE": False,
    "Trailer": False,
    "Upgrade": False,
    "Expect": False,
    "Accept-Encoding": False,
    "Origin": False,
    "Access-Control-Request-Method": False,
    "Access-Control-Request-Headers": False,
    "Authorization": False,
    "Proxy-Authorization": False,
    "x-api-key": False,
    "Cookie": False,
    "Api-Key": False,
    "X-Auth-Token": False,
    "Referer": False,
    "X-Forwarded-Prefix": False,
    "traceparent": False,
    "tracestate": False,
    "baggage": False,
    "X-Corral-Session": False,
    "X-Corral-Generation": False,
    "X-Corral-Anything": False,
}
TO_CLIENTS = {
    "Content-Type": True,
    "Cache-Control": True,
    "Date": True,
    "Vary": True,
    "X-Request-Id": False,
    "traceresponse": False,
    "Content-Length": False,
    "Transfer-Encoding": False,
    "Connection": False,
    "Keep-Alive": False,
    "Trailer": False,
    "Upgrade": False,
    "Access-Control-Allow-Origin": False,
    "Access-Control-Allow-Credentials": False,
    "Access-Control-Expose-Headers": False,
    "X-Corral-Host": False,
}
SPELLINGS = {"as usual": str, "lower": str.lower, "upper": str.upper}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize(("name", "passes"), TO_HOSTS.items(), ids=TO_HOSTS)
def test_to_hosts(name: str, passes: bool, spelling: str) -> None:
    """A host sees what concerns it, spelled as it was sent."""
    header = SPELLINGS[spelling](name).encode()  # type: ignore[operator]
    assert inbound([(header, b"keep-alive")]).lines == (header + b": keep-alive\r\n" if passes else b"")
    assert to_host([(header, b"keep-alive")]) == ([(header.decode(), "keep-alive")] if passes else [])


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize(("name", "passes"), TO_CLIENTS.items(), ids=TO_CLIENTS)
def test_to_clients(name: str, passes: bool, spelling: str) -> None:
    """A client sees the host's answer, less what ends at this hop; as lines and as text alike."""
    header = SPELLINGS[spelling](name).encode()  # type: ignore[operator]
    assert (header + b": v\r\n" in response_head(200, [(header, b"v")], b"", b"")) is passes
    assert passing([(header, b"v")]) == ([(header.decode(), "v")] if passes else [])


@pytest.mark.parametrize(
    "connection",
    [
        pytest.param([b"X-Secret"], id="alone"),
        pytest.param([b"keep-alive, x-secret"], id="among others"),
        pytest.param([b"close,X-SECRET "], id="in capitals"),
        pytest.param([b"X-Secret", b"close"], id="in the first of two lines"),
        pytest.param([b"close", b"X-Secret"], id="in the second of two lines"),
    ],
)
def test_headers_for_this_hop_only(connection: list[bytes]) -> None:
    """What a Connection header names ends here."""
    headers = [(b"X-Secret", b"1"), (b"X-Open", b"2"), *((b"Connection", value) for value in connection)]
    assert inbound(headers).lines == b"X-Open: 2\r\n"


@pytest.mark.parametrize("value", [b"keep-alive", b"Keep-Alive", b"close", b""])
def test_ordinary_connection_headers(value: bytes) -> None:
    """They name nothing."""
    assert inbound([(b"Connection", value), (b"Close", b"1")]).lines == b"Close: 1\r\n"


def test_what_is_looked_at() -> None:
    """The few values that the gateway reads itself, in any spelling."""
    headers = [
        (b"content-TYPE", b"application/json"),
        (b"Content-Encoding", b"zstd"),
        (b"X-Corral-Session", b"talk \xe9"),
        (b"EXPECT", b"100-continue"),
    ]
    read = inbound(headers)
    assert read.lines == b"content-TYPE: application/json\r\nContent-Encoding: zstd\r\n"
    assert (read.content_type, read.content_encoding) == ("application/json", "zstd")
    assert (read.session, read.expect, read.pin) == ("talk é", "100-continue", "")


def test_nothing() -> None:
    """A request may have no headers at all, and an empty session is none."""
    assert inbound([]).lines == b""
    assert not inbound([]).session
    assert not inbound([(b"X-Corral-Session", b"")]).session


def test_headers_as_text() -> None:
    """For a framework's requests: repeated ones in their order, and whatever was in a value, one line."""
    headers = [(b"X-A", b""), (b"X-B", b"a: b"), (b"X-A", b"\xff \xc3\xa4\xc2\x85"), (b"Cookie", b"c")]
    assert to_host(headers) == [("X-A", ""), ("X-B", "a: b"), ("X-A", "\ufffd \u00e4\u0085")]


def test_repeated_headers_stay_repeated() -> None:
    """In their order."""
    assert inbound([(b"X-A", b"1"), (b"X-B", b"2"), (b"X-A", b"3")]).lines == b"X-A: 1\r\nX-B: 2\r\nX-A: 3\r\n"


def test_the_head_of_a_request() -> None:
    """The host reads its own address, a length, and whose generation this is."""
    head = request_head("/base/api/chat?a=b", "10.0.0.5:11434", inbound([(b"Accept", b"*/*")]).lines, 17, "0192f3")
    assert head == (
        b"POST /base/api/chat?a=b HTTP/1.1\r\nHost: 10.0.0.5:11434\r\nContent-Length: 17\r\n"
        b"X-Corral-Generation: 0192f3\r\nAccept: */*\r\n\r\n"
    )


@pytest.mark.parametrize(
    ("status", "line"),
    [
        (200, b"HTTP/1.1 200 OK\r\n"),
        (404, b"HTTP/1.1 404 Not Found\r\n"),
        (499, b"HTTP/1.1 499 Client Closed Request\r\n"),
        (503, b"HTTP/1.1 503 Service Unavailable\r\n"),
        (299, b"HTTP/1.1 299 Status\r\n"),
    ],
)
def test_status_lines(status: int, line: bytes) -> None:
    """Every status has a reason."""
    assert response_head(status, [], b"", b"").startswith(line)


def test_the_head_of_an_answer() -> None:
    """The host's headers, then how the body is framed, then ours."""
    headers = [(b"Content-Type", b"text/plain"), (b"Content-Length", b"9"), (b"Date", b"now")]
    head = response_head(200, headers, b"Transfer-Encoding: chunked\r\n", b"X-Corral-Host: gpu1\r\n")
    assert head == (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nDate: now\r\n"
        b"Transfer-Encoding: chunked\r\nX-Corral-Host: gpu1\r\n\r\n"
    )


@pytest.mark.parametrize(("wanted", "value"), [(b"a", b"1"), (b"b", b"2"), (b"c", b"")])
def test_value_of(wanted: bytes, value: bytes) -> None:
    """The first value of a header in any spelling, or nothing."""
    assert value_of([(b"A", b"1"), (b"a", b"3"), (b"B", b"2")], wanted) == value


token = st.from_regex(rb"[A-Za-z][A-Za-z0-9-]{0,12}", fullmatch=True)
secrets = st.sampled_from([b"authorization", b"Cookie", b"X-API-Key", b"Proxy-Authorization", b"X-Corral-Key"])


@given(st.lists(st.tuples(token | secrets, st.sampled_from([b"hunter2"])), max_size=8))
@PROPERTY
def test_no_credential_reaches_a_host(headers: list[tuple[bytes, bytes]]) -> None:
    """Whatever else is sent, and however it is spelled."""
    lines = inbound(headers).lines.lower().split(b"\r\n")
    names = {line.partition(b":")[0] for line in lines}
    assert not names & {b"authorization", b"cookie", b"x-api-key", b"proxy-authorization", b"host"}
    assert not any(name.startswith(b"x-corral-") for name in names)


def test_endless_kinds_of_headers() -> None:
    """However many spellings are seen, each is still judged rightly."""
    for number in range(3000):
        assert inbound([(b"X-Corral-%d" % number, b"1"), (b"X-%d" % number, b"2")]).lines == b"X-%d: 2\r\n" % number
