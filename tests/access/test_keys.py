"""Keys are made of chance, told by their prefix, found wherever a tool can put them, and kept as digests."""

import base64
import os

import pytest

from gateway.access.keys import PREFIX, digest, given, make
from gateway.errors import BadRequest

KEY, OTHER = make(lambda size: b"\xff" * size), make(lambda size: b"\xfe" * size)


def basic(text: str) -> str:
    """What a tool sends that knows a user and a password."""
    return "Basic " + base64.b64encode(text.encode()).decode()


def test_a_key_is_256_bits_of_chance() -> None:
    """All of it is in the text, nothing is shared between two."""
    asked: list[int] = []
    made = make(lambda size: asked.append(size) or os.urandom(size))  # type: ignore[func-returns-value]
    assert asked == [32]
    assert made.startswith(PREFIX)
    assert len(base64.urlsafe_b64decode(made.removeprefix(PREFIX) + "=")) == 32
    assert made != make(os.urandom)


@pytest.mark.parametrize(
    ("authorization", "api_key", "found"),
    [
        pytest.param(f"Bearer {KEY}", "", KEY, id="bearer"),
        pytest.param(f"bearer   {KEY} ", "", KEY, id="bearer, otherwise written"),
        pytest.param("", KEY, KEY, id="x-api-key"),
        pytest.param(basic(f"anybody:{KEY}"), "", KEY, id="password"),
        pytest.param(basic(f":{KEY}"), "", KEY, id="password without a user"),
        pytest.param("Bearer ollama", KEY, KEY, id="x-api-key beside a word that tools must be given"),
        pytest.param("Bearer ollama", "", "", id="a word that tools must be given"),
        pytest.param(basic("me:secret"), "", "", id="a password of something else"),
        pytest.param("Basic !!!", "", "", id="no base64"),
        pytest.param("Basic /w==", "", "", id="no UTF-8"),
        pytest.param("Bearer", "", "", id="a scheme alone"),
        pytest.param(KEY, "", "", id="no scheme"),
        pytest.param("Digest " + KEY, "", "", id="another scheme"),
        pytest.param("", "", "", id="nothing"),
    ],
)
def test_where_a_key_is_found(authorization: str, api_key: str, found: str) -> None:
    """In three headers; what is no key of ours is none."""
    assert given((authorization,) * bool(authorization), (api_key,) * bool(api_key)) == found


@pytest.mark.parametrize(
    ("authorizations", "api_keys"),
    [
        pytest.param((f"Bearer {KEY}",), (OTHER,), id="bearer and x-api-key"),
        pytest.param((basic(f"me:{KEY}"),), (OTHER,), id="password and x-api-key"),
        pytest.param((f"Bearer {KEY}", f"Bearer {OTHER}"), (), id="two bearers"),
        pytest.param((f"Bearer {KEY}", basic(f"me:{OTHER}")), (), id="bearer and password"),
        pytest.param((), (KEY, OTHER), id="two of x-api-key"),
        pytest.param((f"Bearer {KEY}", "Bearer ollama"), (KEY, OTHER), id="among others"),
    ],
)
def test_two_different_keys(authorizations: tuple[str, ...], api_keys: tuple[str, ...]) -> None:
    """Are refused, and not told; the same one twice is one."""
    with pytest.raises(BadRequest, match="two different keys") as refused:
        given(authorizations, api_keys)
    assert PREFIX not in str(refused.value)
    same = [each.replace(OTHER, KEY) for each in authorizations if each.startswith("Bearer")]
    assert given((*same, "Bearer ollama", "Basic !!!"), ("none", KEY)) == KEY


def test_a_word_hides_no_key() -> None:
    """Whichever comes first."""
    assert given(("Bearer ollama", f"Bearer {KEY}"), ()) == given((), ("none", KEY)) == KEY


def test_digests() -> None:
    """They tell keys apart, and gateways by their pepper."""
    assert digest(KEY) == digest(KEY)
    assert len({digest(KEY), digest(KEY + "x"), digest(KEY, "pepper"), digest(KEY, "salt")}) == 4
    assert KEY not in digest(KEY)
    assert digest("crl_\udcff")
