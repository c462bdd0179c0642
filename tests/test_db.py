"""``corral db``: what each step says, and what it says of a database that is not there."""

import logging
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from gateway.cli import main
from gateway.store.migrate import HEAD


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Exit code and all that was said."""
    code = main(["db", *arguments])
    out = capsys.readouterr()
    return code, out.out + out.err


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test touches the data of whoever runs it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("XDG_DATA_HOME", "CORRAL_CONFIG", "CORRAL_DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)


def test_the_usual_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In the user's folder for data; no host need be named for this."""
    assert told(capsys, "migrate")[0] == 0
    assert (tmp_path / ".local/share/corral/corral.db").exists()
    code, text = told(capsys, "check")
    assert code == 0
    assert "sessions                      0 rows" in text
    assert "sound" in text


def test_copy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What was copied; into what is not empty nothing is."""
    one, other = f"sqlite:///{tmp_path}/one.db", f"sqlite:///{tmp_path}/other.db"
    assert told(capsys, "migrate", "--database", one)[0] == 0
    with closing(sqlite3.connect(tmp_path / "one.db")) as file:
        file.execute("INSERT INTO meta VALUES ('a', 'b')")
        file.commit()
    code, text = told(capsys, "copy", "--database", one, "--to", other)
    assert code == 0
    assert "meta                          1 rows" in text
    assert text.splitlines()[-1].startswith("equal")
    code, text = told(capsys, "copy", "--database", one, "--to", other)
    assert (code, "has rows in meta already" in text) == (1, True)
    assert "both databases are the same" in told(capsys, "copy", "--database", one, "--to", one)[1]


def test_copy_to_nowhere(tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    """Is told once, and which of the two it is."""
    one = f"sqlite:///{tmp_path}/one.db"
    assert told(capsys, "migrate", "--database", one)[0] == 0
    code, text = told(capsys, "copy", "--database", one, "--to", "postgresql://me:secret@127.0.0.1:1/x")
    assert code == 1
    assert text.startswith("corral: postgresql://me:***@127.0.0.1:1/x: the database is not available: ")
    assert text.count("not available") == 1
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_vacuum(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The sizes before and after."""
    url = f"sqlite:///{tmp_path}/x.db"
    assert told(capsys, "migrate", "--database", url) == (0, f"{url} is at revision {HEAD}\n")
    code, text = told(capsys, "vacuum", "--database", url)
    assert code == 0
    assert "MiB before" in text


def test_a_file_that_is_damaged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Is told to be so, and left as it is."""
    (tmp_path / "x.db").write_bytes(b"not a database, but long enough to be looked at" * 100)
    code, text = told(capsys, "check", "--database", f"sqlite:///{tmp_path}/x.db")
    assert code == 1
    assert "file is not a database" in text


def test_a_server_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    """Without the password."""
    code, text = told(capsys, "migrate", "--database", "postgresql://corral:secret@127.0.0.1:1/corral")
    assert code == 1
    assert "Connection refused" in text
    assert "secret" not in text


def test_nothing_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    """There is nothing to look after."""
    code, text = told(capsys, "check", "--database", "none")
    assert code == 1
    assert "there is no database: database.url is none" in text


def test_prune(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What went from where; or that nothing was over its time."""
    url = f"sqlite:///{tmp_path}/x.db"
    assert told(capsys, "migrate", "--database", url)[0] == 0
    assert told(capsys, "prune", "--database", url) == (0, "nothing is over its time\n")
    with closing(sqlite3.connect(tmp_path / "x.db")) as file:
        file.execute("INSERT INTO ingest_batches VALUES ('old', 1)")
        file.commit()
    assert told(capsys, "prune", "--database", url) == (0, "ingest_batches                1 rows deleted\n")


def test_export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """How many there were; to standard output only the file itself."""
    url = f"sqlite:///{tmp_path}/x.db"
    assert told(capsys, "migrate", "--database", url)[0] == 0
    code = main(["export", "--csv", str(tmp_path / "x.csv"), "--database", url])
    assert (code, capsys.readouterr().out) == (0, "0 requests\n")
    assert (tmp_path / "x.csv").read_text().startswith("ts_us,id,")
    assert main(["export", "--csv", "-", "--database", url, "--range", "1h", "--outcome", "failed"]) == 0
    out = capsys.readouterr()
    assert (out.out.startswith("ts_us,id,"), out.err) == (True, "0 requests\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--csv", "x.csv", "--range", "1y"], "--range='1y': write it like 15m"),
        (["--csv", "no/such/folder.csv"], "No such file or directory"),
        (["--parquet", "-"], "name a file"),
    ],
)
def test_exports_that_cannot_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    """Each is told why."""
    assert told(capsys, "migrate", "--database", f"sqlite:///{tmp_path}/x.db")[0] == 0
    assert main(["export", *arguments, "--database", f"sqlite:///{tmp_path}/x.db"]) == 1
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("step", ["check", "vacuum", "prune"])
def test_a_name_that_was_mistyped(tmp_path: Path, capsys: pytest.CaptureFixture[str], step: str) -> None:
    """Does not become a database."""
    code, text = told(capsys, step, "--database", f"sqlite:///{tmp_path}/typo.db")
    assert code == 1
    assert "there is nothing; corral db migrate makes the tables" in text
    assert not (tmp_path / "typo.db").exists()
