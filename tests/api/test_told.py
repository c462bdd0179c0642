"""The PROXY protocol, read off real sockets: what is said, what cannot be, and not a byte more."""

import asyncio
import socket
import struct

import pytest

from gateway.api.told import BLOCK_MOST, LINE_MOST, SIGNATURE, Client, Untold, of_block, of_line, told

LINE = b"PROXY TCP4 203.0.113.5 10.0.0.1 4711 443\r\n"
V6 = bytes.fromhex("20010db8000000000000000000000001")


def block(command: int = 0x21, family: int = 0x11, rest: bytes | None = None, extra: bytes = b"") -> bytes:
    """A header of version 2."""
    body = bytes([203, 0, 113, 5, 10, 0, 0, 1]) + struct.pack("!HH", 4711, 443) if rest is None else rest
    return SIGNATURE + struct.pack("!BBH", command, family, len(body + extra)) + body + extra


GOOD: dict[str, tuple[bytes, Client | None]] = {
    "v1": (LINE, ("203.0.113.5", 4711)),
    "v1 IPv6": (b"PROXY TCP6 2001:db8::1 ::1 4711 443\r\n", ("2001:db8::1", 4711)),
    "v1, its longest": (
        b"PROXY TCP6 " + b"ffff:" * 7 + b"ffff " + b"ffff:" * 7 + b"ffff 65535 65535\r\n",
        ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 65535),
    ),
    "v1, who cannot say": (b"PROXY UNKNOWN\r\n", None),
    "v1, who cannot say, at length": (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", None),
    "v2": (block(), ("203.0.113.5", 4711)),
    "v2 IPv6": (block(family=0x21, rest=V6 + V6 + struct.pack("!HH", 5, 6)), ("2001:db8::1", 5)),
    "v2 with more": (block(extra=b"\x04\x00\x03abc"), ("203.0.113.5", 4711)),
    "v2, the proxy's own": (block(command=0x20), None),
    "v2, nothing": (block(command=0x20, family=0, rest=b""), None),
    "v2, a Unix socket": (block(family=0x31, rest=b"\0" * 216), None),
}


@pytest.mark.parametrize(("header", "client"), GOOD.values(), ids=GOOD)
@pytest.mark.parametrize("step", [1000, 7, 1])
async def test_what_is_said(header: bytes, client: Client | None, step: int) -> None:
    """However it is cut into packets, and what follows is still there."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        reading = asyncio.ensure_future(told(ours))  # noqa: TID251
        rest = b"GET / HTTP/1.1\r\n"
        whole = header + rest
        for start in range(0, len(whole), step):
            theirs.sendall(whole[start : start + step])
            for _ in range(3):
                await asyncio.sleep(0)  # noqa: TID251 - it may read, or not
        assert await reading == client
        left = b""
        while len(left) < len(rest):
            left += await asyncio.get_running_loop().sock_recv(ours, 100)
        assert left == rest


BAD: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "it ended before"),
    "HTTP": (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "it does not begin with a PROXY header"),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00\x00", "it does not begin with a PROXY header"),
    "cut": (LINE[:30], "it ended before"),
    "v2 cut": (block()[:20], "it ended before"),
    "too long": (b"PROXY TCP4 " + b"1" * LINE_MOST, f"over {LINE_MOST} bytes"),
    "v2 too long": (SIGNATURE + struct.pack("!BBH", 0x21, 0x11, BLOCK_MOST + 1), f"over {BLOCK_MOST} bytes"),
    "no return": (LINE.replace(b"\r", b""), "cannot be read"),
    "other family": (b"PROXY TCP6 203.0.113.5 10.0.0.1 1 2\r\n", "cannot be read"),
    "no family": (b"PROXY UDP4 203.0.113.5 10.0.0.1 1 2\r\n", "cannot be read"),
    "no address": (b"PROXY TCP4 example.com 10.0.0.1 1 2\r\n", "cannot be read"),
    "no port": (b"PROXY TCP4 203.0.113.5 10.0.0.1 1\r\n", "cannot be read"),
    "high port": (b"PROXY TCP4 203.0.113.5 10.0.0.1 65536 1\r\n", "cannot be read"),
    "negative port": (b"PROXY TCP4 203.0.113.5 10.0.0.1 -1 1\r\n", "cannot be read"),
    "two spaces": (b"PROXY TCP4  203.0.113.5 10.0.0.1 1 1\r\n", "cannot be read"),
    "more words": (b"PROXY TCP4 203.0.113.5 10.0.0.1 1 1 1\r\n", "cannot be read"),
    "other letters": (b"PROXY TCP4 203.0.113.\xb2 10.0.0.1 1 1\r\n", "cannot be read"),
    "v2 of another version": (block(command=0x31), "cannot be read"),
    "v2 of another command": (block(command=0x22), "cannot be read"),
    "v2 by UDP": (block(family=0x12), "cannot be read"),
    "v2 too short": (block(rest=b"\0" * 11), "cannot be read"),
}


@pytest.mark.parametrize(("header", "words"), BAD.values(), ids=BAD)
async def test_what_cannot_be_read(header: bytes, words: str) -> None:
    """The text says what is wrong."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.sendall(header)
        theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(Untold, match=words):
            await told(ours)


def test_without_a_socket() -> None:
    """The same of values."""
    assert of_line(LINE[:-2]) == of_block(0x21, 0x11, block()[16:]) == ("203.0.113.5", 4711)
