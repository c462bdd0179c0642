"""Certificates in files: which can be used, and what is said of the others."""

import os
import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from gateway.certificates import check_files, show, signature, trust
from gateway.config import Config, HostConfig
from gateway.errors import ConfigError
from tests.tls import Authority


def test_what_can_be_used(tmp_path: Path) -> None:
    """A pair in two files, a pair in one, and a CA."""
    authority = Authority(tmp_path)
    pair = authority.pair("host")
    both = tmp_path / "both.pem"
    both.write_bytes(Path(pair.cert).read_bytes() + Path(pair.key).read_bytes())
    hosts = (
        HostConfig("gpu1", "https://10.0.0.5", ca=authority.ca, cert=pair.cert, key=pair.key),
        HostConfig("gpu2", "https://10.0.0.6", cert=str(both)),
        HostConfig("gpu3", "http://10.0.0.7"),
    )
    check_files(Config(hosts=hosts))


def encrypted(key: bytes) -> bytes:
    """The same key, behind a passphrase."""
    known = serialization.load_pem_private_key(key, None)
    pkcs8 = serialization.PrivateFormat.PKCS8
    return known.private_bytes(serialization.Encoding.PEM, pkcs8, serialization.BestAvailableEncryption(b"secret"))


def test_what_cannot(tmp_path: Path) -> None:
    """The message names the key, the file, and what is wrong."""
    authority = Authority(tmp_path)
    one, other = authority.pair("one"), authority.pair("other")
    away = str(tmp_path / "away.pem")
    words = tmp_path / "words.pem"
    words.write_text("no certificate", encoding="utf-8")
    fifo = str(tmp_path / "fifo.pem")
    os.mkfifo(fifo)
    locked, both = tmp_path / "locked.key", tmp_path / "both.pem"
    locked.write_bytes(encrypted(Path(one.key).read_bytes()))
    both.write_bytes(Path(one.cert).read_bytes() + locked.read_bytes())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for run, said in (
        (lambda: trust(context, away, "ca"), f"ca = '{away}': No such file or directory"),
        (lambda: trust(context, "/a\0", "ca"), "ca = '/a\\x00': no file can have this name"),
        (lambda: trust(context, str(words), "ca"), f"ca = '{words}': holds no certificates in PEM form"),
        (lambda: show(context, one.cert, away, "cert"), f"cert: '{away}': No such file or directory"),
        (lambda: show(context, away, one.key, "cert"), f"cert: '{away}': No such file or directory"),
        (lambda: trust(context, fifo, "ca"), f"ca = '{fifo}': it is no regular file"),
        (lambda: show(context, fifo, one.key, "cert"), f"cert: '{fifo}': it is no regular file"),
        (lambda: show(context, one.cert, fifo, "cert"), f"cert: '{fifo}': it is no regular file"),
        (lambda: show(context, one.cert, str(locked), "cert"), f"cert: '{locked}': the key is encrypted"),
        (lambda: show(context, str(both), "", "cert"), f"cert: '{both}': the key is encrypted"),
        (lambda: show(context, one.cert, other.key, "cert"), "the key is not that of the certificate"),
        (lambda: show(context, one.cert, "", "cert"), "are no certificate and its key in PEM form"),
        (lambda: show(context, str(words), one.key, "cert"), "are no certificate and its key in PEM form"),
    ):
        with pytest.raises(ConfigError) as refused:
            run()
        assert said in refused.value.message
    with pytest.raises(ConfigError, match=r"^host 'gpu1': ca = "):
        check_files(Config(hosts=(HostConfig("gpu1", "https://10.0.0.5", ca=away),)))


def test_a_file_that_changes(tmp_path: Path) -> None:
    """Is told from what it was, whether it is written anew, replaced or gone."""
    file = tmp_path / "a.pem"
    seen = [signature((str(file), ""))]
    for change in (
        lambda: file.write_text("a", encoding="utf-8"),
        lambda: file.write_text("ab", encoding="utf-8"),
        lambda: file.rename(tmp_path / "b.pem"),
    ):
        change()
        seen.append(signature((str(file), "")))
    assert seen[0] == seen[-1] == (None, None)
    assert len(set(seen)) == 3
