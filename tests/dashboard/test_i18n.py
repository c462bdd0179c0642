"""Every text has both languages."""

import ast
import json
import re
from pathlib import Path

import pytest
from babel import Locale

ROOT = Path(__file__).parent.parent.parent / "dashboard"
FILES = sorted(ROOT.rglob("*.py"))
PLACES = re.compile(r"{(\w+)}")


def texts() -> set[str]:
    """All that is said through ``t``, which takes plain texts alone."""
    found = set()
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "t":
                (text,) = node.args
                assert isinstance(text, ast.Constant), f"{path.name}:{node.lineno} says what no test can know"
                found.add(text.value)
    return found


def words(code: str) -> dict[str, str | dict[str, str]]:
    """A language's."""
    read: dict[str, str | dict[str, str]] = json.loads((ROOT / "locales" / f"{code}.json").read_text(encoding="utf-8"))
    return read


def test_russian_is_whole() -> None:
    """Nothing is missing, nothing is left over."""
    assert words("ru").keys() == texts()


def test_english_has_its_plurals() -> None:
    """Where Russian has some; and no other text."""
    assert words("en").keys() == {text for text, word in words("ru").items() if isinstance(word, dict)}


@pytest.mark.parametrize("code", ["en", "ru"])
def test_places_and_plurals(code: str) -> None:
    """Every translation has the places of its text, and each plural form of its language."""
    forms = set(Locale(code).plural_form.tags) | {"other"}
    for text, word in words(code).items():
        if isinstance(word, dict):
            assert word.keys() == forms, text
        for one in word.values() if isinstance(word, dict) else [word]:
            assert set(PLACES.findall(one)) == set(PLACES.findall(text)), text


def test_no_text_is_said_in_one_language_alone() -> None:
    """What a page writes goes through ``t``."""
    shown = {
        "button",
        "caption",
        "header",
        "subheader",
        "title",
        "popover",
        "expander",
        "toast",
        "chat_input",
        "selectbox",
    }
    for path in (ROOT / "views").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in shown
                and node.args
            ):
                text = node.args[0]
                plain = isinstance(text, ast.Constant) and re.search("[a-z]{2}", str(text.value))
                assert not plain, f"{path.name}:{node.lineno}"
