"""Rights and roles: each role has what the one below it has, and everything can be said in words."""

import pytest

from gateway.access.rights import ANONYMOUS, CHANGING, IN_WORDS, NEEDS, RIGHTS, KeyRole, Right, needed


def test_roles_add_up() -> None:
    """An admin may all, an operator more than a user; callers without a key get no more than they are given."""
    assert RIGHTS[KeyRole.USER] < RIGHTS[KeyRole.OPERATOR] < RIGHTS[KeyRole.ADMIN] == frozenset(Right)
    assert ANONYMOUS["none"] < ANONYMOUS["inference"] < ANONYMOUS["full"] == frozenset(Right)
    assert Right.OWN not in ANONYMOUS["inference"]
    assert not ANONYMOUS["inference"] & set(CHANGING)
    assert not RIGHTS[KeyRole.USER] & set(CHANGING)


def test_each_is_said_in_words() -> None:
    """For who reads the log, or `corral check`."""
    assert set(IN_WORDS) == {*KeyRole, *ANONYMOUS}


@pytest.mark.parametrize(
    ("method", "route", "right"),
    [
        ("POST", "/api/chat", Right.INFER),
        ("HEAD", "/api/tags", Right.READ),
        ("HEAD", "/api/blobs/{digest}", Right.MANAGE),
        ("GET", "/healthz", Right.NONE),
        ("POST", "/api/tags", Right.ADMIN),
        ("POST", "/api/new", Right.ADMIN),
    ],
)
def test_what_an_endpoint_needs(method: str, route: str, right: Right) -> None:
    """HEAD what GET does; an endpoint that somebody forgets is open to nobody but an admin."""
    assert needed(method, route) is right


def test_every_right_is_needed_somewhere() -> None:
    """Else it would mean nothing."""
    assert set(NEEDS.values()) == set(Right)
