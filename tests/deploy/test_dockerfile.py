"""The Dockerfile: that it takes what it needs and nothing else."""

import fnmatch
import re
import tomllib

import pytest

from tests.deploy.files import ROOT, Image, text

IMAGE = Image(text("Dockerfile"))
APP = Image(text("Dockerfile"), "dashboard")
PROJECT = tomllib.loads(text("pyproject.toml"))


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
    packages = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert {*packages, "pyproject.toml", "constraints.txt"} <= set(IMAGE.sources)
    assert [source for source in IMAGE.sources if not (ROOT / source).exists() or ignored(source)] == []
    assert not ignored("gateway/relay/relay.py")


def test_what_it_leaves() -> None:
    """Secrets, what others need, and what was compiled for this machine."""
    for path in (".env", "corral.toml", ".git/config", "tests/conftest.py", ".venv/bin/python", "corral.db"):
        assert ignored(path), path
    for path in ("gateway/relay/relay.cpython-312-x86_64-linux-gnu.so", "gateway/__pycache__/app.pyc"):
        assert ignored(path), path


def test_its_extras() -> None:
    """There are such, and what they ask for is pinned."""
    known = PROJECT["project"]["optional-dependencies"]
    pinned = {line.partition("==")[0].lower() for line in text("constraints.txt").splitlines()}
    assert IMAGE.extras == {"tracing", "dashboard"}
    wanted = {re.match(r"[\w-]+", each)[0] for extra in IMAGE.extras for each in known[extra]}  # type: ignore[index]
    assert wanted <= pinned


def test_all_stages_have_one_python() -> None:
    """What is compiled for one fits no other."""
    (python,) = IMAGE.pythons
    assert re.fullmatch(r"python:3\.\d+-slim-\w+", python)


def test_its_images() -> None:
    """The gateway is what is built when nothing is said; each is healthy where it listens, and both are the same user."""
    assert IMAGE.command == Image(text("Dockerfile"), "gateway").command == ["corral", "serve"]
    assert APP.command[:2] == ["corral", "dashboard"]
    for image in (IMAGE, APP):
        assert image.one("USER") == "10001:10001"
        assert f"127.0.0.1:{image.one('EXPOSE')}/healthz" in image.healthcheck[-1]
    assert f"0.0.0.0:{APP.one('EXPOSE')}" in APP.command
    with pytest.raises(ValueError, match="'other'"):
        Image(text("Dockerfile"), "other")


def test_it_says_what_it_is() -> None:
    """By label; and what it writes goes to a volume."""
    for image in (IMAGE, APP):
        labels = image.one("LABEL")
        for name in ("title", "description", "licenses"):
            assert f"org.opencontainers.image.{name}=" in labels
    assert IMAGE.one("VOLUME") == IMAGE.environ["XDG_DATA_HOME"] == "/data"
    assert IMAGE.one("EXPOSE") in IMAGE.environ["CORRAL_LISTEN"]
