"""What models write, as Streamlit's Markdown shall show it: formulas in its own signs and money in dollars, nothing fetched, no directive of its own carried out."""

import re

_CODE = re.compile(r"(```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)|`[^`\n]*`)", re.DOTALL)
_FORMULA = re.compile(
    r"""
    \\\[ (?P<display> .{1,4000}? ) \\\]
    | \\\( (?P<inline> .{1,1000}? ) \\\)
    | (?P<whole>
        \$\$ .+? (?: \$\$ | \Z )
        | \$ (?! [\s$] )
          (?: (?! \d ) | (?= [^\s$]* \$ ) | (?= [^$\n]* [\\^_={}<>+] ) )  # what begins with a digit: in one piece, or with a sign of mathematics
          (?: \\. | [^$\\\n] )+? (?<! \s ) \$ (?! \d )
        | \\.
    )
    | (?P<money> \$ )
    """,
    re.DOTALL | re.VERBOSE,
)
"""Formulas, in the order in which they count; a dollar that neither opens nor closes one is money. As pandoc has it: no blank inside the dollars, no
digit after them, all on one line."""
_IMAGE = re.compile(r"!\[")
_DIRECTIVE = re.compile(r":(?=(?:[a-z-]+)\[|[a-z0-9_+-]+:|material/)")
_SIGNS = re.compile(r"[\\`*_{}\[\]()<>#+\-.!|~$:]")
_THINK = re.compile(r"\A\s*<think>(.*?)(?:</think>|\Z)", re.DOTALL)


def shown(text: str) -> str:
    """An answer. Code is left as it is."""
    if "`" not in text and "~~~" not in text:
        return _prose(text)
    parts = _CODE.split(text)
    return "".join(part if index % 2 else _prose(part) for index, part in enumerate(parts))


def _prose(text: str) -> str:
    if "$" in text or "\\" in text:  # to look for them takes a tenth of what a growing answer costs
        text = _FORMULA.sub(_formula, text)
    text = _IMAGE.sub("[", text)
    return _DIRECTIVE.sub(r"\\:", text)


def _formula(found: re.Match[str]) -> str:
    if found["display"]:
        return f"$$\n{found['display'].strip()}\n$$"
    if found["inline"]:
        return f"${found['inline'].strip()}$"
    return found["whole"] or r"\$"


def growing(text: str) -> str:
    """An answer that is not whole yet: a diagram is drawn once all of it is there."""
    before, fence, diagram = text.rpartition("```mermaid")
    return shown(before + "```" + diagram if fence and "```" not in diagram else text)


def said(text: str) -> str:
    """What a user wrote: line for line."""
    return _prose(text).replace("\n", "  \n")


def plain(text: str) -> str:
    """Somebody's words, in one line, where Streamlit would read Markdown: in labels and captions."""
    return _SIGNS.sub(r"\\\g<0>", " ".join(text.split()))


def split(content: str, thinking: str) -> tuple[str, str]:
    """(answer, thinking): models that nobody told Ollama to think put it into the answer."""
    if thinking or not (found := _THINK.match(content)):
        return content, thinking
    return content[found.end() :].lstrip(), found[1].strip()
