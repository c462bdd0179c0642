"""Keys: how they look, how they are kept, and what each is good for."""

import base64
import hashlib
import hmac
from collections.abc import Callable

import msgspec

from gateway.access.limits import NO_LIMITS, Limits, limits_of
from gateway.access.rights import KeyRole
from gateway.errors import BadRequest
from gateway.keyconfig import KeyConfig, end_of

PREFIX = "crl_"
_BYTES = 32
_USUAL = f"Bearer {PREFIX}"
Sent = list[str] | tuple[str, ...]
"""The values of one header; hardly ever more than one."""


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


def of_key(principal: str) -> str:
    """The name of the key that a principal's name begins with: ``app`` of ``app/ann``, who asks through an app."""
    return principal.partition("/")[0]


def make(chance: Callable[[int], bytes]) -> str:
    """A new key: 256 bits of ``chance(32)`` behind a prefix by which scanners for secrets can tell it."""
    return PREFIX + base64.urlsafe_b64encode(chance(_BYTES)).decode().rstrip("=")


def digest(key: str, pepper: str = "") -> str:
    """What is kept of a key: HMAC-SHA256 under the gateway's ``pepper``, in hex."""
    return hmac.digest(pepper.encode(), key.encode(errors="surrogateescape"), hashlib.sha256).hex()


def given(authorizations: Sent, api_keys: Sent) -> str:
    """The key of a request, from ``Authorization`` (a bearer token, or the password of Basic auth) and ``x-api-key``, each as often as it was sent;
    empty: none of ours. Raises BadRequest for two different ones: it would be a guess who asks.

    Many tools must be given some key to work without one: what does not begin as ours do is none, and hides none.
    """
    if len(authorizations) == 1 and not api_keys and authorizations[0].startswith(_USUAL):
        return authorizations[0][len(_USUAL) - len(PREFIX) :].rstrip()  # as nearly everybody does
    found = ""
    for key in (*map(_authorized, authorizations), *map(str.strip, api_keys)):
        if key.startswith(PREFIX) and key != found:
            if found:
                raise BadRequest("two different keys in one request: send one")
            found = key
    return found


def _authorized(authorization: str) -> str:
    scheme, _, rest = authorization.strip().partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip()
    return _password(rest.strip()) if scheme.lower() == "basic" else ""


def _password(packed: str) -> str:
    try:
        text = base64.b64decode(packed, validate=True).decode("latin-1")
    except ValueError:
        return ""
    return text.partition(":")[2]
