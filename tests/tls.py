"""Certificates made for one test, clients that trust them, and hosts that speak TLS."""

import asyncio
import contextlib
import ssl
from pathlib import Path
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

import trustme

from gateway.tasks import Tasks
from simulator.host import SimulatedHost


class Pair(NamedTuple):
    """The files of a certificate, with its chain, and of its key."""

    cert: str
    key: str


class Authority:
    """A CA with its certificate in a file, ``ca``. Its certificates are for names or addresses."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._made = trustme.CA()
        self._folder = folder
        self.ca = str(folder / f"{name}.pem")
        self._made.cert_pem.write_to_path(self.ca)

    def pair(self, name: str, *identities: str) -> Pair:
        """In files named so; for this machine, unless for others."""
        issued = self._made.issue_cert(*(identities or ("127.0.0.1", "localhost")))
        pair = Pair(str(self._folder / f"{name}.crt"), str(self._folder / f"{name}.key"))
        Path(pair.cert).write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(pair.key)
        return pair

    def client(self, shown: Pair | None = None) -> ssl.SSLContext:
        """What trusts this CA alone, and shows that certificate."""
        context = ssl.create_default_context(cafile=self.ca)
        if shown is not None:
            context.load_cert_chain(*shown)
        return context


class Front:
    """A simulated host behind TLS, as behind a proxy of its own. ``heard``: all that was said to it."""

    def __init__(self, host: SimulatedHost, shown: Pair, wants: str = "") -> None:
        self.host = host
        self.name = host.name
        self.ledger = host.ledger
        self.url = ""
        self.heard = bytearray()
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(*shown)
        if wants:
            self._context.load_verify_locations(wants)
            self._context.verify_mode = ssl.CERT_REQUIRED
        self._tasks = Tasks()
        self._server: asyncio.Server | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.host, name)

    async def __aenter__(self) -> Self:
        await self.host.__aenter__()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
        self.url = f"https://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *raised: object) -> None:
        assert self._server is not None
        self._server.close()
        await self._tasks.close()
        await self.host.__aexit__(*raised)  # type: ignore[arg-type]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        parts = urlsplit(self.host.url)
        there, away = await asyncio.open_connection(parts.hostname, parts.port)
        self._tasks.spawn("to the host", self._pass(reader, away, self.heard, writer))
        self._tasks.spawn("from the host", self._pass(there, writer, bytearray(), away))

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, heard: bytearray, back: asyncio.StreamWriter
    ) -> None:
        try:
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                while data := await reader.read(65536):
                    heard += data
                    writer.write(data)
                    await writer.drain()
        finally:
            writer.close()
            back.close()
