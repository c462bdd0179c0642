"""``CORRAL_TEST_OLLAMA`` works: the conformance suite, let loose on hosts of another process, finds them well and leaves nothing behind."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from tests.builders import EMBEDDING, TEXT, simulated
from tests.real import REAL

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.skipif(bool(REAL), reason="the suite runs against the hosts in CORRAL_TEST_OLLAMA itself")
async def test_conformance_of_real_hosts() -> None:
    """They have other models than the simulated ones have, and say other words."""
    arguments = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/contract/test_conformance.py")
    text, embedding = "qwen3:0.6b", "nomic-embed-text:latest"
    assert {text, embedding}.isdisjoint({TEXT, EMBEDDING})
    async with simulated("a", text, embedding, seed=2) as a, simulated("b", text, embedding, seed=2) as b:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, *arguments, "-k", "odd or copy or delete"),
            cwd=ROOT,
            env=os.environ | {"CORRAL_TEST_OLLAMA": f"{a.url},{b.url}/"},
            stdout=asyncio.subprocess.PIPE,
        )
        said, _ = await process.communicate()
        assert process.returncode == 0, said.decode()
        assert b" passed" in said
        assert [sorted(model.name.short for model in host.store.newest_first()) for host in (a, b)] == [
            sorted((text, embedding))
        ] * 2
        assert all(host.ledger.requests["/api/copy"] for host in (a, b))
