"""One word for what a field of a Struct means, where its JSON schema and the reference pages find it."""

from typing import Any

from msgspec import Meta


def doc(meaning: str, **constraints: Any) -> Meta:
    """For ``Annotated[float, doc("since it was received, in seconds")]``. ``constraints`` are msgspec's: ``ge``, ``min_length``, …"""
    return Meta(description=meaning, **constraints)
