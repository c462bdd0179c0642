"""From samples to words: medians, same-round ratios, goals, and the page docs/benchmarks.md."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from bench.subject import Sample

Samples = dict[str, dict[str, dict[int, Sample]]]  # scenario → contender → round → sample


def middle(samples: Samples, scenario: str, contender: str, key: str) -> float | None:
    values = [s[key] for s in samples.get(scenario, {}).get(contender, {}).values() if key in s]
    return median(values) if values else None


def ratio(samples: Samples, scenario: str, contender: str, other: str, key: str) -> float | None:
    """The median of the same rounds' ratios contender ÷ other."""
    mine, theirs = (samples.get(scenario, {}).get(name, {}) for name in (contender, other))
    ratios = [mine[r][key] / theirs[r][key] for r in mine if r in theirs and theirs[r].get(key) and key in mine[r]]
    return median(ratios) if ratios else None


def failures(samples: Samples, scenario: str, contender: str) -> int:
    return int(sum(s["failed"] for s in samples.get(scenario, {}).get(contender, {}).values()))


@dataclass(frozen=True)
class Goal:
    text: str
    scenario: str
    value: Callable[[Samples], float | None]
    limit: float
    at_most: bool
    unit: str

    def verdict(self, samples: Samples) -> tuple[str, str]:
        """The measured value and whether the goal is met."""
        value = self.value(samples)
        if value is None:
            return "–", "not measured"
        wrong = failures(samples, self.scenario, "corral")
        shown = f"{value:.2f}{self.unit}" if abs(value) < 100 else f"{value:,.0f}{self.unit}"
        if wrong:
            return shown, f"**not met**: {wrong} answers were wrong"
        return shown, "met" if (value <= self.limit if self.at_most else value >= self.limit) else "**not met**"


def _against_nginx(scenario: str) -> Callable[[Samples], float | None]:
    return lambda samples: ratio(samples, scenario, "corral", "nginx", "cpu_us")


def _against_fastapi(scenario: str) -> Callable[[Samples], float | None]:
    return lambda samples: ratio(samples, scenario, "fastapi-httpx", "corral", "cpu_us")


def _corral(scenario: str, key: str) -> Callable[[Samples], float | None]:
    return lambda samples: middle(samples, scenario, "corral", key)


def _keeping(samples: Samples) -> float | None:
    """By how many milliseconds keeping records moves the 99th percentile of a chunk's delay: the median of the same rounds' differences."""
    without, with_ = (samples.get("kept", {}).get(name, {}) for name in ("corral", "corral-kept"))
    moved = [(with_[r]["delay_p99_us"] - without[r]["delay_p99_us"]) / 1000 for r in with_ if r in without]
    return median(moved) if moved else None


GOALS = (
    Goal(
        "CPU per chunk at 200 paced streams, ≤ 1.4 × nginx", "stream-200", _against_nginx("stream-200"), 1.4, True, " ×"
    ),
    Goal(
        "CPU per chunk at 1,000 paced streams, ≤ 1.25 × nginx",
        "stream-1000",
        _against_nginx("stream-1000"),
        1.25,
        True,
        " ×",
    ),
    Goal("CPU per unary request at 32 connections, ≤ 7 × nginx", "unary", _against_nginx("unary"), 7, True, " ×"),
    Goal(
        "CPU per chunk, ≥ 3.5 × less than FastAPI + httpx",
        "stream-200",
        _against_fastapi("stream-200"),
        3.5,
        False,
        " × less",
    ),
    Goal(
        "CPU per unary request, ≥ 20 × less than FastAPI + httpx",
        "unary",
        _against_fastapi("unary"),
        20,
        False,
        " × less",
    ),
    Goal(
        "5,000 streams without an error, ≤ 25 KiB each",
        "memory-5000",
        _corral("memory-5000", "kib_per_stream"),
        25,
        True,
        " KiB",
    ),
    Goal("1,000 records/s move the chunk delay's p99 by ≤ 1 ms", "kept", _keeping, 1, True, " ms"),
    Goal(
        "An upload of 2 GiB to two hosts: growth ≤ 64 MiB",
        "managing",
        _corral("managing", "upload_growth_mib"),
        64,
        True,
        " MiB",
    ),
    Goal(
        "A pull of over 1 GiB by two hosts: growth ≤ 64 MiB",
        "managing",
        _corral("managing", "pull_growth_mib"),
        64,
        True,
        " MiB",
    ),
    Goal("A stalled reader of 100 MB: growth ≤ 1 MiB", "stall", _corral("stall", "growth_mib"), 1, True, " MiB"),
)


@dataclass(frozen=True)
class Column:
    title: str
    show: Callable[[Samples, str, str], str]


