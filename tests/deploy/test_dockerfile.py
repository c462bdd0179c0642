"""The Dockerfile: that it takes what it needs and nothing else."""

import fnmatch
import re

from tests.deploy.files import ROOT, Image, text

IMAGE = Image(text("Dockerfile"))


def ignored(path: str) -> bool:
    """Whether .dockerignore leaves a path out: the last line that matches counts, as it does for what lies in a folder."""
    out = False
    for line in text(".dockerignore").splitlines():
        if not line or line.startswith("#"):
            continue
        pattern = line.removeprefix("!").removeprefix("**/")
        parts = path.split("/")
        heads = ["/".join(parts[: n + 1]) for n in range(len(parts))]
        names = parts if "**/" in line else heads
        if any(fnmatch.fnmatchcase(name, pattern) for name in names):
            out = not line.startswith("!")
    return out


def test_what_it_takes() -> None:
    """Is there, and is not left out by .dockerignore."""
    assert {"gateway", "simulator", "pyproject.toml", "constraints.txt"} <= set(IMAGE.sources)
    assert [source for source in IMAGE.sources if not (ROOT / source).exists() or ignored(source)] == []
    assert not ignored("gateway/relay/relay.py")


def test_what_it_leaves() -> None:
    """Secrets, what others need, and what was compiled for this machine."""
    for path in (".env", "corral.toml", ".git/config", "tests/conftest.py", ".venv/bin/python", "corral.db"):
        assert ignored(path), path
    for path in ("gateway/relay/relay.cpython-312-x86_64-linux-gnu.so", "gateway/__pycache__/app.pyc"):
        assert ignored(path), path


def test_both_stages_have_one_python() -> None:
    """What is compiled for one fits no other."""
    assert len(set(IMAGE.stages)) == 1
    assert re.fullmatch(r"python:3\.\d+-slim-\w+", IMAGE.stages[0])


def test_it_says_what_it_is() -> None:
    """By label; and what it writes goes to a volume."""
    labels = IMAGE.one("LABEL")
    for name in ("title", "description", "licenses"):
        assert f"org.opencontainers.image.{name}=" in labels
    assert IMAGE.one("VOLUME") == IMAGE.environ["XDG_DATA_HOME"] == "/data"
    assert IMAGE.one("EXPOSE") in IMAGE.environ["CORRAL_LISTEN"]
