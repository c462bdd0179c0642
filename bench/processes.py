"""What the benchmark runs: the C programs, the proxies, and what can be read about a running process from the kernel."""

import contextlib
import http.client
import os
import resource
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
BUILD = HERE / "build"
READY_SECONDS = 90.0


class Unavailable(Exception):
    """A contender cannot be run here; the message says why."""


def raise_file_limit() -> int:
    """Lets this process and its children open as many files as the system allows; returns how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def build_wire() -> None:
    """Compiles sim and load where they are missing or older than their sources."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    BUILD.mkdir(exist_ok=True)
    sources = sorted((HERE / "wire").glob("*.[ch]"))
    for name in ("sim", "load"):
        target = BUILD / name
        if target.exists() and target.stat().st_mtime > max(source.stat().st_mtime for source in sources):
            continue
        if compiler is None:
            raise SystemExit("The benchmark needs a C compiler for its client and its simulated host: install gcc.")
        subprocess.run(
            [compiler, "-O2", "-Wall", "-Wextra", "-o", target, HERE / "wire" / f"{name}.c"], check=True, timeout=120
        )


def free_port() -> int:
    """A port below the ephemeral range, so that no outgoing connection takes it in the meantime."""
    for port in range(20000 + os.getpid() % 5000, 32000):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                if port not in _given:
                    _given.add(port)
                    return port
    raise SystemExit("No free port on the loopback.")


_given: set[int] = set()


@dataclass
class Running:
    """One started program with all its child processes."""

    name: str
    port: int
    popen: subprocess.Popen[bytes]
    log: Path
    ready_path: str = "/api/version"
    _gone: dict[int, int] = field(default_factory=dict)

    def pids(self) -> list[int]:
        """The process and its descendants."""
        children: dict[int, list[int]] = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            with contextlib.suppress(OSError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
        found = [self.popen.pid]
        for pid in found:
            found.extend(children.get(pid, []))
        return found

    def cpu_ns(self) -> int:
        """On-CPU nanoseconds so far of all threads, ended ones included, of all processes.

        Read from each process's CPU clock: the scheduler's own sum of run time, of which /proc/PID/task/*/schedstat
        shows the part of the threads that still live. A process that has ended keeps the last value seen.
        """
        for pid in self.pids():
            with contextlib.suppress(OSError):
                self._gone[pid] = time.clock_gettime_ns(
                    (~pid << 3) | 2
                )  # CPUCLOCK_SCHED of a process, as in clock_getcpuclockid(3)
        return sum(self._gone.values())

    def pss_kib(self) -> float:
        """Proportional set size: private memory and the process's share of what is shared."""
        total = 0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                    if line.startswith("Pss:"):
                        total += int(line.split()[1])
        return float(total)

    def wait_ready(self) -> None:
        until = time.monotonic() + READY_SECONDS
        while time.monotonic() < until:
            if self.popen.poll() is not None:
                break
            with contextlib.suppress(OSError, http.client.HTTPException):
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
                connection.request("GET", self.ready_path)
                status = connection.getresponse().status
                connection.close()
                if status == 200:
                    return
            time.sleep(0.05)
        self.stop()
        tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-5:])
        raise Unavailable(f"it did not come up: {tail or 'it said nothing'}")

    def stop(self) -> None:
        """Ends it by its pid; what it leaves behind is killed by pid too."""
        pids = self.pids()
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGTERM)
            try:
                self.popen.wait(5)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait()
        for pid in pids[1:]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def start(
    name: str,
    command: Sequence[str | Path],
    port: int,
    *,
    ready_path: str = "/api/version",
    env: dict[str, str] | None = None,
) -> Running:
    """Starts a program with its output in build/NAME.log and waits until it answers."""
    log = BUILD / f"{name}.log"
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("CORRAL_")}
    with log.open("wb") as output:
        popen = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=inherited | (env or {}),
        )
    running = Running(name, port, popen, log, ready_path)
    running.wait_ready()
    return running


def start_sims() -> list[Running]:
    """The one simulated host that costs next to nothing."""
    port = free_port()
    return [start("sim", [BUILD / "sim", str(port)], port)]
