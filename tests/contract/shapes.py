"""Compares two JSON answers where they must be equal: the keys and their order, the types, every value that is not free.

`differences` says in words, with the path, what is not so. `stream_differences` does it for answers in chunks, in which
any number of equal chunks after each other count as one: another model says another number of words.
"""

import re
from collections.abc import Sequence
from typing import Any

import orjson

_FREE = """
created_at modified_at expires_at created completed_at id item_id request_id sequence_number digest
response content text thinking reasoning encrypted_content delta token bytes logprob done_reason finish_reason stop_reason context size size_vram
total_duration load_duration prompt_eval_count prompt_eval_duration eval_count eval_duration
prompt_tokens completion_tokens total_tokens input_tokens output_tokens
modelfile shape@tensors type@tensors
"""
FREE = frozenset(_FREE.split())
"""Keys whose values may be any of the same type; but "" stays "". `key@parent` is free only below `parent`."""

_DIGEST = re.compile(r"[0-9a-f]{64}")
_GAP = "..."


def differences(expected: Any, actual: Any, path: str = "$") -> list[str]:
    """What differs between a recorded value and another one; [] when they are alike."""
    if type(expected) is not type(actual):
        return [f"{path}: {_short(expected)} is {type(expected).__name__}, {_short(actual)} is {type(actual).__name__}"]
    if isinstance(expected, dict):
        if list(expected) != list(actual):
            return [f"{path}: keys {list(expected)} became {list(actual)}"]
        return [line for key in expected for line in differences(expected[key], actual[key], f"{path}.{key}")]
    if isinstance(expected, list):
        return _list_differences(expected, actual, path)
    if isinstance(expected, str):
        expected, actual = _DIGEST.sub("<digest>", expected), _DIGEST.sub("<digest>", actual)
    free = _is_free(path) and not isinstance(expected, bool) and (expected == "") is (actual == "")
    return [] if free or expected == actual else [f"{path}: {expected!r} became {actual!r}"]


def _list_differences(expected: list[Any], actual: list[Any], path: str) -> list[str]:
    """Every item must be like one of the expected ones; empty only where that is empty."""
    if bool(expected) is not bool(actual):
        return [f"{path}: {len(expected)} items became {len(actual)}"]
    lines = []
    for index, item in enumerate(actual):
        if all(differences(other, item) for other in expected):
            lines += min((differences(other, item, f"{path}[{index}]") for other in expected), key=len)
    return lines


def _is_free(path: str) -> bool:
    keys = re.findall(r"\.([^.\[]+)", path)
    if "model_info" in keys:
        return True
    return bool(keys) and (keys[-1] in FREE or any(f"{keys[-1]}@{key}" in FREE for key in keys))


def events(chunk: bytes) -> list[Any]:
    """The values in one HTTP chunk: lines of JSON, or SSE events as [name, data]; other text as it is."""
    text = chunk.decode()
    if text.startswith(("data:", "event:")):
        return [_event(block) for block in text.removesuffix("\n\n").split("\n\n")]
    return [_value(line) for line in text.splitlines()]


def _event(block: str) -> list[Any]:
    fields = dict(line.split(": ", 1) for line in block.split("\n"))
    return [{"event": fields.get("event", "")}, {"data": _value(fields["data"])}]


def _value(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return {"plain": text}


def stream_differences(expected: Sequence[bytes | str], actual: Sequence[bytes]) -> list[str]:
    """What differs between two answers in chunks. After the string `...` in `expected` only the end has to agree."""
    found = _runs([events(chunk) for chunk in actual])
    gap = expected.index(_GAP) if _GAP in expected else None
    if gap is None:
        return _run_differences(_recorded_runs(expected), found)
    before, after = _recorded_runs(expected[:gap]), _recorded_runs(expected[gap + 1 :])
    return _run_differences(before, found[: len(before)]) + _run_differences(after, found[len(found) - len(after) :])


def _recorded_runs(chunks: Sequence[bytes | str]) -> list[list[Any]]:
    return _runs([events(chunk) for chunk in chunks if isinstance(chunk, bytes)])


def _run_differences(wanted: list[list[Any]], found: list[list[Any]]) -> list[str]:
    if len(wanted) != len(found):
        return [f"{len(wanted)} kinds of chunk became {len(found)}: {_kinds(wanted)} became {_kinds(found)}"]
    pairs = zip(wanted, found, strict=True)
    return [line for index, (one, other) in enumerate(pairs) for line in differences(one, other, f"chunk {index}")]


def _runs(values: list[list[Any]]) -> list[list[Any]]:
    result: list[list[Any]] = []
    for value in values:
        if not result or differences(result[-1], value):
            result.append(value)
    return result


def _kinds(values: list[list[Any]]) -> str:
    return " · ".join(_short(value) for value in values)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 80 else text[:77] + "…"
