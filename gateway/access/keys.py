"""Keys: how they look, how they are kept, and what each is good for."""

import base64
import hashlib
import hmac
from collections.abc import Callable

import msgspec

from gateway.access.limits import NO_LIMITS, Limits, limits_of
from gateway.access.rights import KeyRole
from gateway.keyconfig import KeyConfig, end_of

PREFIX = "crl_"
_BYTES = 32
_USUAL = f"Bearer {PREFIX}"


class Key(msgspec.Struct, frozen=True, gc=False):
    """A key without the key itself: ``digest`` is what is kept of it. ``models`` and ``hosts``: patterns of names; empty: all.

    ``expires``, ``created`` and ``revoked`` in Unix seconds; 0: never, in the configuration, and not.
    """

    name: str
    role: KeyRole
    digest: str
    models: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    expires: float = 0.0
    created: float = 0.0
    limits: Limits = NO_LIMITS
    revoked: float = 0.0


def key_of(config: KeyConfig) -> Key:
    """A configured key."""
    limits = limits_of(
        rpm=config.rpm,
        tpm=config.tpm,
        concurrency=config.concurrency,
        budgets=config.budgets,
        priority=config.priority,
        share=config.share,
    )
    expires = end_of(config.expires)
    return Key(config.name, KeyRole(config.role), config.hash, config.models, config.hosts, expires, limits=limits)


def make(chance: Callable[[int], bytes]) -> str:
    """A new key: 256 bits of ``chance(32)`` behind a prefix by which scanners for secrets can tell it."""
    return PREFIX + base64.urlsafe_b64encode(chance(_BYTES)).decode().rstrip("=")


def digest(key: str, pepper: str = "") -> str:
    """What is kept of a key: HMAC-SHA256 under the gateway's ``pepper``, in hex."""
    return hmac.digest(pepper.encode(), key.encode(errors="surrogateescape"), hashlib.sha256).hex()


def given(authorization: str, api_key: str) -> str:
    """The key of a request, from ``Authorization`` (a bearer token, or the password of Basic auth) or ``x-api-key``; empty: none of ours.

    Many tools must be given some key to work without one: what does not begin as ours do is none.
    """
    if authorization.startswith(_USUAL):
        return authorization[len(_USUAL) - len(PREFIX) :].rstrip()
    scheme, _, rest = authorization.strip().partition(" ")
    found = ""
    if scheme.lower() == "bearer":
        found = rest.strip()
    elif scheme.lower() == "basic":
        found = _password(rest.strip())
    if not found.startswith(PREFIX):
        found = api_key.strip()
    return found if found.startswith(PREFIX) else ""


def _password(packed: str) -> str:
    try:
        text = base64.b64decode(packed, validate=True).decode("latin-1")
    except ValueError:
        return ""
    return text.partition(":")[2]
