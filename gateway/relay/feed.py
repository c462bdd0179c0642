"""Lines that Corral itself tells, kept for whoever reads them as an answer's are."""

from typing import Final

from gateway.dialects.endpoints import ENDPOINTS
from gateway.dialects.lines import Framing
from gateway.relay.chunks import Chunks, Head
from gateway.relay.shelf import Shelf, Stop

_HEAD: Final = Head(200, ((b"Content-Type", b"application/x-ndjson"),), Framing.NDJSON, "")


class Feed(Chunks):
    """NDJSON of one session, from ``begin`` to ``end``."""

    def __init__(self, shelf: Shelf, id_: str, session: str, principal: str = "") -> None:
        super().__init__(shelf.loop, id_, ENDPOINTS["/api/chat"], shelf.limit_bytes, shelf.hold, shelf.attend)
        self.head = _HEAD
        self._shelf = shelf
        self._session = session
        self._principal = principal

    @property
    def session(self) -> str | None:
        """Whose it is."""
        return self._session

    @property
    def principal(self) -> str:
        """Whoever began it."""
        return self._principal

    def begin(self, stop: Stop) -> None:
        """It can be read from now on. ``stop`` ends what it tells of, where nobody reads."""
        self._shelf.put(self, stop)

    def tell(self, line: bytes) -> None:
        """One more."""
        self._add(line)
        self._wake()

    def end(self) -> None:
        """There are no more."""
        self.ended = self._shelf.clock()
        self._wake()
        self._shelf.ends(self)
