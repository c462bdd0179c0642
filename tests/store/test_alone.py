"""Two gateways on one SQLite file: the second is told."""

import logging
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.store.alone import Claim
from tests.builders import call, simulated
from tests.conftest import Corral

HOLD = "import sys; from pathlib import Path; from gateway.store.alone import Claim; print(Claim(Path(sys.argv[1])).take(), flush=True); sys.stdin.read()"


def test_a_file_is_one_gateways(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As long as it has it."""
    file = tmp_path / "corral.db"
    first, second = Claim(file), Claim(file)
    assert first.take()
    assert not caplog.records
    assert not second.take()
    assert "another gateway uses" in caplog.text
    first.close()
    assert second.take()
    second.close()
    second.close()


def test_a_process_that_died(tmp_path: Path) -> None:
    """Has let it go."""
    file = tmp_path / "corral.db"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "True\n"
        claim = Claim(file)
        assert not claim.take()
        other.kill()
        other.wait()
        assert claim.take()
        claim.close()


def test_a_folder_that_is_not_there(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Is the database's to tell."""
    caplog.set_level(logging.INFO)
    claim = Claim(tmp_path / "none" / "corral.db")
    assert claim.take()
    claim.close()
    assert not caplog.records


async def test_two_gateways_on_one_file(
    corral: Corral, migrated_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Both serve, and the log of the second says it."""
    file = tmp_path / "corral.db"
    shutil.copy(migrated_file, file)
    host = simulated()
    for told in (0, 1):
        stage = await corral(host, database={"url": f"sqlite:///{file}"})
        assert len([record for record in caplog.records if "another gateway uses" in record.getMessage()]) == told
        assert (await stage.ask(call("/api/generate"))).status == 200
