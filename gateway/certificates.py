"""Certificates in files: what TLS needs of them, and whether they can be used."""

import ssl
import stat
from collections.abc import Iterable
from pathlib import Path

from gateway.config import Config, HostConfig, TlsConfig
from gateway.errors import ConfigError

Signature = tuple[tuple[int, int, int] | None, ...]


def trust(context: ssl.SSLContext, ca: str, key: str) -> None:
    """Have ``context`` trust the certificates in ``ca``. ``key``: what is configured so. Raises ConfigError."""
    _readable(ca, f"{key} = {ca!r}")
    try:
        context.load_verify_locations(ca)
    except OSError as error:  # ssl's errors are such, too
        raise ConfigError(f"{key} = {ca!r}: {_why(error, 'holds no certificates in PEM form')}") from None


def show(context: ssl.SSLContext, cert: str, private: str, key: str) -> None:
    """Have ``context`` show the certificate in ``cert`` (with those between it and its CA), whose key is in ``private``, or there too. Raises ConfigError."""
    for file in filter(None, (cert, private)):
        _readable(file, f"{key}: {file!r}")
    locked = False

    def passphrase() -> (
        str
    ):  # OpenSSL asks for one where the key is encrypted; without this it would ask at the terminal
        nonlocal locked
        locked = True
        return ""

    try:
        context.load_cert_chain(cert, private or None, password=passphrase)
    except OSError as error:
        if locked:
            why = "the key is encrypted, and nobody is there to give its passphrase: let it be without one"
            raise ConfigError(f"{key}: {(private or cert)!r}: {why}") from None
        files = f"{cert!r} and {private!r}" if private else repr(cert)
        raise ConfigError(f"{key} = {files}: {_why(error, 'are no certificate and its key in PEM form')}") from None


def _readable(file: str, named: str) -> None:
    """A pipe could keep whoever reads it waiting for ever. Raises ConfigError."""
    path = Path(file)
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ConfigError(f"{named}: it is no regular file")
        path.open("rb").close()
    except OSError as error:
        raise ConfigError(f"{named}: {error.strerror}") from None
    except ValueError:
        raise ConfigError(f"{named}: no file can have this name") from None


def _why(error: OSError, otherwise: str) -> str:
    if not isinstance(error, ssl.SSLError):
        return error.strerror or str(error)
    if error.reason == "KEY_VALUES_MISMATCH":
        return "the key is not that of the certificate"
    return otherwise


def signature(files: Iterable[str]) -> Signature:
    """By which one can tell that a file is not what it was."""
    return tuple(_signed(file) for file in files)


def _signed(file: str) -> tuple[int, int, int] | None:
    if not file:
        return None
    try:
        seen = Path(file).stat()
    except (OSError, ValueError):
        return None
    return seen.st_mtime_ns, seen.st_size, seen.st_ino


def check_files(config: Config) -> None:
    """Whether every certificate that is configured can be used now. Raises ConfigError."""
    for host in config.hosts:
        _check_host(host)
    if config.tls.cert:
        own(config.tls)


def _check_host(host: HostConfig) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if host.ca:
        trust(context, host.ca, f"host {host.name!r}: ca")
    if host.cert:
        show(context, host.cert, host.key, f"host {host.name!r}: cert")


def own(config: TlsConfig) -> ssl.SSLContext:
    """What callers are shown, from the files as they are now. Raises ConfigError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    show(context, config.cert, config.key, "tls.cert")
    if config.client_ca:
        trust(context, config.client_ca, "tls.client_ca")
        context.verify_mode = ssl.CERT_REQUIRED
    return context
