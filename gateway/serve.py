"""Running the gateway until a signal ends it."""

import asyncio
import logging
import signal
from collections.abc import Callable
from pathlib import Path

from gateway.app import Gateway
from gateway.config import Config
from gateway.plural import counted
from gateway.process import build, package_version, tune_gc

log = logging.getLogger(__name__)


async def serve(config: Config, load: Callable[[], Config] | None = None, file: Path | None = None) -> None:
    """Run until SIGTERM or SIGINT; a second signal skips the grace period. SIGHUP reads the configuration again with ``load``."""
    stopping = asyncio.Event()
    gateway = Gateway(config)

    def stop() -> None:
        if stopping.is_set():
            gateway.stop_all("at a second signal")
        stopping.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    await gateway.start()
    if load is not None:
        gateway.follow(load, file)
    if hasattr(signal, "SIGHUP"):
        loop.add_signal_handler(signal.SIGHUP, gateway.reload)
    tune_gc(gateway.metrics)
    hosts = counted(len(gateway.fleet.names), "host")
    log.info("corral %s (%s) listens on %s for %s", package_version(), build(), gateway.listeners, hosts)
    await stopping.wait()
    log.info("stopping: %s in flight", counted(len(gateway.generations), "generation"))
    await gateway.stop()
