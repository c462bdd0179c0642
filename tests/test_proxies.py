"""Whose word counts for who a request comes from."""

import pytest

from gateway.errors import ConfigError
from gateway.proxies import HOPS_MOST, Proxies

TRUSTED = Proxies(("10.0.0.0/8", "2001:db8::/32", "192.0.2.7", "unix"))


@pytest.mark.parametrize(
    ("address", "trusted"),
    [
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("2001:db8::1", True),
        ("192.0.2.7", True),
        ("192.0.2.8", False),
        ("127.0.0.1", False),
        ("unix", True),
        ("", False),
        ("nonsense", False),
    ],
)
def test_whom_it_trusts(address: str, trusted: bool) -> None:
    """Addresses and networks, IPv4 in IPv6's clothes too, and Unix sockets."""
    assert TRUSTED.trusts(address) is trusted


def test_nobody_unless_told() -> None:
    """By default."""
    assert [Proxies(()).trusts(address) for address in ("127.0.0.1", "::1", "unix", "10.0.0.1")] == [False] * 4


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        pytest.param("10.0.0.1", "203.0.113.5", "203.0.113.5", id="one proxy"),
        pytest.param("10.0.0.1", "1.1.1.1, 203.0.113.5", "203.0.113.5", id="what a client wrote does not count"),
        pytest.param("10.0.0.1", "203.0.113.5, 10.0.0.2, 10.0.0.3", "203.0.113.5", id="three proxies"),
        pytest.param("10.0.0.1", "127.0.0.1, 203.0.113.5 ,10.0.0.2", "203.0.113.5", id="nor before several"),
        pytest.param("10.0.0.1", "10.0.0.9, 10.0.0.2", "10.0.0.9", id="all are trusted"),
        pytest.param("203.0.113.9", "1.1.1.1", "203.0.113.9", id="nobody whom one trusts"),
        pytest.param("unix", "203.0.113.5", "203.0.113.5", id="a Unix socket"),
        pytest.param("10.0.0.1", "203.0.113.5:4711", "203.0.113.5", id="with a port"),
        pytest.param("10.0.0.1", "[2001:db9::1]:4711", "2001:db9::1", id="IPv6 with a port"),
        pytest.param("10.0.0.1", "2001:db9::1", "2001:db9::1", id="IPv6"),
        pytest.param("10.0.0.1", "::ffff:203.0.113.5", "203.0.113.5", id="in IPv6's clothes"),
        pytest.param("10.0.0.1", "203.0.113.5, unknown", "10.0.0.1", id="no address"),
        pytest.param("10.0.0.1", "203.0.113.5, unknown, 10.0.0.2", "10.0.0.2", id="no address behind a proxy"),
        pytest.param("10.0.0.1", "", "10.0.0.1", id="nothing said"),
        pytest.param("10.0.0.1", " , ", "10.0.0.1", id="nothing but a comma"),
    ],
)
def test_who_asks(peer: str, forwarded: str, client: str) -> None:
    """The right-most that is not trusted."""
    assert TRUSTED.client(peer, forwarded) == client


def test_so_many_proxies() -> None:
    """Are not followed for ever."""
    hops = ", ".join(f"10.0.{i // 256}.{i % 256}" for i in range(1000))
    assert TRUSTED.client("10.9.9.9", f"203.0.113.5, {hops}") == f"10.0.3.{999 % 256 - HOPS_MOST + 1}"


@pytest.mark.parametrize("text", ["10.0.0.0/33", "10.0.0.1/8", "proxy.example", "", "unix:/run/a.sock"])
def test_what_is_no_proxy(text: str) -> None:
    """The message names it."""
    with pytest.raises(ConfigError, match=r"http\.trusted_proxies: "):
        Proxies((text,))
