"""Reads as much of a branch as fits into a window, from its end."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial

from gateway.messages import Message
from gateway.store.messages import Messages
from gateway.turns.aside import Aside
from gateway.turns.history import Window

PAGE = 64
"""Messages that are read at a time."""


def _as_it_is(messages: Iterable[Message]) -> Sequence[Message]:
    return list(messages)


def _take(window: Window, view: Callable[[Iterable[Message]], Sequence[Message]], page: Sequence[Message]) -> None:
    window.take(view(page))


async def fill(
    window: Window,
    aside: Aside,
    kept: Messages,
    owner: str,
    session: str,
    leaf: int | None,
    view: Callable[[Iterable[Message]], Sequence[Message]] = _as_it_is,
) -> None:
    """Take in the branch that ends with ``leaf``, as ``view`` shows it. Raises StoreUnavailable, NotFound."""
    while leaf is not None and not window.full:
        page = await kept.history(owner, session, leaf, min(PAGE, window.most))
        await aside.do(partial(_take, window, view, page))
        leaf = page[0].parent
