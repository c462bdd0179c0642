"""JSON as Go reads and writes it: keys in any case, the last one wins, what follows the first value is ignored."""

import json
import re
from collections.abc import Iterable
from typing import Any, Self

import orjson

from simulator.refusal import Refusal

_KINDS = {str: "string", bool: "bool", int: "number", float: "number", list: "array", dict: "object"}
_UNSAFE = re.compile(rb"[<>&]|\xe2\x80[\xa8\xa9]")
_ESCAPES = {
    b"<": rb"\u003c",
    b">": rb"\u003e",
    b"&": rb"\u0026",
    b"\xe2\x80\xa8": rb"\u2028",
    b"\xe2\x80\xa9": rb"\u2029",
}
_DURATION = re.compile(r"[-+]?(?:(?:\d+(?:\.\d*)?|\.\d+)(?:ns|us|µs|μs|ms|s|m|h))+")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def encode(value: Any, *, sort_keys: bool = False) -> bytes:
    """`value` as one line of JSON, with the characters escaped that Go escapes."""
    text = orjson.dumps(value, option=orjson.OPT_SORT_KEYS if sort_keys else None)
    return _UNSAFE.sub(lambda found: _ESCAPES[found[0]], text)


def _ordered(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        result.pop(key, None)
        result[key] = value
    return result


_DECODER = json.JSONDecoder(object_pairs_hook=_ordered)


def decode(body: bytes) -> Any:
    """The first JSON value in `body`; Refusal 400 with Go's words when there is none."""
    text = body.decode("utf-8", "replace").lstrip(" \t\r\n")
    try:
        return _DECODER.raw_decode(text)[0]
    except json.JSONDecodeError as error:
        rest = text[error.pos :].lstrip(" \t\r\n") if error.pos < len(text) else ""
        if not text:
            raise Refusal(400, "EOF") from None
        if not rest or "Unterminated" in error.msg:
            raise Refusal(400, "unexpected EOF") from None
        raise Refusal(400, f"invalid character '{_go_char(rest[0])}' looking for beginning of value") from None


def _go_char(char: str) -> str:
    return {"'": r"\'", '"': '"', "\\": r"\\"}.get(char) or (char if char.isprintable() else f"\\x{ord(char):02x}")


class Fields:
    """The fields of one Go struct. Reading one of another JSON type is a Refusal 400; null is as good as absent."""

    def __init__(self, value: Any, struct: str) -> None:
        if value is None:  # Go leaves a struct as it is
            value = {}
        if not isinstance(value, dict):
            raise Refusal(400, f"json: cannot unmarshal {_KINDS[type(value)]} into Go value of type {struct}")
        self._values = {key.lower(): item for key, item in value.items() if item is not None}
        self._struct = struct

    def text(self, key: str) -> str:
        """A string, "" when absent."""
        value = self._typed(key, "string", str)
        return value if isinstance(value, str) else ""

    def flag(self, key: str) -> bool | None:
        """A boolean, None when absent."""
        value = self._typed(key, "bool", bool)
        return value if isinstance(value, bool) else None

    def integer(self, key: str) -> int | None:
        """A whole number, None when absent."""
        value = self._typed(key, "int", int)
        return value if isinstance(value, int) else None

    def mapping(self, key: str) -> dict[str, Any]:
        """A JSON object as it is, {} when absent."""
        value = self._typed(key, "map[string]interface {}", dict)
        return value if isinstance(value, dict) else {}

    def items(self, key: str) -> list[Any]:
        """A JSON array as it is, [] when absent."""
        value = self._typed(key, "[]interface {}", list)
        return value if isinstance(value, list) else []

    def each(self, key: str) -> Iterable[Self]:
        """An array of structs."""
        return [type(self)(item, self._struct) for item in self.items(key) if item is not None]

    def inner(self, key: str) -> Self:
        """A struct, with no fields when absent."""
        return type(self)(self.mapping(key), self._struct)

    def raw(self, key: str) -> Any:
        """Whatever is there; None when absent."""
        return self._values.get(key)

    def _typed(self, key: str, wanted: str, kind: type) -> Any:
        value = self._values.get(key)
        if value is None or (isinstance(value, kind) and isinstance(value, bool) == (kind is bool)):
            return value
        found = _KINDS[type(value)]
        raise Refusal(400, f"json: cannot unmarshal {found} into Go struct field {self._struct}.{key} of type {wanted}")


def keep_alive(value: Any, forever: float) -> float | None:
    """Seconds that a `keep_alive` means, `forever` for a negative one, None when absent; Refusal 400 for nonsense."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise Refusal(400, f"Unsupported type: '{type(value).__name__}'")
    seconds = _duration(value) if isinstance(value, str) else float(value)
    return forever if seconds < 0 else seconds


def _duration(text: str) -> float:
    if text in ("0", "+0", "-0"):
        return 0.0
    if not _DURATION.fullmatch(text):
        kind = "missing unit in" if re.fullmatch(r"[-+]?\d+(\.\d*)?", text) else "invalid"
        raise Refusal(400, f'time: {kind} duration "{text}"')
    parts = re.findall(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)", text)
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    return -seconds if text.startswith("-") else seconds


_INTEGERS = ("num_ctx", "num_batch", "num_gpu", "main_gpu", "num_thread", "draft_num_predict", "num_keep", "seed")
_FLOATS = ("temperature", "top_p", "min_p", "typical_p", "repeat_penalty", "presence_penalty", "frequency_penalty")


def options(given: dict[str, Any]) -> dict[str, Any]:
    """The known options, checked; Refusal 500 (as Ollama has it) for one of the wrong type. Unknown ones are dropped."""
    known: dict[str, Any] = {}
    for key, value in given.items():
        if value is None:
            continue
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if key in (*_INTEGERS, "num_predict", "top_k", "repeat_last_n"):
            if not number:
                raise Refusal(500, f'option "{key}" must be of type integer')
            known[key] = int(value)
        elif key in _FLOATS:
            if not number:
                raise Refusal(500, f'option "{key}" must be of type float32')
            known[key] = float(value)
        elif key == "use_mmap":
            if not isinstance(value, bool):
                raise Refusal(500, f'option "{key}" must be of type boolean')
            known[key] = value
        elif key == "stop":
            if not isinstance(value, list):
                raise Refusal(500, f'option "{key}" must be of type array')
            known[key] = value
    return known
