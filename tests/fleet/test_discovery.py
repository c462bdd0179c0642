"""Hosts are found where they are told of, and stay when a source fails."""

import asyncio
import logging
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.config import Config, DiscoveryConfig, HostConfig
from gateway.errors import ConfigError
from gateway.fleet.discovery import HOSTS_LIMIT, Discovery, tell_changes
from gateway.fleet.host import Host
from gateway.fleet.hostfile import FILE_LIMIT_BYTES, read_targets
from tests.fleet.builders import written
from tests.fleet.mount import Hanging

STATIC = HostConfig("gpu1", "http://10.0.0.5:11434", 2, ("big",))
LOCAL = HostConfig("ollama", "dns+http://localhost:11434", 4, ("dns",))


class Found:
    """A discovery and what it told."""

    def __init__(self, *hosts: HostConfig, files: tuple[str, ...] = ()) -> None:
        self.told: list[tuple[Host, ...]] = []
        self.discovery = Discovery(Config(hosts=hosts, discovery=DiscoveryConfig(files)), self.told.append)

    async def step(self) -> list[str]:
        """Look once; the names that were told last."""
        await self.discovery.step()
        return [host.name for host in self.told[-1]] if self.told else []


def warned(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The warnings so far."""
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


async def test_what_is_configured() -> None:
    """Is told once, with everything that is said of it."""
    found = Found(STATIC)
    await found.step()
    await found.step()
    assert found.told == [(Host("gpu1", "http://10.0.0.5:11434", 2, ("big",)),)]


async def test_a_name_with_addresses() -> None:
    """One host for each address, with the name's slots and tags."""
    found = Found(LOCAL)
    await found.step()
    (hosts,) = found.told
    assert {host.url for host in hosts} <= {"http://127.0.0.1:11434", "http://[::1]:11434"}
    assert "http://127.0.0.1:11434" in {host.url for host in hosts}
    for host in hosts:
        assert host.name.startswith("ollama-")
        assert (host.slots, host.tags) == (4, ("dns",))


def test_changes_in_words(caplog: pytest.LogCaptureFixture) -> None:
    """Of a host that stays, what is another value; nothing where nothing is."""
    one, two, three = Host("gpu1", "http://a"), Host("gpu2", "http://b"), Host("gpu3", "http://c")
    now = (msgspec.structs.replace(one, slots=4, tags=("big",)), three)
    caplog.set_level(logging.INFO)
    tell_changes((one, two), now)
    tell_changes((one, two), (one, two))
    assert caplog.messages == ["hosts: added gpu3; changed gpu1 (slots, tags); removed gpu2"]


async def test_a_name_server_that_fails(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """What was found last stays; it is logged once, and again after it had worked."""
    found = Found(LOCAL, STATIC)
    before = await found.step()
    loop = asyncio.get_running_loop()
    resolve = loop.getaddrinfo

    async def fails(*_args: Any, **_rest: Any) -> Any:
        raise OSError("no such name")

    for answer, warnings in ((fails, 1), (fails, 1), (resolve, 1), (fails, 2)):
        monkeypatch.setattr(loop, "getaddrinfo", answer)
        assert await found.step() == before
        assert len(warned(caplog)) == warnings


async def test_a_name_that_never_resolved(caplog: pytest.LogCaptureFixture) -> None:
    """Is no host; the others are."""
    found = Found(HostConfig("x", "dns+http://does-not-exist.invalid:1"), STATIC)
    assert await found.step() == ["gpu1"]
    assert "dns+http://does-not-exist.invalid:1 tells no hosts" in caplog.text


async def test_a_file(tmp_path: Path) -> None:
    """Its hosts come after those of the configuration, and go with it."""
    file = tmp_path / "hosts.json"
    found = Found(STATIC, files=(written(file, [{"targets": ["10.0.0.7:11434"], "labels": {"name": "gpu7"}}]),))
    assert await found.step() == ["gpu1", "gpu7"]
    written(file, [{"targets": ["10.0.0.8:11434", "http://10.0.0.9:1/x"]}])
    assert await found.step() == ["gpu1", "10.0.0.8-11434", "10.0.0.9-1"]
    written(file, [])
    assert await found.step() == ["gpu1"]


BAD: dict[str, Any] = {
    "not JSON": "[",
    "an object": {"targets": []},
    "no targets": [{"labels": {}}],
    "targets of a wrong type": [{"targets": "10.0.0.7"}],
    "slots": [{"targets": ["a:1"], "labels": {"slots": "many"}}],
    "fewer slots than none": [{"targets": ["a:1"], "labels": {"slots": -1}}],
    "a URL with a user": [{"targets": ["http://me@a:1"]}],
    "a scheme": [{"targets": ["ftp://a:1"]}],
    "nothing": [{"targets": [""]}],
    "twice": [{"targets": ["a:1", "a:1"]}],
    "a field that there is not": [{"targets": ["https://a"], "ca_file": "ca.pem"}],
    "a CA without TLS": [{"targets": ["a:1"], "ca": "ca.pem"}],
    "a name with addresses": [{"targets": ["dns+http://a:1"]}],
    "too long": "[" + " " * FILE_LIMIT_BYTES + "]",
}


@pytest.mark.parametrize("value", BAD.values(), ids=BAD)
async def test_a_bad_file(tmp_path: Path, value: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Changes nothing, and is logged with its name."""
    file = tmp_path / "hosts.json"
    found = Found(files=(written(file, [{"targets": ["10.0.0.7:11434"]}]),))
    before = await found.step()
    written(file, value)
    with pytest.raises((ValueError, ConfigError)):
        read_targets(file, {})
    with caplog.at_level(logging.WARNING):
        assert await found.step() == before
    assert str(file) in caplog.text


async def test_a_file_that_is_not_there_yet(tmp_path: Path) -> None:
    """Is waited for."""
    file = tmp_path / "hosts.json"
    found = Found(files=(str(file),))
    assert await found.step() == []
    written(file, [{"targets": ["10.0.0.7:11434"]}])
    assert await found.step() == ["10.0.0.7-11434"]


async def test_a_mount_that_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Holds up no other source, and is logged."""
    monkeypatch.setattr("gateway.fleet.hostfile.FILES_SECONDS", 0.05)
    hung = written(tmp_path / "hung.json", [])
    mount = Hanging(monkeypatch, hung)
    found = Found(STATIC, files=(hung, written(tmp_path / "hosts.json", [{"targets": ["10.0.0.7:11434"]}])))
    assert await found.step() == ["gpu1", "10.0.0.7-11434"]
    assert warned(caplog) == [f"{hung} tells no hosts: not read within 0.05 s"]
    mount.answers.set()


async def test_a_source_that_fails_in_turn(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Each other failure is logged, once, and that it is over."""
    caplog.set_level(logging.INFO)
    file = tmp_path / "hosts.json"
    found = Found(files=(written(file, "["),))
    said = []
    for value in ("[", {"targets": []}, {"targets": []}, [], []):
        written(file, value)
        await found.step()
        said.append(len(caplog.records))
    assert said == [1, 2, 2, 3, 3]
    assert caplog.records[-1].getMessage() == f"{file} tells hosts again"


async def test_the_first_counts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of a name, and of a URL in any spelling; what is left out is logged once, and that it is over. The same host twice is no clash."""
    caplog.set_level(logging.INFO)
    file = tmp_path / "hosts.json"
    written(
        file,
        [
            {"targets": ["10.9.9.9:1"], "labels": {"name": "gpu1"}},
            {"targets": ["HTTP://10.0.0.5:11434/"], "labels": {"name": "gpu9"}},
        ],
    )
    again = written(tmp_path / "again.json", [{"targets": ["10.0.0.5:11434"], "labels": {"name": "gpu1"}}])
    found = Found(STATIC, files=(str(file), again))
    for _ in range(2):
        assert await found.step() == ["gpu1"]
        assert [host.url for host in found.told[-1]] == ["http://10.0.0.5:11434"]
        (told,) = warned(caplog)
        assert told == (
            "hosts that are told of and left out: gpu1 at http://10.9.9.9:1: the name is that of http://10.0.0.5:11434; "
            "gpu9 at HTTP://10.0.0.5:11434/: that is gpu1"
        )
    written(file, [])
    await found.step()
    assert caplog.records[-1].getMessage() == "no host that is told of is left out any more"


async def test_hosts_are_bounded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file cannot make the fleet as big as it likes, nor the log."""
    file = written(
        tmp_path / "hosts.json", [{"targets": [f"10.0.{n // 256}.{n % 256}:1" for n in range(HOSTS_LIMIT + 15)]}]
    )
    assert len(await Found(files=(file,)).step()) == HOSTS_LIMIT
    (told,) = warned(caplog)
    assert told.count(f"there are {HOSTS_LIMIT} hosts already") == 10
    assert told.endswith("; and 5 more")


async def test_another_configuration() -> None:
    """Is looked at in the next step."""
    found = Found(STATIC)
    await found.step()
    found.discovery.configure(Config(hosts=(HostConfig("gpu2", "http://10.0.0.6:11434"),)))
    assert await found.step() == ["gpu2"]


async def test_a_file_without_a_bottom(tmp_path: Path) -> None:
    """Nested too deeply is one more way to tell no hosts; the others stay."""
    file = tmp_path / "hosts.json"
    file.write_text("[" * 100_000, encoding="utf-8")
    found = Found(STATIC, files=(str(file),))
    await found.discovery.step()
    assert [host.name for host in found.told[-1]] == ["gpu1"]
