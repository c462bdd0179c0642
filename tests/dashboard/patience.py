"""Expectations of a page that are met soon after it meets them."""

from typing import Any

import playwright.sync_api

PATIENCE_MS = 20_000
"""How long is waited for what must come."""
BREATH_MS = 2_000
"""Whoever may wait longer in one go is looked after by Playwright twice a second only, else ten times."""


class Expected:
    """Playwright's assertions of a page or a locator, each tried again and again until PATIENCE_MS are over."""

    def __init__(self, of: Any) -> None:
        self._of = playwright.sync_api.expect(of)

    def __getattr__(self, name: str) -> Any:
        def met(*args: Any, **named: Any) -> None:
            for left in reversed(range(PATIENCE_MS // BREATH_MS)):
                try:
                    getattr(self._of, name)(*args, **named, timeout=BREATH_MS)
                except AssertionError:
                    if not left:
                        raise
                else:
                    return

        return met


def expect(of: Any) -> Expected:
    """In place of Playwright's own."""
    return Expected(of)
