"""Files of hosts: what an entry can say, and what is refused."""

import asyncio
import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from gateway.config import HostConfig
from gateway.errors import ConfigError
from gateway.fleet.hostfile import HostFiles, read_targets
from tests.builders import call, simulated
from tests.conftest import Corral
from tests.fleet.builders import written
from tests.fleet.mount import Hanging
from tests.stage import SECONDS
from tests.tls import Authority, Front


def test_an_address_without_a_port(tmp_path: Path) -> None:
    """Is where an Ollama listens, as everywhere."""
    file = Path(written(tmp_path / "hosts.json", [{"targets": ["10.0.0.7", "http://10.0.0.8"]}]))
    assert [(host.name, host.url) for host in read_targets(file, {})] == [
        ("10.0.0.7", "http://10.0.0.7:11434"),
        ("10.0.0.8", "http://10.0.0.8"),
    ]


YAML = """
- targets: ["10.0.0.7:11434"]
  labels: {name: gpu7, slots: 4, tags: "big, fast"}
- targets: [https://ollama.example/]
"""


@pytest.mark.parametrize("suffix", ["yml", "yaml"])
def test_yaml(tmp_path: Path, suffix: str) -> None:
    """Reads like JSON."""
    assert read_targets(Path(written(tmp_path / f"hosts.{suffix}", YAML)), {}) == [
        HostConfig("gpu7", "http://10.0.0.7:11434", 4, ("big", "fast")),
        HostConfig("ollama.example", "https://ollama.example/"),
    ]


def test_bad_yaml(tmp_path: Path) -> None:
    """One line says what is wrong."""
    with pytest.raises(ValueError, match="not YAML: "):
        read_targets(Path(written(tmp_path / "hosts.yml", "a: [")), {})


BOMB = "- &a {targets: ['h:1', 'h:2']}\n" + "- *a\n" * 50


def test_aliases(tmp_path: Path) -> None:
    """Are refused: a file of a megabyte could unfold to more than there is memory."""
    with pytest.raises(ValueError, match=r"aliases \(\*name\) are not taken"):
        read_targets(Path(written(tmp_path / "hosts.yml", BOMB)), {})


async def test_a_pipe(tmp_path: Path) -> None:
    """Is refused, as nobody may ever write into it."""
    os.mkfifo(tmp_path / "hosts.json")
    with pytest.raises(ValueError, match="it is no regular file"):
        await HostFiles().read(str(tmp_path / "hosts.json"), {})


async def test_a_mount_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is asked once at a time, and whoever asks once it has answered gets what it said. Who leaves meanwhile leaves it to the next."""
    monkeypatch.setattr("gateway.fleet.hostfile.FILES_SECONDS", 0.05)
    file = written(tmp_path / "hosts.json", [{"targets": ["10.0.0.7:11434"]}])
    mount, files = Hanging(monkeypatch, file), HostFiles()
    for _ in range(2):
        with pytest.raises(TimeoutError, match=r"not read within 0\.05 s"):
            await files.read(file, {})
    monkeypatch.setattr("gateway.fleet.hostfile.FILES_SECONDS", SECONDS)
    with pytest.raises(TimeoutError, match=r"^$"):
        async with asyncio.timeout(0.01):
            await files.read(file, {})
    assert mount.asked.acquire(timeout=SECONDS)
    assert not mount.asked.acquire(blocking=False)
    mount.answers.set()
    assert [host.name for host in await files.read(file, {})] == ["10.0.0.7-11434"]
    written(Path(file), [])
    assert await files.read(file, {}) == []


async def test_a_system_that_gives_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Says so in its own words."""

    def gives_up(_path: Path, **_more: Any) -> None:
        raise TimeoutError(errno.ETIMEDOUT, "Connection timed out")

    monkeypatch.setattr(Path, "stat", gives_up)
    with pytest.raises(TimeoutError, match="Connection timed out"):
        await HostFiles().read(str(tmp_path / "hosts.json"), {})


LINK = {
    "ca": "ca.pem",
    "server_name": "gpu7.example",
    "cert": "corral.crt",
    "key": "corral.key",
    "vram_bytes": 24_000_000_000,
    "headers": {"X-Team": "ml"},
    "headers_env": {"Authorization": "GPU_AUTHORIZATION"},
}


