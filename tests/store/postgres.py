"""A PostgreSQL server of one's own: Debian's programs, a folder, a socket address that nobody else has. Started and stopped by the tests."""

import ctypes
import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from tests.components import missing

FAST = "-c fsync=off -c full_page_writes=off -c synchronous_commit=off -c shared_buffers=64MB -c max_connections=60"
ENVIRONMENT = {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"}
OVER = "that is all"


def programs() -> Path:
    """The folder of initdb and postgres, the newest version; or the test ends."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    if found:
        return found[-1].parent
    if initdb := shutil.which("initdb"):
        return Path(initdb).parent
    return missing("PostgreSQL (apt-get install postgresql)")


class Postgres:
    """One server. ``url`` names its maintenance database; ``stop`` and ``start`` may be called again and again."""

    def __init__(self) -> None:
        self._bin = programs()
        self._user = "postgres" if os.geteuid() == 0 else None  # it refuses to run as root
        self._folder = Path(tempfile.mkdtemp(prefix="corral-postgres-"))  # pytest's own folders are closed to that user
        self._data = self._folder / "data"
        self.port = _free_port()
        self._created: list[str] = []
        self._numbers = itertools.count()
        if self._user:
            os.chown(self._folder, pwd.getpwnam(self._user).pw_uid, -1)
        self._run("initdb", "-D", str(self._data), "-U", "corral", "-A", "trust", "-E", "UTF8", "--locale=C", "-N")
        self._process: subprocess.Popen[bytes] | None = None
        self._psql: subprocess.Popen[str] | None = None
        self.start()

    def remove(self) -> None:
        """Stop it for good."""
        self.stop()
        shutil.rmtree(self._folder)

    @property
    def url(self) -> str:
        """Of its maintenance database."""
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        """Of one of its databases."""
        return f"postgresql://corral@127.0.0.1:{self.port}/{database}"

    def create(self, template: str = "template1") -> str:
        """Make another database, as that one is; its url."""
        name = f"t{next(self._numbers)}"
        self.sql(f"CREATE DATABASE {name} TEMPLATE {template}")
        self._created.append(name)
        return self.url_of(name)

    def drop(self) -> None:
        """Remove what was made for tests that are over: hundreds of databases at the end would take the disk a minute."""
        while self._created:
            self.sql(f"DROP DATABASE {self._created.pop()} WITH (FORCE)")

    def start(self) -> None:
        """Start it and wait until it takes connections. In the main thread: it ends with the thread that started it."""
        options = f"-h 127.0.0.1 -p {self.port} {FAST}".split()
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._bin / "postgres", "-D", self._data, "-k", "", *options],
                user=self._user,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the tests
                preexec_fn=_end_with_us,  # noqa: PLW1509 - it calls prctl and nothing else
            )
        self._run("pg_isready", "-h", "127.0.0.1", "-p", str(self.port), "-t", "0", tries=600)

    def stop(self, how: int = signal.SIGQUIT) -> None:
        """Stop it: SIGQUIT as in a crash, SIGINT cuts connections, SIGTERM waits for them to leave."""
        if self._psql is not None:
            self._psql.communicate()
            self._psql = None
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(30)
            self._process = None

    @property
    def pid(self) -> int:
        """Of the postmaster."""
        assert self._process is not None
        return self._process.pid

    def backends(self) -> list[int]:
        """Pids of its children."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        return [int(pid) for pid in children.split()]

    def freeze(self, frozen: bool = True) -> None:
        """Every process of it stops where it is, or goes on: a server that is there and mute."""
        for pid in [self.pid, *self.backends()]:
            os.kill(pid, signal.SIGSTOP if frozen else signal.SIGCONT)

    def sql(self, statement: str, database: str = "postgres") -> str:
        """Run a statement and return what it answers, as text. One psql goes on running for the maintenance database: to start one takes longer than most statements."""
        if database != "postgres":
            return self._run("psql", *self._named(database), "-qAtc", statement)
        if self._psql is None:
            self._psql = subprocess.Popen(
                [self._bin / "psql", *self._named(database), "-qAt", "-v", "ON_ERROR_STOP=1"],
                user=self._user,
                cwd="/",
                env=ENVIRONMENT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                text=True,
            )
        told, taken = self._psql.stdout, self._psql.stdin
        assert told is not None
        assert taken is not None
        taken.write(f"{statement};\n\\echo {OVER}\n")
        taken.flush()
        lines: list[str] = []
        while not lines or lines[-1] != OVER:
            line = told.readline()
            assert line, f"psql: {lines}{(self._folder / 'log').read_text()[-2000:]}"  # it stops at an error
            lines.append(line.removesuffix("\n"))
        return "\n".join(lines[:-1])

    def _named(self, database: str) -> tuple[str, ...]:
        return ("-h", "127.0.0.1", "-p", str(self.port), "-U", "corral", "-d", database)

    def _run(self, program: str, *arguments: str, tries: int = 1) -> str:
        for left in range(tries, 0, -1):
            done = subprocess.run(
                [self._bin / program, *arguments],
                user=self._user,
                cwd="/",
                env=ENVIRONMENT,
                capture_output=True,
                timeout=60,
                check=False,
            )
            if not done.returncode:
                return done.stdout.decode().strip()
            if left > 1:
                time.sleep(0.02)
        raise AssertionError(f"{program}: {done.stderr.decode()}{(self._folder / 'log').read_text()[-2000:]}")


def _end_with_us() -> None:
    """The server is stopped when the tests are killed (prctl(2): PR_SET_PDEATHSIG = 1)."""
    ctypes.CDLL(None).prctl(1, signal.SIGQUIT)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
