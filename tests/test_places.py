"""Where one can listen, as it is written."""

import pytest

from gateway.errors import ConfigError
from gateway.places import PATH_BYTES, Place, is_loopback, places


@pytest.mark.parametrize(
    ("listen", "expected", "near"),
    [
        ("127.0.0.1:11434", [Place("127.0.0.1", 11434)], [True]),
        (":80", [Place("0.0.0.0", 80)], [False]),
        ("unix:/run/corral.sock", [Place("", 0, "/run/corral.sock")], [True]),
        (
            "[::1]:1, unix:a.sock,10.0.0.1:2",
            [Place("::1", 1), Place("", 0, "a.sock"), Place("10.0.0.1", 2)],
            [True, True, False],
        ),
        ("127.0.0.1:0,127.0.0.1:0", [Place("127.0.0.1"), Place("127.0.0.1")], [True, True]),
    ],
)
def test_places(listen: str, expected: list[Place], near: list[bool]) -> None:
    """Addresses with ports and Unix sockets, any number of them; each is written as it is read."""
    found = places(listen)
    assert list(found) == expected
    assert [place.near for place in found] == near
    assert places(",".join(map(str, found))) == found


@pytest.mark.parametrize(
    ("listen", "words"),
    [
        ("unix:", "write the path of the socket"),
        ("unix:/run/", "write the path of the socket"),
        ("unix:/" + "ä" * 60, f"at most {PATH_BYTES} bytes"),
        ("127.0.0.1:1,", "write address:port"),
        ("127.0.0.1:1,127.0.0.1:1", "names 127.0.0.1:1 twice"),
        ("unix:a,unix:a", "names unix:a twice"),
    ],
)
def test_no_places(listen: str, words: str) -> None:
    """The message says what is wrong with which key."""
    with pytest.raises(ConfigError) as refused:
        places(listen, "admin.listen")
    assert refused.value.message.startswith("admin.listen = ")
    assert words in refused.value.message


@pytest.mark.parametrize(
    ("address", "loopback"),
    [("127.0.0.1", True), ("127.1.1.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False)],
)
def test_loopback(address: str, loopback: bool) -> None:
    """What only this machine can reach."""
    assert is_loopback(address) is loopback
