"""The certificate that callers are shown, and what theirs must be: read anew when a file has changed, for connections from then on."""

import logging
import ssl
import threading

from gateway.certificates import own, signature
from gateway.config import TlsConfig
from gateway.errors import ConfigError

log = logging.getLogger(__name__)


class Certificate:
    """``context`` is what the next connection is begun with. Raises ConfigError where the files cannot be used."""

    def __init__(self, config: TlsConfig) -> None:
        self._config = config
        self._seen = self._signature()
        self._looking: threading.Thread | None = None
        self.context: ssl.SSLContext | None = own(config) if config.cert else None

    def look(self) -> None:
        """Have a thread take files that have changed; where they cannot be used, those before stay. A mount may not answer, and neither what is served
        nor the stop waits for it: so it is no thread of the loop's, which are waited for."""
        if self._config.cert and (self._looking is None or not self._looking.is_alive()):
            self._looking = threading.Thread(target=self._look, name="certificate", daemon=True)
            self._looking.start()

    def _look(self) -> None:
        seen = self._signature()
        if seen == self._seen:
            return
        self._seen = seen
        try:
            self.context = own(self._config)
        except ConfigError as error:
            log.error("the certificate stays as it was: %s", error.message)  # noqa: TRY400 - the message says it all
        else:
            log.info("certificate read again: %s", self._config.cert)

    def _signature(self) -> tuple[object, ...]:
        return signature((self._config.cert, self._config.key, self._config.client_ca))
