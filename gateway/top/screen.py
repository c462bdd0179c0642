"""The terminal: keys come at once and are not shown, the picture has a screen of its own, and all is as before at the end."""

import signal
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live

from gateway.top.picture import Picture, painted


class Screen:
    """Draws pictures; made by ``opened``."""

    def __init__(self, console: Console, live: Live) -> None:
        self._console = console
        self._live = live

    def draw(self, picture: Picture) -> None:
        """Show a picture in place of the last. OSError: the terminal is gone."""
        width, height = self._console.size
        self._live.update(painted(picture, width, height), refresh=True)


@contextmanager
def opened(console: Console, keyboard: int) -> Iterator[Screen]:
    """The terminal as a screen. ``keyboard`` is its file descriptor. Ctrl-Z does nothing: nobody would put the terminal in order."""
    before = termios.tcgetattr(keyboard)
    suspending: Callable[..., object] | int | None = signal.signal(signal.SIGTSTP, signal.SIG_IGN)
    tty.setcbreak(keyboard)
    try:
        with Live(
            console=console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
        ) as live:
            yield Screen(console, live)
    finally:
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)
        signal.signal(signal.SIGTSTP, suspending)
