"""What models write, made fit to be shown."""

import pytest

from dashboard.markup import said, shown, split


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"so \(a+b\) is", "so $a+b$ is"),
        ("so \\[\na\n\\] is", "so $$\na\n$$ is"),
        ("`\\(a\\)` and ```\n\\[b\\]\n```", "`\\(a\\)` and ```\n\\[b\\]\n```"),
        ("![x](http://a/b.png)", "[x](http://a/b.png)"),
        ("a :red[b] :smile: :material/home: 10:30 c::d", r"a \:red[b] \:smile: \:material/home: 10:30 c::d"),
        ("`:red[b]`", "`:red[b]`"),
        ("costs $5 and $10", "costs $5 and $10"),
    ],
)
def test_answers(text: str, expected: str) -> None:
    """Formulas in Streamlit's signs, no image fetched, no directive carried out; code as it is."""
    assert shown(text) == expected


def test_questions() -> None:
    """Line for line."""
    assert said("a\nb") == "a  \nb"


@pytest.mark.parametrize(
    ("content", "thinking", "expected"),
    [
        ("answer", "thought", ("answer", "thought")),
        ("<think>hm</think>\n\nanswer", "", ("answer", "hm")),
        ("<think>hm", "", ("", "hm")),
        ("so <think>hm</think>", "", ("so <think>hm</think>", "")),
    ],
)
def test_thoughts(content: str, thinking: str, expected: tuple[str, str]) -> None:
    """Beside the answer, wherever the model put them."""
    assert split(content, thinking) == expected
