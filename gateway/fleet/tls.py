"""How hosts are spoken to by TLS, and why no connection came about, in plain words."""

import asyncio
import logging
import ssl
import threading
from concurrent.futures import Future

from gateway.certificates import Signature, show, signature, trust
from gateway.errors import ConfigError
from gateway.fleet.host import Link

log = logging.getLogger(__name__)
CONTEXTS_MOST = 1024
FILES_SECONDS = 2.0
_Key = tuple[str, str, str, bool]


class Contexts:
    """What connections to hosts are made with: once for each way to trust a host and to be known there, and anew when its files have changed.

    Files may be on a mount that does not answer. So they are read by threads of their own, one at a time for each way, that neither the event loop nor
    its end waits for.
    """

    def __init__(self) -> None:
        self._ways: dict[_Key, _Way] = {}

    async def of(self, link: Link) -> ssl.SSLContext:
        """For a host that is reached so. Whoever asks has the files looked at, for whoever asks next; files that have changed and cannot be used are logged, and
        what they were before counts. Raises ConfigError where nothing was before, or was not read within FILES_SECONDS."""
        key = link.ca, link.cert, link.key, link.verify
        way = self._ways.get(key)
        if way is None:
            if len(self._ways) >= CONTEXTS_MOST:
                self._ways.clear()
            way = self._ways[key] = _Way(link)
        way.look()
        return way.context or await way.first()


class _Way:
    """One of them. ``context`` is None until its files were read."""

    def __init__(self, link: Link) -> None:
        self.context: ssl.SSLContext | None = None
        self._link = link
        self._files = link.ca, link.cert, link.key
        self._seen: Signature = ()
        self._why = ""
        self._looking: Future[None] | None = None

    def look(self) -> None:
        """Begin to look at the files, unless it is done right now. The system's own certificates are read once."""
        if (self._looking is not None and not self._looking.done()) or (self.context and not any(self._files)):
            return
        self._looking = Future()
        self._looking.set_running_or_notify_cancel()  # who waits for it may leave; it goes on
        threading.Thread(target=self._look, args=(self._looking,), name="certificates of a host", daemon=True).start()

    async def first(self) -> ssl.SSLContext:
        """Once they are read. Raises ConfigError."""
        assert self._looking is not None
        try:
            async with asyncio.timeout(FILES_SECONDS):
                await asyncio.wrap_future(self._looking)
        except TimeoutError:
            files = ", ".join(filter(None, self._files))
            raise ConfigError(f"{files}: not read within {FILES_SECONDS:g} s") from None
        if self.context is None:
            raise ConfigError(self._why)
        return self.context

    def _look(self, looking: "Future[None]") -> None:
        try:
            seen = signature(self._files)
            if self.context is None or seen != self._seen:
                self._seen = seen
                self.context = context_of(self._link)
        except ConfigError as error:
            if self.context is not None:
                log.error("certificates of a host stay as they were: %s", error.message)  # noqa: TRY400 - the message says it all
            self._why = error.message
        finally:
            looking.set_result(None)


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
