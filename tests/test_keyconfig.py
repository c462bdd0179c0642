"""Keys of the configuration: what is wrong with one is said in words."""

import calendar

import pytest

from gateway.errors import ConfigError
from gateway.keyconfig import KeyConfig, check_keys, check_reach, end_of

HASH = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "no spaces"}, "name = 'no spaces': letters, digits"),
        ({"name": ""}, "letters, digits"),
        ({"name": "two"}, "each once"),
        ({"name": "Two"}, "'Two' would be taken for that of the key 'two'"),
        ({"name": "Anonymous"}, "would be taken for callers without a key"),
        ({"hash": "crl_AAAA"}, "not one that `corral keys hash` prints"),
        ({"hash": HASH.upper()}, "not one that"),
        ({"expires": "tomorrow"}, "expires = 'tomorrow' is no day like 2027-01-31"),
        ({"role": "admin", "models": ("llama3*",)}, "the role admin is not limited"),
        ({"rpm": -1}, "'one': rpm = -1: at least 1"),
        ({"share": 1000.0}, "share = 1000: at least 0.01 and at most 100"),
        ({"budgets": ("many",)}, "budget 'many': write tokens like 1000000/day"),
        ({"role": "operator", "hosts": ("gpu1",)}, "the role operator is not limited"),
    ],
)
def test_what_is_wrong_is_said(changes: dict[str, str], said: str) -> None:
    """By the key's name."""
    keys = [KeyConfig("two", HASH), KeyConfig(**({"name": "one", "hash": HASH} | changes))]
    with pytest.raises(ConfigError, match=said):
        check_keys(keys)


def test_what_is_right() -> None:
    """A user's key can be limited."""
    check_keys(
        [KeyConfig("ann", HASH, "user", ("llama3*",), ("gpu*",), "2027-01-31"), KeyConfig("root", HASH, "admin")]
    )
    check_reach("user", ["llama3*"], ["gpu1"])


def test_a_day_ends_when_it_ends() -> None:
    """At midnight in UTC, and not for a key without one."""
    assert end_of("") == 0.0
    assert end_of("9999-12-31") == calendar.timegm((9999, 12, 31, 23, 59, 59))
    assert end_of("2027-01-31") == calendar.timegm((2027, 2, 1, 0, 0, 0))
