"""Generations that are about to be: they can be stopped before they begin."""

import asyncio
import time

import pytest

from gateway.record import CancelSource
from gateway.relay.generations import Generations


@pytest.mark.parametrize("name", ["g1", "talk"])
async def test_stopping_what_has_not_begun(name: str) -> None:
    """By its id or its session, once; what was announced before that long, or has been withdrawn, is nobody's any more."""
    generations = Generations(asyncio.get_running_loop(), time.monotonic, time.time, ())
    with generations.intend("g1", "talk") as intent:
        assert generations.intended("g1") is intent
        assert generations.stop_named(name, CancelSource.OPERATOR, "early", older_than=60.0) == 0
        assert generations.stop_named("another", CancelSource.OPERATOR, "other") == 0
        assert intent.stopped is None
        assert generations.stop_named(name, CancelSource.OPERATOR, "enough") == 1
        assert not intent.stop(CancelSource.CLIENT, "late")
        assert intent.stopped == (CancelSource.OPERATOR, "enough")
        assert repr(intent) == "<Intent g1 [talk]>"
    assert generations.intended("g1") is None
    assert generations.stop_named(name, CancelSource.OPERATOR, "enough") == 0
