"""The PROXY protocol, versions 1 and 2: the line or block before a connection's first byte in which a proxy tells whose connection it is.

No byte is read beyond it: what follows may be the beginning of TLS.
"""

import asyncio
import ipaddress
import socket

Client = tuple[str, int]

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
LINE_MOST, BLOCK_MOST = 107, 4096  # bytes: all there can be; and more than any proxy has to add
_LOCAL, _PROXY = 0x20, 0x21
_UNSPECIFIED, _TCP4, _TCP6, _UNIX = 0x00, 0x11, 0x21, 0x31


class Untold(Exception):
    """The connection does not begin as it must; the text says how it does."""


async def told(sock: socket.socket) -> Client | None:
    """Whose connection it is, by what it begins with; None: the proxy's own, or it cannot say. Raises Untold, and OSError for one that breaks."""
    first = await _exactly(sock, len(SIGNATURE))
    if first == SIGNATURE:
        head = await _exactly(sock, 4)
        size = int.from_bytes(head[2:])
        if size > BLOCK_MOST:
            raise Untold(f"its PROXY header is over {BLOCK_MOST} bytes")
        return of_block(head[0], head[1], await _exactly(sock, size))
    if not first.startswith(b"PROXY "):
        raise Untold("it does not begin with a PROXY header")
    return of_line(await _line(sock, first))


def of_line(line: bytes) -> Client | None:
    """Version 1: ``PROXY TCP4 203.0.113.5 10.0.0.1 4711 443``, without its end. Raises Untold."""
    words = line.decode("latin-1").split(" ")
    if words[1:2] == ["UNKNOWN"]:
        return None
    try:
        kind, (source, _), (port, _) = words[1], map(ipaddress.ip_address, words[2:4]), map(_port, words[4:])
    except (ValueError, IndexError):
        raise Untold("its PROXY header cannot be read") from None
    if kind != f"TCP{source.version}":
        raise Untold("its PROXY header cannot be read")
    return str(source), port


def of_block(command: int, family: int, rest: bytes) -> Client | None:
    """Version 2: its version and command, family, and what follows their length. Raises Untold."""
    if command == _LOCAL or (command == _PROXY and family in (_UNSPECIFIED, _UNIX)):
        return None
    size = {_TCP4: 4, _TCP6: 16}.get(family, 0)
    if command != _PROXY or not size or len(rest) < 2 * size + 4:
        raise Untold("its PROXY header cannot be read")
    return str(ipaddress.ip_address(rest[:size])), int.from_bytes(rest[2 * size : 2 * size + 2])


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or int(text) > 65535:
        raise ValueError
    return int(text)


async def _exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = await asyncio.get_running_loop().sock_recv(sock, size - len(data))
        if not more:
            raise Untold("it ended before its PROXY header did")
        data += more
    return data


async def _line(sock: socket.socket, first: bytes) -> bytes:
    """The rest of a line, less its end: as far as the kernel has it at once."""
    line = first
    while b"\n" not in line:
        if len(line) >= LINE_MOST:
            raise Untold(f"its PROXY header is over {LINE_MOST} bytes")
        line += await _exactly(sock, 1)
        if line.endswith(b"\n"):
            break
        try:
            there = sock.recv(LINE_MOST - len(line), socket.MSG_PEEK)
        except BlockingIOError:
            continue
        line += sock.recv(there.find(b"\n") + 1 or len(there))
    if not line.endswith(b"\r\n"):
        raise Untold("its PROXY header cannot be read")
    return line[:-2]
