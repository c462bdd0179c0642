"""Where one can listen: an address and a port, or the path of a Unix socket."""

import ipaddress
from typing import NamedTuple

from gateway.errors import ConfigError

DEFAULT_LISTEN = "127.0.0.1:11434"
UNIX = "unix:"
PATH_BYTES = 107  # what the kernel has room for


class Place(NamedTuple):
    """``address`` and ``port`` (0: any free one), or the ``path`` of a Unix socket. ``admin``: for operators; ``tls``; ``proxied``: for proxies that tell
    by a PROXY header whose connections theirs are."""

    address: str
    port: int = 0
    path: str = ""
    admin: bool = False
    tls: bool = False
    proxied: bool = False

    def __str__(self) -> str:
        if self.path:
            return UNIX + self.path
        return f"{f'[{self.address}]' if ':' in self.address else self.address}:{self.port}"

    @property
    def near(self) -> bool:
        """Whether only this machine can reach what listens there."""
        return not self.proxied and (bool(self.path) or is_loopback(self.address))


def places(listen: str, key: str = "listen") -> tuple[Place, ...]:
    """Those of ``listen``, which has commas between them; each once. ``key``: where it is configured. Raises ConfigError."""
    found = tuple(_place(text.strip(), key) for text in listen.split(","))
    for place in found:
        if found.count(place) > 1 and (place.path or place.port):
            raise ConfigError(f"{key} = {listen!r} names {place} twice")
    return found


def _place(text: str, key: str) -> Place:
    if not text.startswith(UNIX):
        return Place(*split_listen(text, key))
    path = text.removeprefix(UNIX)
    if not path or path.endswith("/") or "\0" in path:
        raise ConfigError(f"{key} = {text!r}: write the path of the socket, as in 'unix:/run/corral/corral.sock'")
    if len(path.encode(errors="surrogateescape")) > PATH_BYTES:
        raise ConfigError(f"{key} = {text!r}: the path of a Unix socket has at most {PATH_BYTES} bytes")
    return Place("", 0, path)


def split_listen(listen: str, key: str = "listen") -> tuple[str, int]:
    """``127.0.0.1:11434``, ``[::1]:11434`` or ``:11434`` (all addresses) → (address, port). Raises ConfigError."""
    address, colon, port = listen.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()) or "/" in address:
        raise ConfigError(f"{key} = {listen!r}: write address:port, as in {DEFAULT_LISTEN!r}")
    if int(port) > 65535:
        raise ConfigError(f"{key} = {listen!r}: a port is a number up to 65535")
    if ":" in address and not (address.startswith("[") and address.endswith("]")):
        raise ConfigError(f"{key} = {listen!r}: an IPv6 address stands in brackets, as in '[::1]:11434'")
    return address.strip("[]") or "0.0.0.0", int(port)


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach what listens there."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"
