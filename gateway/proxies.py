"""Whose word counts for who a request comes from: proxies in front of this gateway, by address."""

import ipaddress
from collections.abc import Iterable

from gateway.errors import ConfigError

UNIX = "unix"
"""The address of whoever comes by a Unix socket."""
HOPS_MOST = 32


class Proxies:
    """Those that are trusted: networks like ``10.0.0.0/8``, and ``unix``. Raises ConfigError for what is neither."""

    def __init__(self, trusted: Iterable[str]) -> None:
        self._unix = False
        self._networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
        for text in trusted:
            if text == UNIX:
                self._unix = True
                continue
            try:
                self._networks.append(ipaddress.ip_network(text))
            except ValueError as error:
                raise ConfigError(
                    f"http.trusted_proxies: {text!r} is no address or network, like 10.0.0.0/8, nor 'unix': {error}"
                ) from None

    def trusts(self, address: str) -> bool:
        """Whether it is one of them."""
        if address == UNIX:
            return self._unix
        known = parsed(address)
        return known is not None and any(known in network for network in self._networks)

    def client(self, peer: str, forwarded: str) -> str:
        """Who asks: ``peer``, or if it is trusted the right-most of ``forwarded`` (X-Forwarded-For) that is not; what stands left of it anybody could have
        written. What is no address ends the search: then it is the last that was one. If all are trusted it is the left-most."""
        client = peer
        hops = forwarded.rsplit(",", HOPS_MOST)[-HOPS_MOST:] if forwarded else []
        while hops and self.trusts(client):
            hop = parsed(_bare(hops.pop().strip()))
            if hop is None:
                break
            client = str(hop)
        return client


def parsed(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """An address, an IPv4 one in IPv6's clothes as what it is; None for anything else."""
    try:
        known = ipaddress.ip_address(address)
    except ValueError:
        return None
    return (known.version == 6 and known.ipv4_mapped) or known


def _bare(hop: str) -> str:
    """Less a port, which some proxies write: ``10.0.0.1:5000``, ``[::1]:5000``."""
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop
