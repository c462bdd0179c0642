"""Chance that nobody can foresee, for names by which something may be read."""

import random
import struct
from os import urandom

_BLOCK = struct.Struct("256Q")
_WORD_BITS = 64


class Unguessable(random.SystemRandom):
    """The operating system's. Small numbers are taken from blocks of it: a system call for each id took 2 % of a request's time."""

    def __init__(self) -> None:
        super().__init__()
        self._words: list[int] = []

    def getrandbits(self, k: int, /) -> int:
        """``k`` random bits. Raises ValueError for less than none."""
        if not 0 < k <= _WORD_BITS:
            return super().getrandbits(k)
        if not self._words:
            self._words = list(_BLOCK.unpack(urandom(_BLOCK.size)))
        return self._words.pop() >> (_WORD_BITS - k)
