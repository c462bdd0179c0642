"""The files that make containers, read as Docker reads them."""

import json
import re
import shlex
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).parent.parent.parent
_VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")


def text(name: str) -> str:
    """A file of the tree."""
    return (ROOT / name).read_text(encoding="utf-8")


def environment(written: str) -> dict[str, str]:
    """A file like .env."""
    lines = (line.partition("=") for line in written.splitlines() if line and not line.startswith("#"))
    return {name: value for name, _, value in lines}


def variables(written: str) -> set[str]:
    """The variables that a composition takes."""
    return {name for name, _, _ in _VARIABLE.findall(written)}


def composition(given: Mapping[str, str]) -> dict[str, Any]:
    """docker-compose.yml with variables put in. ValueError: one that must be given is not."""

    def value(found: re.Match[str]) -> str:
        name, kind, rest = found.groups()
        if given.get(name):
            return given[name]
        if kind == "?":
            raise ValueError(f"{name}: {rest}")
        return rest or ""

    kept: dict[str, Any] = yaml.safe_load(_VARIABLE.sub(value, text("docker-compose.yml")))
    return kept


class Instruction(NamedTuple):
    """A line of a Dockerfile."""

    word: str
    rest: str


class Image:
    """What a Dockerfile says of one of its images, by default the last, and what all stages take from the tree. ValueError: no such target."""

    def __init__(self, written: str, target: str | None = None) -> None:
        joined = re.sub(r"\\\n", " ", re.sub(r"^\s*#.*\n", "", written, flags=re.MULTILINE))
        lines = [Instruction(*line.split(None, 1)) for line in joined.splitlines() if line.strip()]
        starts = [n for n, line in enumerate(lines) if line.word == "FROM"]
        stages = {}
        for start, end in pairwise([*starts, len(lines)]):
            base, _, name = lines[start].rest.partition(" AS ")
            stages[name] = (base, lines[start + 1 : end])
        self.pythons = {base for base, _ in stages.values() if base not in stages}
        stage = target if target is not None else list(stages)[-1]
        if stage not in stages:
            raise ValueError(f"no stage is called {stage!r}")
        self.last: list[Instruction] = []
        while stage in stages:
            stage, said = stages[stage]
            self.last = said + self.last
        copies = [line.rest.split() for line in lines if line.word == "COPY" and "--from" not in line.rest]
        self.sources = [source for copy in copies for source in copy[:-1]]
        runs = " ".join(line.rest for line in lines if line.word == "RUN")
        self.extras = set(re.findall(r"\.whl\)\[(\w+)\]", runs))

    def one(self, word: str) -> str:
        """The rest of the one line that begins so, of the image's stage or those it is made from."""
        (found,) = [line.rest for line in self.last if line.word == word]
        return found

    @property
    def environ(self) -> dict[str, str]:
        """Its variables."""
        pairs = [part for line in self.last if line.word == "ENV" for part in shlex.split(line.rest)]
        return dict(pair.split("=", 1) for pair in pairs)

    @property
    def command(self) -> list[str]:
        """What it runs: entry point and arguments."""
        return [*json.loads(self.one("ENTRYPOINT")), *json.loads(self.one("CMD"))]

    @property
    def healthcheck(self) -> list[str]:
        """The command that says whether it lives."""
        check: list[str] = json.loads(self.one("HEALTHCHECK").partition("CMD")[2])
        return check
