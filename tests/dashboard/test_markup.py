"""What models write, made fit to be shown."""

import pytest

from dashboard.markup import growing, plain, said, shown, split


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"so \(a+b\) is", "so $a+b$ is"),
        ("so \\[\na\n\\] is", "so $$\na\n$$ is"),
        ("`\\(a\\)` and ```\n\\[b\\]\n```", "`\\(a\\)` and ```\n\\[b\\]\n```"),
        ("![x](http://a/b.png)", "[x](http://a/b.png)"),
        ("a :red[b] :smile: :material/home: 10:30 c::d", r"a \:red[b] \:smile: \:material/home: 10:30 c::d"),
        ("`:red[b]`", "`:red[b]`"),
        ("It costs $5 and $10 today.", r"It costs \$5 and \$10 today."),
        ("costs $5, or 5$.", r"costs \$5, or 5\$."),
        ("$5-$10, $5/$10, US$ 5, **$5**/**$10**", r"\$5-\$10, \$5/\$10, US\$ 5, **\$5**/**\$10**"),
        ("$1,000 and $2.50 is $1,002.50", r"\$1,000 and \$2.50 is \$1,002.50"),
        ("$HOME and $PATH", r"\$HOME and \$PATH"),
        ("a $5\nb 6$", "a \\$5\nb 6\\$"),
        ("$x^2$, $n$th, $a, b$ and $2x$", "$x^2$, $n$th, $a, b$ and $2x$"),
        ("$2 + x$ for $5 or $y$", r"$2 + x$ for \$5 or $y$"),
        (r"\(5 and 6\) for \$5, \$6", r"$5 and 6$ for \$5, \$6"),
        ("$$x$$ and $$\n5 \\\\[4pt] $6\n$$ for $7", "$$x$$ and $$\n5 \\\\[4pt] $6\n$$ for \\$7"),
        ("so $$\nx $5 y $6", "so $$\nx $5 y $6"),
        ("`$5 $6` and ```\n$ a\n$ b\n```", "`$5 $6` and ```\n$ a\n$ b\n```"),
    ],
)
def test_answers(text: str, expected: str) -> None:
    """Formulas in Streamlit's signs, no image fetched, no directive carried out; code as it is."""
    assert shown(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\n\n```mermaid\ngraph TD\nA-->", "a\n\n```\ngraph TD\nA-->"),
        ("```mermaid\nA-->B\n```\nso \\(a\\)", "```mermaid\nA-->B\n```\nso $a$"),
        ("```mermaid\nA-->B\n```\n```mermaid\nA", "```mermaid\nA-->B\n```\n```\nA"),
    ],
)
def test_diagrams_that_grow(text: str, expected: str) -> None:
    """Are code until they are whole: half of one cannot be drawn."""
    assert growing(text) == expected


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


@pytest.mark.parametrize(
    ("text", "expected"),
    [("Why?", "Why?"), ("a\n  b", "a b"), (":red[x] *y* ![z](http://a)", r"\:red\[x\] \*y\* \!\[z\]\(http\://a\)")],
)
def test_plain(text: str, expected: str) -> None:
    """Where only words are meant, none is a sign."""
    assert plain(text) == expected
