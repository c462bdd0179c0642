"""`corral keys`: a key is shown once, is good at once, and nobody can tell it again."""

import asyncio
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from gateway.access.keys import PREFIX, digest
from gateway.checked import checked
from gateway.cli import main
from gateway.loader import load

Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """What `corral keys …` prints, with a database of its own."""
    monkeypatch.setenv("CORRAL_DATABASE_URL", f"sqlite:///{tmp_path}/corral.db")
    monkeypatch.chdir(tmp_path)

    def ran(*arguments: str, code: int = 0) -> str:
        assert main(["keys", *arguments]) == code
        said = capsys.readouterr()
        return said.err if code else said.out

    return ran


def test_from_the_first_to_the_last_step(run: Run, tmp_path: Path) -> None:
    """Create, list, rotate, revoke; what is kept is a digest, and what was done stands in the audit."""
    assert "there are no keys" in run("list")
    made = run(
        "create", "ann", "--role", "user", "--models", "llama3*, qwen*", "--hosts", "gpu1", "--expires", "2099-01-31"
    )
    key = made.split()[0]
    assert key.startswith(PREFIX)
    assert "callers without one may do nothing" in made
    (line,) = run("list").splitlines()[1:]
    assert line.split(maxsplit=4)[:2] == ["ann", "user"]
    assert line.endswith("2099-01-31         llama3*, qwen*, at gpu1")
    other = run("rotate", "ann").split()[0]
    assert other.startswith(PREFIX)
    assert other != key
    with closing(sqlite3.connect(tmp_path / "corral.db")) as database:
        assert database.execute("SELECT digest FROM keys").fetchall() == [(digest(other),)]
    assert (tmp_path / "corral.db").read_bytes().find(PREFIX.encode()) < 0
    assert "also when the last one is revoked" in run("revoke", "ann")
    assert f"revoked {time.strftime('%Y-%m-%d', time.gmtime())}" in run("list").splitlines()[1]
    assert "say `again`" in run("create", "ann", code=1)
    assert run("create", "ann", "--again").startswith(PREFIX)
    with closing(sqlite3.connect(tmp_path / "corral.db")) as database:
        deeds = database.execute("SELECT operation, target, status FROM audit ORDER BY id").fetchall()
    assert deeds == [(f"corral keys {step}", "ann", 200) for step in ("create", "rotate", "revoke", "create")]


def test_limits(run: Run) -> None:
    """Given when it is made, and otherwise later; what is wrong with one is said."""
    run(
        "create",
        "app",
        "--rpm",
        "60",
        "--tpm",
        "20000",
        "--concurrency",
        "4",
        "--budget",
        "100/day",
        "--budget",
        "900/month",
    )
    assert run("list").splitlines()[1].endswith("all; 60 rpm, 20000 tpm, 4 at a time, 100/day, 900/month")
    said = run("limit", "app", "--rpm", "0", "--budget", "500/day", "--priority", "normal", "--share", "2")
    assert said == "app: 20000 tpm, 4 at a time, 500/day, at most normal, share 2\n"
    assert "no limits" in run(
        *(
            "limit",
            "app",
            "--tpm",
            "0",
            "--concurrency",
            "0",
            "--budget",
            "0/day",
            "--priority",
            "interactive",
            "--share",
            "1",
        )
    )
    assert "write tokens like 1000000/day" in run("limit", "app", "--budget", "5/week", code=1)
    assert "there is no key 'nobody'" in run("limit", "nobody", "--rpm", "5", code=1)
    assert "rpm = -1: at least 1" in run("create", "other", "--rpm", "-1", code=1)
    assert "app" in run("list")
    assert "other" not in run("list")


def test_a_key_for_the_configuration(run: Run, tmp_path: Path) -> None:
    """What `hash` prints can be put there as it is; the name is to be filled in. No database is needed for it."""
    said = run("hash", "--database", "none")
    key, lines = said.split()[0], said[said.index("[[keys]]") :].replace('name = ""', 'name = "ann"')
    file = tmp_path / "corral.toml"
    file.write_text(f'[[hosts]]\nname = "gpu1"\nurl = "http://127.0.0.1:1"\n\n{lines}')
    (configured,) = checked(load(file, {})).keys
    assert (configured.name, configured.role, configured.hash) == ("ann", "user", digest(key))
    assert "'ann'" in run("create", "ann", code=1)
    assert "ann" in run("list")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("create", "no spaces"), "letters, digits"),
        (("create", "ann", "--expires", "soon"), "expires = 'soon' is no day"),
        (("create", "ann", "--expires", "0001-01-01"), "is long past"),
        (("create", "ann", "--expires", "2026-01-01"), "is past"),
        (("create", "ann", "--budget", "0/day"), "would be none"),
        (("create", "ann", "--role", "admin", "--models", "llama3*"), "the role admin is not limited"),
        (("rotate", "bob"), "there is no key 'bob'"),
        (("revoke", "bob"), "there is no key 'bob'"),
        (("create", "ann", "--database", "none"), "there is no database"),
    ],
)
def test_what_cannot_be(run: Run, arguments: tuple[str, ...], said: str) -> None:
    """Is told in words, with an exit code of 1."""
    assert said in run(*arguments, code=1)


@pytest.mark.parametrize("said", ["", " , "])
def test_a_list_that_names_nothing(run: Run, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Is a mistake, as of a variable that is not set: it must not mean all."""
    for option in ("--models", "--hosts"):
        with pytest.raises(SystemExit):
            run("create", "ann", option, said)
        assert "names none" in capsys.readouterr().err


def test_a_name_once(run: Run) -> None:
    """A second key of one name would be somebody else's."""
    run("create", "ann")
    assert "there is a key 'ann' already" in run("create", "ann", code=1)


async def test_a_pepper_makes_other_digests(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A stolen database is of no use to try keys with."""
    monkeypatch.setenv("CORRAL_ACCESS_PEPPER", "a secret")
    key = (await asyncio.to_thread(run, "create", "ann")).split()[0]
    with closing(sqlite3.connect(tmp_path / "corral.db")) as database:
        assert database.execute("SELECT digest FROM keys").fetchall() == [(digest(key, "a secret"),)]