def test_what_a_configured_host_has(tmp_path: Path) -> None:
    """An entry has it too, for all of its targets."""
    entry = {"targets": ["https://10.0.0.7", "https://10.0.0.8"]} | LINK
    hosts = read_targets(Path(written(tmp_path / "hosts.json", [entry])), {"GPU_AUTHORIZATION": "Bearer of-the-host"})
    assert hosts == [
        HostConfig(
            address,
            f"https://{address}",
            vram_bytes=24_000_000_000,
            ca="ca.pem",
            server_name="gpu7.example",
            cert="corral.crt",
            key="corral.key",
            headers={"X-Team": "ml", "Authorization": "Bearer of-the-host"},
        )
        for address in ("10.0.0.7", "10.0.0.8")
    ]
    (trusting,) = read_targets(
        Path(written(tmp_path / "hosts.json", [{"targets": ["https://a"], "insecure_skip_verify": True}])), {}
    )
    assert trusting.insecure_skip_verify


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a field that there is not": ({"ca_file": "x"}, r"there is no field .*ca_file"),
    "a CA without TLS": ({"targets": ["http://a"], "ca": "x"}, "ca is for a host by TLS, and its url begins with http"),
    "a key alone": ({"key": "x"}, "key is that of a certificate"),
    "trusts all and one": ({"ca": "x", "insecure_skip_verify": True}, "leave one of them out"),
    "no text": ({"ca": 1}, "ca must be a text, not a whole number"),
    "no yes or no": ({"insecure_skip_verify": "yes"}, "insecure_skip_verify must be true or false, not a text"),
    "less memory than none": ({"vram_bytes": -1}, "vram_bytes must be at least 0"),
    "a file that cannot be": ({"ca": "/a\0"}, r"ca = '/a\\x00': it has characters that cannot stand there"),
    "a name that cannot be": ({"server_name": "a\0b"}, "server_name = .*characters that cannot stand there"),
    "half a character": ({"labels": {"tags": "big,\ud800"}}, r"tags = '\\ud800': it has characters"),
    "two lines of a request": ({"targets": ["https://a/b\r\nX-A: b"]}, "url = .*characters that cannot stand there"),
    "a path with a space": ({"targets": ["https://a/b HTTP/1.0"]}, "url = .*characters that cannot stand there"),
    "our own header": ({"headers": {"Host": "secret"}}, "'Host' is no header that can be set"),
    "two lines": ({"headers": {"X-A": "secret\r\nX-B: b"}}, "the value of X-A must be one line"),
    "too many": ({"headers": {f"X-{n}": "secret" * 100 for n in range(30)}}, "headers are over 16384 bytes"),
    "a variable that files may not name": (
        {"headers_env": {"X-A": "CORRAL_ACCESS_PEPPER"}},
        "discovery.secrets_env does not name CORRAL_ACCESS_PEPPER",
    ),
}


@pytest.mark.parametrize(("more", "words"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(tmp_path: Path, more: dict[str, Any], words: str) -> None:
    """The whole file is, in words, without the value of any header."""
    file = written(tmp_path / "hosts.json", [{"targets": ["https://a"]} | more])
    with pytest.raises((ValueError, ConfigError), match=words) as refused:
        read_targets(Path(file), {"GPU_AUTHORIZATION": "secret"})
    assert "secret" not in str(refused.value).replace("secrets_env", "")


async def test_a_host_by_tls_that_comes_and_changes(corral: Corral, tmp_path: Path) -> None:
    """It is reached with what its entry says, from the next look on; a mistake changes nothing; files that are not there are told as its health."""
    authority = Authority(tmp_path)
    ours = authority.pair("ours")
    front = Front(simulated(), authority.pair("host"), wants=authority.ca)
    file = tmp_path / "hosts.json"
    async with front:
        entry: dict[str, Any] = {"targets": [front.url], "labels": {"name": "gpu7"}}
        good = entry | {
            "ca": authority.ca,
            "cert": ours.cert,
            "key": ours.key,
            "headers_env": {"Authorization": "GPU_AUTHORIZATION"},
        }
        discovery = {"files": (written(file, []),), "secrets": {"GPU_AUTHORIZATION": "Bearer of-the-host"}}
        stage = await corral(simulated(), discovery=discovery, poll={"interval_seconds": 0.05})

        async def told(value: Any) -> dict[str, Any]:
            written(file, value)
            await stage.gateway.discovery.step()
            if value:
                await stage.polled("gpu7")
            rows = (await stage.get("/api/models/servers"))["servers"]
            return {row["name"]: row for row in rows}

        assert (await told([good]))["gpu7"]["health"] == "healthy"
        answer = await stage.ask(call("/api/generate", tokens=3, headers={"X-Corral-Host": "gpu7"}))
        assert answer.status == 200
        assert b"authorization: bearer of-the-host" in bytes(front.heard).lower()
        assert (await told([good | {"ca_file": "x"}]))["gpu7"]["health"] == "healthy"
        away = (await told([good | {"ca": "/away.pem"}]))["gpu7"]
        assert "ca = '/away.pem': No such file or directory" in away["why"]
        assert (await told([good]))["gpu7"]["health"] == "healthy"
        assert set(await told([])) == {"gpu1"}
        rows = json.dumps((await stage.get("/api/fleet"))["hosts"]) + stage.log.read_text(encoding="utf-8")
        assert "of-the-host" not in rows


async def test_no_hosts_at_all(corral: Corral, tmp_path: Path) -> None:
    """A request is told so."""
    stage = await corral(discovery={"files": (written(tmp_path / "hosts.json", []),)})
    answer = await stage.ask(call("/api/generate"))
    assert (answer.status, "Retry-After" in dict(answer.headers)) == (503, True)
    assert json.loads(answer.body)["error"].endswith(": no host is configured or found now")
