"""Who asks, and what they may: by key, by role, by where the gateway listens."""

import pytest

from gateway.access.gate import EVERYBODY, Gate, permit, require
from gateway.access.keys import Key, digest, make
from gateway.access.rights import ANONYMOUS, RIGHTS, KeyRole, Right
from gateway.errors import NotAllowed, StoreUnavailable, Unauthorized
from tests.builders import config

NOW = 1_800_000_000.0
ONE, TWO, OLD = (make(lambda size, byte=byte: bytes([byte]) * size) for byte in range(3))  # type: ignore[misc]


def gate(*keys: Key, **access: str) -> Gate:
    """One that is configured so."""
    made = Gate(lambda: NOW)
    made.configure(config([("gpu1", "http://127.0.0.1:1")], access=access))
    made.keep(keys)
    return made


def key(name: str, made: str, role: KeyRole = KeyRole.USER, **values: object) -> Key:
    """A kept one."""
    return Key(name, role, digest(made), **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("anonymous", "near", "keyed", "mode"),
    [
        ("auto", True, False, "full"),
        ("auto", False, False, "inference"),
        ("auto", True, True, "none"),
        ("auto", False, True, "none"),
        ("inference", True, True, "inference"),
        ("full", False, True, "full"),
        ("none", True, False, "none"),
    ],
)
def test_callers_without_a_key(anonymous: str, near: bool, keyed: bool, mode: str) -> None:
    """Full on this machine, inference elsewhere, nothing once there are keys, unless the configuration says otherwise."""
    made = gate(*([key("one", ONE)] if keyed else []), anonymous=anonymous)
    assert made.modes[near] == mode
    who = made.principal((), (), near=near)
    assert (who.name, who.role, who.rights) == ("", None, ANONYMOUS[mode])
    assert made.open[near] is (mode == "full" and not keyed)


def test_a_key_is_a_principal() -> None:
    """Of its name, its role, and what it is good for; whatever callers without one may."""
    made = gate(key("one", ONE, models=("llama3*",)), key("two", TWO, KeyRole.ADMIN), anonymous="full")
    one, two = made.principal((f"Bearer {ONE}",), (), near=True), made.principal((), (TWO,), near=True)
    assert (one.name, one.role, one.rights) == ("one", KeyRole.USER, RIGHTS[KeyRole.USER])
    assert (two.name, two.role, two.rights) == ("two", KeyRole.ADMIN, frozenset(Right))
    assert made.named("one") == one
    assert made.named("").rights == ANONYMOUS["full"]
    assert (one.sees("one"), one.sees("two"), one.sees(""), one.whose) == (True, False, False, "one")
    assert (two.sees("one"), two.whose) == (True, None)


def test_what_a_key_is_good_for() -> None:
    """Models and hosts by pattern; what is not said is not limited."""
    one = gate(key("one", ONE, models=("llama3*", "qwen2.5:7b"), hosts=("gpu*",))).principal((), (ONE,), near=True)
    permit(one, "llama3:8b")
    permit(one, "qwen2.5:7b", "gpu1")
    for model, pin in (("qwen2.5:32b", ""), ("llama3:8b", "lab"), ("", "")):
        with pytest.raises(NotAllowed, match="'one' is not good for the"):
            permit(one, model, pin)
    permit(EVERYBODY, "anything", "anywhere")


def test_keys_that_are_not_good() -> None:
    """Unknown, revoked, or expired: said so, even where nobody needs one."""
    made = gate(key("old", OLD, expires=NOW), key("one", ONE, expires=NOW + 1), anonymous="full")
    assert made.principal((), (ONE,), near=True).name == "one"
    with pytest.raises(Unauthorized, match="not known"):
        made.principal((), (TWO,), near=True)
    with pytest.raises(Unauthorized, match="expired"):
        made.principal((), (OLD,), near=True)
    made.keep(())
    assert made.open[True]
    assert made.principal((), (ONE,), near=True) is EVERYBODY


def test_the_last_key_is_revoked() -> None:
    """Which opens nothing: neither to its holder nor to others, though nobody has a key any more."""
    made = gate(key("one", ONE, revoked=NOW - 1))
    assert (made.modes, made.keys) == ({True: "none", False: "none"}, ())
    with pytest.raises(Unauthorized, match="not known"):
        made.principal((), (ONE,), near=True)
    with pytest.raises(Unauthorized, match="role user"):
        require(made.principal((), (), near=True), Right.READ)


def test_what_is_missing_is_named() -> None:
    """Without a key: how to send one, and of which role. With one: that it is not enough."""
    made = gate(key("one", ONE))
    with pytest.raises(Unauthorized, match=r"role operator: send it as `Authorization: Bearer"):
        require(made.principal((), (), near=True), Right.MANAGE)
    with pytest.raises(NotAllowed, match="'one' has the role user; this takes the role operator"):
        require(made.principal((), (ONE,), near=True), Right.MANAGE)
    require(made.principal((), (ONE,), near=True), Right.INFER)
    with pytest.raises(Unauthorized, match="role user"):
        require(made.principal((), (), near=True), Right.INFER)


@pytest.mark.parametrize(
    ("anonymous", "near", "mode"),
    [("auto", True, "inference"), ("auto", False, "inference"), ("full", True, "full")],
)
def test_while_the_keys_are_not_known(anonymous: str, near: bool, mode: str) -> None:
    """Nobody is told that a key is wrong, or that one is needed: it is to be asked again. Nothing is open that keys might close."""
    made = Gate(lambda: NOW, stored=True)
    made.configure(config([("gpu1", "http://127.0.0.1:1")], access={"anonymous": anonymous}))
    assert (made.modes[near], made.open[near]) == (mode, False)
    with pytest.raises(StoreUnavailable) as unknown:
        made.principal((), (ONE,), near=near)
    assert unknown.value.retry_after
    if mode != "full":
        with pytest.raises(StoreUnavailable):
            require(made.principal((), (), near=near), Right.MANAGE)
        require(made.principal((), (), near=near), Right.INFER)
    made.keep(())
    assert made.open[near] is (near or anonymous == "full")
    made.keep([key("one", ONE)])
    assert made.modes[near] == ("none" if anonymous == "auto" else "full")
    assert made.principal((), (ONE,), near=near).name == "one"


def test_who_began_something_and_is_gone() -> None:
    """It does not go on on their behalf."""
    made = gate(key("one", ONE), key("old", OLD, expires=NOW))
    assert made.named("one").name == "one"
    made.keep([key("old", OLD, expires=NOW)])
    for name in ("one", "old"):
        with pytest.raises(Unauthorized, match=f"'{name}'"):
            made.named(name)
