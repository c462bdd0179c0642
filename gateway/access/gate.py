"""Who asks, and whether they may. Decisions only: headers in, a principal out, or the error that says what is missing."""

import fnmatch
import functools
import hmac
import re
from collections.abc import Callable, Iterable

import msgspec

from gateway.access.keys import Key, Sent, digest, given, key_of, of_key
from gateway.access.limits import NO_LIMITS, Limits
from gateway.access.rights import ANONYMOUS, RIGHTS, KeyRole, Right
from gateway.config import Config
from gateway.dialects.request import InferenceRequest
from gateway.errors import BadRequest, NotAllowed, StoreUnavailable, Unauthorized
from gateway.keyconfig import AccessConfig

HOW = "send it as `Authorization: Bearer crl_…`, as `x-api-key`, or as the password of Basic auth"
AGAIN_SECONDS = 2.0
USER = "X-Corral-User"
"""The header by which who holds one of ``access.user_keys`` says which person asks."""
USER_MOST = 64


class Principal(msgspec.Struct, frozen=True, gc=False):
    """Who asks. ``name``: of their key, or ``app/ann`` for a person behind it, empty without one; ``models`` and ``hosts``: patterns of what they may
    use, empty: all.

    Not ``sure``: which keys there are is not known yet, so what is not allowed now may be in a moment.
    """

    name: str
    rights: frozenset[Right]
    role: KeyRole | None = None
    models: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    sure: bool = True
    limits: Limits = NO_LIMITS

    @property
    def key(self) -> str:
        """The name of their key alone: limits are its."""
        return of_key(self.name)

    def may(self, right: Right) -> bool:
        """Whether they have it."""
        return right in self.rights

    def sees(self, owner: str) -> bool:
        """Whether they may know of what ``owner`` runs or ran; what was asked and said is for the owner alone."""
        return owner == self.name or Right.OPERATE in self.rights

    def may_use(self, model: str) -> bool:
        """Whether their key is good for a model; ``model``: canonical."""
        return not self.models or _any_of(self.models).match(model) is not None

    def may_reach(self, host: str) -> bool:
        """Whether their key is good for a host."""
        return not self.hosts or _any_of(self.hosts).match(host) is not None

    @property
    def whose(self) -> str | None:
        """Whose requests they may know of and stop; None: everybody's."""
        return None if Right.OPERATE in self.rights else self.name


EVERYBODY = Principal("", ANONYMOUS["full"])
"""Where nobody has to say who they are."""

NOBODY = Principal("", frozenset())
"""Whose key is not good, where none is needed."""


def anonymous(config: AccessConfig, *, keyed: bool, near: bool) -> str:
    """What callers without a key may in the end: ``none``, ``inference`` or ``full``."""
    if config.anonymous != "auto":
        return config.anonymous
    if keyed:
        return "none"
    return "full" if near else "inference"


