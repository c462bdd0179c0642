"""What is read off ``/metrics``: a handful of its families, summed. Pure."""

import re
from collections import Counter
from dataclasses import dataclass, field

REQUESTS = "corral_requests_total"
TOKENS = "corral_tokens_total"
FIRST_TOKEN = "corral_time_to_first_token_seconds_bucket"  # noqa: S105 - no password
BUILD = "corral_build_info"
STARTED = "process_start_time_seconds"

_SAMPLE = re.compile(rf"^({REQUESTS}|{TOKENS}|{FIRST_TOKEN}|{BUILD}|{STARTED})(?:{{(.*)}})? (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_ESCAPED = re.compile(r"\\(.)")


@dataclass(frozen=True, slots=True)
class Scrape:
    """Counted since ``started`` (Unix seconds)."""

    outcomes: Counter[str] = field(default_factory=Counter)  # requests that ended
    output_tokens: Counter[str] = field(default_factory=Counter)  # of generations that ended, by host
    first_token: Counter[float] = field(default_factory=Counter)  # streams that began within so many seconds
    version: str = ""
    build: str = ""
    started: float = 0.0


def scrape(text: str) -> Scrape:
    """Read an exposition. A sample that is no number is passed over: nothing here is worth failing for."""
    outcomes, tokens, first = Counter[str](), Counter[str](), Counter[float]()
    version = build = ""
    started = 0.0
    for name, inner, number in _SAMPLE.findall(text):
        labels = {key: _ESCAPED.sub(_unescaped, value) for key, value in _LABEL.findall(inner)}
        value = _number(number)
        if name == REQUESTS:
            outcomes[labels.get("outcome", "")] += int(value)
        elif name == TOKENS and labels.get("type") == "output":
            tokens[labels.get("host", "")] += int(value)
        elif name == FIRST_TOKEN:
            first[_number(labels.get("le", ""))] += int(value)
        elif name == BUILD:
            version, build = labels.get("version", ""), labels.get("build", "")
        elif name == STARTED:
            started = value
    return Scrape(outcomes, tokens, first, version, build, started)


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return value if value == value else 0.0  # noqa: PLR0124 - NaN


def _unescaped(found: re.Match[str]) -> str:
    return "\n" if found[1] == "n" else found[1]
