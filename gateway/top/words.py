"""Numbers and times in a few letters, and text that a terminal can be shown. Pure."""

from datetime import UTC, datetime

FOREVER_DAYS = 366  # Ollama keeps a model "for ever" for some centuries


def plain(text: str) -> str:
    """Without what a terminal would obey: names and errors come from elsewhere."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text)


def duration(seconds: float) -> str:
    """``0.4s``, ``12s``, ``4m05s``, ``3h12m``, ``5d2h``."""
    if seconds < 9.95:
        return f"{max(0.0, seconds):.1f}s"
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86400}d{whole % 86400 // 3600}h"


def latency(seconds: float) -> str:
    """``3 ms``, ``1.2 s``."""
    return f"{seconds * 1000:.0f} ms" if seconds < 0.9995 else f"{seconds:.1f} s"


def size(number: float) -> str:
    """Bytes as ``512 MiB``, ``13.1 GiB``."""
    return f"{number / 2**30:.1f} GiB" if number >= 2**30 else f"{number / 2**20:.0f} MiB"


def speed(tokens_per_second: float | None) -> str:
    """``8.3``, ``128``; nothing where it is not known."""
    if tokens_per_second is None:
        return ""
    return f"{tokens_per_second:.1f}" if tokens_per_second < 99.95 else f"{tokens_per_second:.0f}"


def left(expires_at: str | None, wall: float) -> str:
    """How long a model stays in memory, from ISO 8601 and the time now (Unix seconds)."""
    if not expires_at:
        return "?"
    try:
        moment = datetime.fromisoformat(expires_at)
    except ValueError:
        return "?"
    seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - wall
    return "for ever" if seconds > FOREVER_DAYS * 86400 else duration(seconds)