class Gate:
    """Keys by digest, and what callers without one may. ``wall``: Unix seconds; ``stored``: there are keys in a database, which ``keep`` tells.

    Who calls from this machine, by a way that only this machine has, is ``near`` (True, False). ``open[near]``: everybody may do everything,
    and nobody is asked who they are. ``modes[near]``: what callers without a key may.
    """

    def __init__(self, wall: Callable[[], float], *, stored: bool = False) -> None:
        self._wall = wall
        self._config = AccessConfig()
        self.configured: tuple[Key, ...] = ()
        self._kept: tuple[Key, ...] | None = None if stored else ()
        self._by_digest: dict[str, tuple[Key, Principal]] = {}
        self._by_name: dict[str, tuple[Key, Principal]] = {}
        self.modes = {True: "full", False: "inference"}
        self._settle()

    def __repr__(self) -> str:
        return f"<Gate [{len(self._by_digest)} keys, callers without one: {self.modes[True]}, {self.modes[False]}]>"

    def configure(self, config: Config) -> None:
        """The rules and the keys of this configuration from now on."""
        self._config = config.access
        self.configured = tuple(key_of(one) for one in config.keys)
        self._settle()

    def keep(self, keys: Iterable[Key]) -> None:
        """These keys beside, which the database has."""
        self._kept = tuple(keys)
        self._settle()

    @property
    def keys(self) -> tuple[Key, ...]:
        """All that are good. Of two with one name both are good; the configuration's, which is the later one, has the limits that count."""
        return *(key for key in self._kept or () if not key.revoked), *self.configured

    def _settle(self) -> None:
        sure, keys = self.sure, self.keys
        both = [
            (key, Principal(key.name, RIGHTS[key.role], key.role, key.models, key.hosts, limits=key.limits))
            for key in keys
        ]
        self._by_digest = {key.digest: (key, who) for key, who in both}
        self._by_name = {key.name: (key, who) for key, who in both}
        for near in (True, False):
            mode = anonymous(self._config, keyed=self.keyed, near=near)
            if not sure and self._config.anonymous == "auto" and mode == "full":
                mode = "inference"  # until it is known that there are no keys
            self.modes[near] = mode
        self._anonymous = {
            near: EVERYBODY if mode == "full" else Principal("", ANONYMOUS[mode], sure=sure)
            for near, mode in self.modes.items()
        }
        self.open = {near: sure and not self.keyed and mode == "full" for near, mode in self.modes.items()}

    @property
    def key_in_path(self) -> bool:
        """Whether a key may come before the path."""
        return self._config.key_in_path

    @property
    def sure(self) -> bool:
        """Whether all keys are known."""
        return self._kept is not None

    @property
    def keyed(self) -> bool:
        """Whether there are any keys, or were: who takes the last one from its holder lets in nobody by that."""
        return bool(self._kept or self.configured)

    def kept_as(self, key: str) -> str:
        """The digest of a key here."""
        return digest(key, self._config.pepper)

    def principal(self, authorizations: Sent, api_keys: Sent, *, near: bool) -> Principal:
        """Whose these headers are. Raises Unauthorized for a key that is not known, or no longer good, BadRequest for two different ones."""
        if self.open[near]:
            return EVERYBODY
        key = given(authorizations, api_keys)
        if not key:
            return self._anonymous[near]
        kept = self.kept_as(key)
        found = self._by_digest.get(kept)
        if found is None or not hmac.compare_digest(found[0].digest, kept):
            if self._kept is None:
                raise _unsure()
            raise Unauthorized("this key is not known here, or no longer good")
        return self._good(*found)

    def named(self, name: str) -> Principal:
        """On whose behalf something goes on that was begun before; ``name`` is empty for callers without a key. Raises Unauthorized once their
        key is no longer good."""
        if not name:
            return self._anonymous[
                True
            ]  # only where all may do all can something be begun without a key that goes on by itself
        key, _, user = name.partition("/")
        found = self._by_name.get(key)
        if found is None:
            raise Unauthorized(f"the key {key!r} is no longer good")
        return self.through(self._good(*found), (user,)) if user else self._good(*found)

    def through(self, who: Principal, users: Sent) -> Principal:
        """The person who asks through ``who``, as the header USER names them. Raises NotAllowed for a caller whose word does not count, BadRequest for
        no name: both would else be one with everybody who shares the key."""
        if who.name not in self._config.user_keys:
            whose = f"the key {who.name!r}" if who.name else "a caller without a key"
            raise NotAllowed(f"{USER}: {whose} may not speak for others; access.user_keys names the keys that may")
        user = users[0].strip(" \t") if len(users) == 1 else ""  # other blanks are of a name, which cannot be
        if not (0 < len(user) <= USER_MOST and user.isprintable()):
            raise BadRequest(f"{USER} must name one person, in 1 to {USER_MOST} printable characters")
        return msgspec.structs.replace(who, name=f"{who.name}/{user}")

    def _good(self, key: Key, who: Principal) -> Principal:
        if 0 < key.expires <= self._wall():
            raise Unauthorized(f"the key {key.name!r} has expired")
        return who


def require(who: Principal, right: Right) -> None:
    """Raises Unauthorized for a caller without a key who would need one, NotAllowed for a key that is not enough, and StoreUnavailable where it is
    not known yet whether one is needed."""
    if right in who.rights:
        return
    if not who.sure:
        raise _unsure()
    role = next((role for role in KeyRole if right in RIGHTS[role]), KeyRole.ADMIN)
    if who.role is None:
        raise Unauthorized(f"this takes a key of the role {role}: {HOW}")
    raise NotAllowed(f"the key {who.key!r} has the role {who.role}; this takes the role {role}")


def permit(who: Principal, model: str, pin: str = "") -> None:
    """``model``: canonical; ``pin``: the host that is asked for. Raises NotAllowed for one that the key is not good for."""
    if not who.may_use(model):
        raise NotAllowed(f"the key {who.key!r} is not good for the model {model!r}")
    if pin:
        permit_host(who, pin)


def permit_host(who: Principal, host: str) -> None:
    """Raises NotAllowed for a host that the key is not good for."""
    if not who.may_reach(host):
        raise NotAllowed(f"the key {who.key!r} is not good for the host {host!r}")


def asked_by(who: Principal, request: InferenceRequest) -> InferenceRequest:
    """The same, of that principal: no more urgent than their key lets it be, and with its share of the waiting room."""
    limits = who.limits
    return msgspec.structs.replace(
        request,
        principal=who.name,
        hosts=who.hosts,
        kept=Right.OWN in who.rights,
        priority=max(request.priority, limits.priority),
        share=limits.share,
    )


@functools.lru_cache(maxsize=1024)
def _any_of(patterns: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(map(fnmatch.translate, patterns)))


def _unsure() -> StoreUnavailable:
    return StoreUnavailable(
        "which keys there are is not known yet: the database does not answer", retry_after=AGAIN_SECONDS
    )
