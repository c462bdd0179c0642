"""Every test of conversations runs on both kinds of database."""

from tests.store.conftest import fresh_url, kind, url

__all__ = ["fresh_url", "kind", "url"]
