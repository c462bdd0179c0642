"""What may be done, and which role may do it. One table says what each endpoint takes; nothing else decides."""

from collections.abc import Mapping
from enum import StrEnum


class Right(StrEnum):
    """What an endpoint needs."""

    NONE = "none"  # anybody may, whoever they are: whether this is alive
    READ = "read"  # the models of the fleet, as an Ollama tells them
    WATCH = "watch"  # the hosts, how they are, metrics
    INFER = "infer"
    OWN = "own"  # sessions and what is kept of requests: one's own
    MANAGE = "manage"  # models on hosts' disks, and the jobs that change them
    OPERATE = "operate"  # hosts, and to know of what others run and ran
    ADMIN = "admin"  # keys, and the account that hosts have at ollama.com


class KeyRole(StrEnum):
    """What a key is for."""

    USER = "user"
    OPERATOR = "operator"
    ADMIN = "admin"


CHANGING = (Right.MANAGE, Right.OPERATE, Right.ADMIN)
"""Who uses one of these to change something is written down."""

_USER = frozenset((Right.NONE, Right.READ, Right.WATCH, Right.INFER, Right.OWN))
RIGHTS: Mapping[KeyRole, frozenset[Right]] = {
    KeyRole.USER: _USER,
    KeyRole.OPERATOR: _USER | {Right.MANAGE, Right.OPERATE},
    KeyRole.ADMIN: frozenset(Right),
}
ANONYMOUS: Mapping[str, frozenset[Right]] = {
    "none": frozenset((Right.NONE,)),
    "inference": frozenset((Right.NONE, Right.READ, Right.WATCH, Right.INFER)),
    "full": frozenset(Right),
}
"""Of callers without a key, by ``access.anonymous``. What belongs to nobody could be anybody's: only where all may do all is it shown."""

IN_WORDS: Mapping[str, str] = {
    "none": "may do nothing but ask whether it is alive",
    "inference": "may look at the fleet and use every model, but change nothing and keep no sessions",
    "full": "may do everything",
    KeyRole.USER: "may look at the fleet, use models and keep sessions; sees of requests and sessions its own alone",
    KeyRole.OPERATOR: "may do so, and change models and hosts, and see and stop what others run, but not read it",
    KeyRole.ADMIN: "may do so, and make and revoke keys",
}
"""What each may, for people."""

_TABLE = {
    Right.NONE: ("GET /", "GET /healthz", "GET /readyz"),
    Right.READ: (
        "GET /api/version",
        "GET /api/tags",
        "GET /api/ps",
        "GET /v1/models",
        "GET /v1/models/{model}",
        "POST /api/show",
        "GET /api/status",
        "GET /openapi.json",
    ),
    Right.WATCH: (
        "GET /api/models/servers",
        "GET /api/models/server/models",
        "GET /api/fleet",
        "POST /api/route/explain",
        "GET /metrics",
        "GET /healthz/storage",
    ),
    Right.INFER: (
        "POST /api/generate",
        "POST /api/chat",
        "POST /api/embed",
        "POST /api/embeddings",
        "POST /v1/chat/completions",
        "POST /v1/completions",
        "POST /v1/embeddings",
        "POST /v1/responses",
        "POST /v1/messages",
        "POST /v1/audio/transcriptions",
        "GET /api/generations/{id}",
        "DELETE /api/generations/{id}",
        "GET /api/generations/{id}/stream",
        "POST /api/chat/cancel/{id}",
        "POST /api/experimental/web_search",
        "POST /api/experimental/web_fetch",
        "GET /api/experimental/model-recommendations",
    ),
    Right.OWN: (
        "GET /api/generations",
        "GET /api/queue",
        "POST /api/sessions",
        "GET /api/sessions",
        "GET /api/sessions/{id}",
        "PATCH /api/sessions/{id}",
        "DELETE /api/sessions/{id}",
        "POST /api/sessions/{id}/restore",
        "POST /api/sessions/{id}/cancel",
        "POST /api/sessions/{id}/chat",
        "POST /api/sessions/{id}/title",
        "GET /api/sessions/{id}/messages",
        "POST /api/sessions/{id}/messages",
        "GET /api/sessions/{id}/branches",
        "GET /api/sessions/{id}/export",
        "GET /api/sessions/{id}/export.md",
        "POST /api/import",
        "GET /api/search",
        "POST /api/chat/multi-model",
        "GET /api/stats/summary",
        "GET /api/stats/timeseries",
        "GET /api/stats/models",
        "GET /api/stats/hosts",
        "GET /api/stats/errors",
        "GET /api/stats/pairs",
        "GET /api/stats/breakdown",
        "GET /api/requests",
        "GET /api/requests/{id}",
        "GET /api/usage",
        "GET /api/stats/principals",
    ),
    Right.MANAGE: (
        "POST /api/pull",
        "POST /api/push",
        "POST /api/create",
        "POST /api/copy",
        "DELETE /api/delete",
        "HEAD /api/blobs/{digest}",
        "POST /api/blobs/{digest}",
        "GET /api/jobs",
        "GET /api/jobs/{id}",
        "DELETE /api/jobs/{id}",
    ),
    Right.OPERATE: ("POST /api/hosts/{name}/drain", "POST /api/hosts/{name}/resume"),
    Right.ADMIN: (
        "GET /api/keys",
        "GET /api/audit",
        "POST /api/keys",
        "PATCH /api/keys/{name}",
        "POST /api/keys/{name}/rotate",
        "DELETE /api/keys/{name}",
        "POST /api/me",
        "POST /api/signout",
        "DELETE /api/user/keys/{key}",
    ),
}
NEEDS: Mapping[str, Right] = {endpoint: right for right, endpoints in _TABLE.items() for endpoint in endpoints}
"""``METHOD /path`` → the right that it needs. An unload (an empty prompt and keep_alive 0) needs MANAGE beside."""


def needed(method: str, route: str) -> Right:
    """The right for a route's template; an endpoint that is not in the table needs every right there is."""
    right = NEEDS.get(f"{method} {route}")
    if right is None and method == "HEAD":
        right = NEEDS.get(f"GET {route}")
    return right or Right.ADMIN


def behind(method: str, route: str) -> bool:
    """Whether an endpoint is for operators and their machines: not at ``listen``, where there is an ``admin.listen``."""
    return route == "/readyz" or needed(method, route) in (Right.WATCH, *CHANGING)
