"""How hosts are spoken to by TLS, and why no connection came about, in plain words."""

import logging
import ssl

from gateway.certificates import Signature, show, signature, trust
from gateway.errors import ConfigError
from gateway.fleet.host import Link

log = logging.getLogger(__name__)
CONTEXTS_MOST = 1024
_Key = tuple[str, str, str, bool]


class Contexts:
    """What connections to hosts are made with: once for each way to trust a host and to be known there, and anew when its files have changed."""

    def __init__(self) -> None:
        self._made: dict[_Key, tuple[Signature, ssl.SSLContext]] = {}

    def of(self, link: Link) -> ssl.SSLContext:
        """For a host that is reached so. Files that have changed and cannot be used are logged, and what they were before counts. Raises ConfigError
        where nothing was before."""
        files = link.ca, link.cert, link.key
        key, seen = (*files, link.verify), signature(files)
        made = self._made.get(key)
        if made is not None and made[0] == seen:
            return made[1]
        try:
            context = context_of(link)
        except ConfigError as error:
            if made is None:
                raise
            log.error("certificates of a host stay as they were: %s", error.message)  # noqa: TRY400 - the message says it all
            context = made[1]
        if len(self._made) >= CONTEXTS_MOST:
            self._made.clear()
        self._made[key] = seen, context
        return context


def context_of(link: Link) -> ssl.SSLContext:
    """From its files as they are now. Raises ConfigError."""
    if link.ca or not link.verify:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if link.ca:
            trust(context, link.ca, "ca")
    else:
        context = ssl.create_default_context()  # with those that the system trusts
    if not link.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if link.cert:
        show(context, link.cert, link.key, "cert")
    return context


def in_words(error: ssl.SSLError) -> str:
    """What is wrong with a host's certificate; ``it does not speak TLS`` for plain HTTP; for anything else OpenSSL's own words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if error.reason == "WRONG_VERSION_NUMBER":
        return "it does not speak TLS (its url begins with https)"
    return str(error)
