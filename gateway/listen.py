"""The address to listen on: whether a URL leads there; and who holds it when a start has failed, and what to do about it."""

import http.client
import socket
from pathlib import Path
from urllib.parse import urlsplit

_SAME = {"127.0.0.1": ("127.0.0.1", "localhost", "0.0.0.0"), "::1": ("::1", "::")}
_SAME["localhost"] = _SAME["127.0.0.1"]


def is_there(url: str, address: str, port: int, *, tls: bool) -> bool:
    """Whether ``url`` is where one listens who listens on this address and port, by TLS or not."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    scheme = "https" if tls else "http"
    return parts.scheme == scheme and parts.port == port != 0 and address in (host, *_SAME.get(host, ()))


def next_to(address: str, port: int) -> str:
    """The address with the port beside this one."""
    return f"{f'[{address}]' if ':' in address else address}:{port + 1 if port < 65535 else port - 1}"


def explain_taken(address: str, port: int) -> str:
    """A message for a port that is in use: by which process (Linux), and whether an Ollama or a Corral answers there."""
    shown = f"[{address}]" if ":" in address else address
    holder = _holder(port)
    text = f"cannot listen on {shown}:{port}: the port is taken{f' by {holder}' if holder else ''}."
    other = _free_port(address, port)
    reached = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(shown, shown)
    answer = _root_of(reached.strip("[]"), port)
    if answer is None:
        return text + f" Listen elsewhere: corral serve --listen {shown}:{other}"
    if answer.startswith(b"corral"):
        return (
            text
            + f" A Corral answers there already: use it, or listen elsewhere: corral serve --listen {shown}:{other}"
        )
    return (
        f"{text} An Ollama answers there. Make it one of the hosts and listen elsewhere:\n"
        f"  corral serve --listen {shown}:{other} --host local=http://{reached}:{port}\n"
        f"or move the Ollama (OLLAMA_HOST={reached}:{other} ollama serve) and let Corral have its address:\n"
        f"  corral serve --listen {shown}:{port} --host local=http://{reached}:{other}"
    )


def _free_port(address: str, taken: int) -> int:
    """The next port that can be had; 0 (any) if none near is free."""
    for port in range(taken + 1, min(taken + 100, 65536)):
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as sock:
            try:
                sock.bind((address, port))
            except OSError:
                continue
            return port
    return 0


def _root_of(address: str, port: int) -> bytes | None:
    """``corral`` or ``ollama`` if one answers; None for anything else."""
    connection = http.client.HTTPConnection(address, port, timeout=2)
    try:
        connection.request("GET", "/")
        body = connection.getresponse().read(64)
        if body != b"Ollama is running":
            return None
        connection.request("GET", "/healthz")
        return b"corral" if connection.getresponse().status == 200 else b"ollama"
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def _holder(port: int) -> str:
    """``name (pid N)`` of the process that listens on ``port``, as far as /proc lets us see."""
    inodes = set[str]()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            rows = Path(table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        inodes.update(
            row.split()[9]
            for row in rows
            if row.split()[3] == "0A" and int(row.split()[1].rpartition(":")[2], 16) == port
        )
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(
                link.readlink().name.strip("]").rpartition("[")[2] in inodes
                for link in (process / "fd").iterdir()
                if link.is_symlink()
            ):
                return f"{(process / 'comm').read_text(encoding='utf-8').strip()} (pid {process.name})"
        except OSError:
            continue
    return ""