def _number(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


def _median(key: str, title: str, digits: int = 1) -> Column:
    return Column(title, lambda samples, scenario, name: _number(middle(samples, scenario, name, key), digits))


def _cpu(title: str) -> Column:
    def show(samples: Samples, scenario: str, name: str) -> str:
        if name == "direct":
            return ""
        values = [s["cpu_us"] for s in samples[scenario][name].values()]
        return f"{median(values):,.1f} ({min(values):,.1f}–{max(values):,.1f})"

    return Column(title, show)


def _times(samples: Samples, scenario: str, name: str) -> str:
    return "" if name == "direct" else _number(ratio(samples, scenario, name, "nginx", "cpu_us"), 2)


def _added(samples: Samples, scenario: str, name: str) -> str:
    mine, bare = (middle(samples, scenario, who, "first_byte_p50_us") for who in (name, "direct"))
    return "" if name == "direct" else _number(None if mine is None or bare is None else mine - bare, 0)


def _percentiles(low: str, high: str, title: str) -> Column:
    def show(samples: Samples, scenario: str, name: str) -> str:
        return " / ".join(_number(middle(samples, scenario, name, key), 0) for key in (low, high))

    return Column(title, show)


def _closed(samples: Samples, scenario: str, name: str) -> str:
    still = middle(samples, scenario, name, "open_still") or 0
    if still:
        return f"still open after 2,000 ms ({still:.0f} of {middle(samples, scenario, name, 'tries'):.0f})"
    return " / ".join(_number(middle(samples, scenario, name, key)) for key in ("closed_p50_ms", "closed_max_ms"))


TIMES = Column("× nginx", _times)
ADDED = Column("added to first byte, p50 µs", _added)
WRONG = Column("wrong answers", lambda samples, scenario, name: str(failures(samples, scenario, name)))
STREAM_COLUMNS = (
    _cpu("CPU µs/chunk (range)"),
    TIMES,
    _median("per_second", "chunks/s", 0),
    ADDED,
    _percentiles("first_byte_p50_us", "first_byte_p99_us", "first byte p50 / p99 µs"),
    _percentiles("delay_p50_us", "delay_p99_us", "chunk delay p50 / p99 µs"),
    WRONG,
)
COLUMNS: dict[str, tuple[Column, ...]] = {
    "unary": (
        _cpu("CPU µs/request (range)"),
        TIMES,
        _median("per_second", "requests/s", 0),
        _median("dialled", "connections to the host", 0),
        ADDED,
        _percentiles("first_byte_p50_us", "first_byte_p99_us", "first byte p50 / p99 µs"),
        WRONG,
    ),
    "stream-200": STREAM_COLUMNS,
    "stream-1000": STREAM_COLUMNS,
    "slow": STREAM_COLUMNS,
    "kept": (
        _median("per_second", "requests/s beside", 0),
        _median("core", "of a core", 2),
        _percentiles("delay_p50_us", "delay_p99_us", "chunk delay p50 / p99 µs"),
        WRONG,
    ),
    "memory-5000": (
        _median("streams", "streams", 0),
        _median("kib_per_stream", "KiB/stream"),
        _median("before_mib", "MiB before"),
        _median("held_mib", "MiB with all"),
        _median("opened_seconds", "seconds to open all"),
        WRONG,
    ),
    "stall": (_median("growth_mib", "growth MiB", 2), _median("megabytes", "MB carried", 0), WRONG),
    "managing": (
        _median("upload_growth_mib", "upload: growth MiB", 2),
        _median("upload_seconds", "seconds"),
        _median("upload_mb_per_second", "MB/s", 0),
        _median("upload_cpu_seconds", "CPU seconds"),
        _median("pull_growth_mib", "pull: growth MiB", 2),
        _median("pull_seconds", "seconds"),
        _median("pull_lines", "lines", 0),
        _median("pull_cpu_seconds", "CPU seconds", 2),
        WRONG,
    ),
    "disconnect": (Column("upstream closed after, p50 / max ms", _closed), _median("tries", "tries", 0)),
}


def scenario_table(samples: Samples, scenario: str) -> str:
    columns = COLUMNS[scenario]
    rows = [["", *(column.title for column in columns)], ["---", *("--:" for _ in columns)]]
    rows += [[name, *(column.show(samples, scenario, name) for column in columns)] for name in samples[scenario]]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def goal_table(samples: Samples) -> str:
    rows = ["| goal | measured | verdict |", "| --- | --: | --- |"]
    for goal in GOALS:
        value, verdict = goal.verdict(samples)
        rows.append(f"| {goal.text} | {value} | {verdict} |")
    return "\n".join(rows)
