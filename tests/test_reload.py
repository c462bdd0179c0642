"""A changed configuration is taken in while it runs, or leaves everything as it was."""

import logging
import os
from pathlib import Path

import pytest

from gateway.config import Config, HttpConfig, PlacementConfig
from gateway.loader import load
from gateway.reload import LIVE, Reloader

ONE = '[[hosts]]\nname = "gpu1"\nurl = "http://10.0.0.5:11434"\n'
TWO = ONE + '[[hosts]]\nname = "gpu2"\nurl = "http://10.0.0.6:11434"\n'


class Followed:
    """A file, who reloads it, and what was applied."""

    def __init__(self, file: Path) -> None:
        self.file = file
        file.write_text(ONE, encoding="utf-8")
        self.applied: list[Config] = []
        self.reloader = Reloader(load(file), lambda: load(file), file, self.applied.append)

    def write(self, text: str) -> None:
        """Change the file, by size or by time."""
        before = self.file.stat()
        self.file.write_text(text, encoding="utf-8")
        os.utime(self.file, ns=(before.st_atime_ns, before.st_mtime_ns + 1))

    @property
    def names(self) -> list[list[str]]:
        """The hosts of each configuration that was applied."""
        return [[host.name for host in config.hosts] for config in self.applied]


@pytest.fixture
def followed(tmp_path: Path) -> Followed:
    """A file with one host."""
    return Followed(tmp_path / "corral.toml")


def test_a_file_that_did_not_change(followed: Followed) -> None:
    """Is not read again."""
    followed.reloader.look()
    assert followed.applied == []


def test_a_file_that_changed(followed: Followed) -> None:
    """Is read once; then again only when it changes again."""
    followed.write(TWO)
    followed.reloader.look()
    followed.reloader.look()
    followed.write(ONE)
    followed.reloader.look()
    assert followed.names == [["gpu1", "gpu2"], ["gpu1"]]


def test_reloading_by_hand(followed: Followed) -> None:
    """Needs no changed file: what it names may have changed, or the environment."""
    followed.reloader.reload()
    assert followed.names == [["gpu1"]]


@pytest.mark.parametrize("text", ["", "hosts = 3", "[[hosts]", 'unknown = "key"'])
def test_what_cannot_be_used(followed: Followed, text: str, caplog: pytest.LogCaptureFixture) -> None:
    """Changes nothing and is logged; when it is mended, it is taken."""
    followed.write(text)
    followed.reloader.look()
    assert (followed.applied, len(caplog.records)) == ([], 1)
    assert caplog.messages[0].startswith("the configuration stays as it was: ")
    followed.write(TWO)
    followed.reloader.look()
    assert followed.names == [["gpu1", "gpu2"]]


def test_a_file_that_is_gone(followed: Followed, caplog: pytest.LogCaptureFixture) -> None:
    """Changes nothing either."""
    followed.file.unlink()
    followed.reloader.look()
    assert followed.applied == []
    assert "cannot read" in caplog.text


def test_what_needs_a_restart(followed: Followed, caplog: pytest.LogCaptureFixture) -> None:
    """Is named, and not applied; the hosts are."""
    followed.write('listen = ":1"\n' + TWO + "[queue]\nlimit = 3\n[relay]\nattempts = 1\n")
    with caplog.at_level(logging.WARNING):
        followed.reloader.look()
    assert caplog.messages == ["changed, but in force only after a restart: listen, queue.limit, relay.attempts"]
    (applied,) = followed.applied
    assert (len(applied.hosts), applied.listen, applied.queue.limit) == (2, "127.0.0.1:11434", 512)


def test_what_is_live(followed: Followed, caplog: pytest.LogCaptureFixture) -> None:
    """Is applied whole, also where other keys of its section are not."""
    rule = '[[placement]]\nmodels = ["*"]\nhosts = ["gpu1"]\n'
    http = '[http]\norigins = ["https://a.example"]\nallowed_hosts = ["b.example"]\nprefix = "/c"\n'
    followed.write(f'account_host = "gpu1"\n{ONE}{rule}{http}[discovery]\ninterval_seconds = 3.0\n')
    with caplog.at_level(logging.WARNING):
        followed.reloader.look()
    assert caplog.messages == ["changed, but in force only after a restart: http.prefix"]
    (applied,) = followed.applied
    assert applied.placement == (PlacementConfig(("*",), ("gpu1",)),)
    assert (applied.account_host, applied.discovery.interval_seconds) == ("gpu1", 3.0)
    assert applied.http == HttpConfig(("https://a.example",), ("b.example",), "")
    followed.write(ONE)
    followed.reloader.look()
    assert followed.applied[-1] == Config(hosts=applied.hosts)


def test_every_live_key_is_one() -> None:
    """Of the configuration, or of one of its sections."""
    for name in LIVE:
        section, _, key = name.partition(".")
        assert hasattr(getattr(Config(), section), key) if key else hasattr(Config(), section)


def test_no_file(tmp_path: Path) -> None:
    """Flags and environment alone: nothing to look at."""
    applied: list[Config] = []
    config = load(None, {"CORRAL_HOSTS": "a=http://a:1"})
    reloader = Reloader(config, lambda: config, None, applied.append)
    reloader.look()
    assert applied == []
