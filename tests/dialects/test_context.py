"""The context of a native request: read, and written in its place with nothing else changed."""

import json

import pytest

from gateway.dialects.context import output_limit, with_context


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("{}", 0),
        ("null", 0),
        ('{"num_predict": 7}', 7),
        ('{"num_predict": 7.0}', 7),
        ('{"num_predict": -1}', 0),
        ('{"num_predict": -2}', 0),
        ('{"num_predict": "many"}', 0),
        ('{"num_predict": 1e999}', 0),
        ('{"num_predict": 99999999999999999999}', 0),
        ('{"num_predict": ' + "1" * 200 + "}", 0),
    ],
)
def test_output_limit(options: str, expected: int) -> None:
    """What the caller says, if it is a number that limits anything."""
    assert output_limit(b'{"model": "m", "options": %b}' % options.encode()) == expected
    assert output_limit(b"{}") == 0


def test_with_context() -> None:
    """Numbers that Python could not hold, keys in any case and texts of any kind come out as they went in."""
    body = b'{"Model":"m\\u00e9","prompt":"\\ud83d\\ude00","Options":{"num_ctx":8192,"seed":1e999,"stop":["a"]},"x":12345678901234567890123}'
    made = with_context(body, 4096)
    assert json.loads(made) == {
        "model": "mé",
        "prompt": "😀",
        "options": {"num_ctx": 4096, "seed": float("inf"), "stop": ["a"]},
        "x": 12345678901234567890123,
    }
    assert b'"seed":1e999' in made
