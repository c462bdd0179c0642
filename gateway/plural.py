"""Numbers of things in lines for people."""


def counted(number: int, thing: str) -> str:
    """``1 host``, ``2 hosts``; for things that take an s."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
