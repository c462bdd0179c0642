"""A look as a picture: values → what rich draws. Pure; it knows neither terminal nor clock.

From top to bottom: the gateway, what it does, what is amiss, hosts, loaded models, generations, and a line for the one who watches.
Where the screen is too low, each table gives up lines, the longest first, and shows those around the choice.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from gateway.top.desk import Choice, Desk, Verb, short
from gateway.top.look import Look, SeenGeneration, SeenHost, SeenModel
from gateway.top.rates import Rates
from gateway.top.words import duration, latency, left, plain, size, speed

KEYS = "↑↓ choose   tab other table   c cancel   d drain/resume   q quit"
WIDE = 100  # columns from which a client's address has room
_FIXED = 9  # lines that are always there: two of the gateway, three tables with head and distance, the last line
_COLOURS = {"healthy": "green", "suspect": "yellow", "trial": "yellow", "ejected": "red", "draining": "cyan"}


@dataclass(frozen=True, slots=True)
class Picture:
    """All that is drawn. ``down``: why there is no newer look, else empty; ``down_seconds`` how long that has been so."""

    url: str
    look: Look | None = None
    rates: Rates = field(default_factory=Rates)
    down: str = ""
    down_seconds: float = 0.0
    desk: Desk | None = None  # None: nobody is there to press keys


def painted(picture: Picture, width: int, height: int | None = None) -> RenderableType:
    """What is drawn on ``width`` columns and at most ``height`` lines; None: as many as it takes."""
    parts: list[RenderableType] = [_title(picture), _down(picture) if picture.down else _doing(picture)]
    look = picture.look
    if look is not None:
        amiss = _amiss(look)
        models = [(host, model) for host in look.fleet.hosts for model in host.models]
        wants = [len(amiss), len(look.fleet.hosts), len(models), len(look.generations)]
        rooms = wants if height is None else shared(height - _FIXED, wants)
        choice = picture.desk.choice if picture.desk else None
        parts += amiss[: rooms[0]]
        parts += [Text(), _hosts(look.fleet.hosts, picture, rooms[1], choice)]
        parts += [Text(), _models(models, look.wall, rooms[2])]
        parts += [Text(), _generations(look.generations, picture, rooms[3], choice, wide=width >= WIDE)]
    if picture.desk is not None:
        parts.append(_footer(picture.desk))
    return Group(*parts)


def shared(room: int, wants: Sequence[int]) -> list[int]:
    """``room`` lines among those who want some: who wants little gets all of it, the others get the same."""
    given = [0] * len(wants)
    for _ in range(max(0, room)):
        open_ = [place for place, want in enumerate(wants) if given[place] < want]
        if not open_:
            break
        given[min(open_, key=given.__getitem__)] += 1
    return given


def window(count: int, room: int, chosen: int | None) -> tuple[int, int]:
    """Which of ``count`` lines are shown in ``room``: from, until; those around the chosen one."""
    if count <= room:
        return 0, count
    start = max(0, min((chosen or 0) - room // 2, count - room))
    return start, start + room


Part = str | tuple[str, str]
"""Text, or text with its style."""


def _text(*parts: Part) -> Text:
    """Text that neither the terminal nor rich takes for more than that."""
    text = Text(no_wrap=True, overflow="ellipsis")
    for part in parts:
        words, style = (part, "") if isinstance(part, str) else part
        text.append(plain(words), style)
    return text


def _title(picture: Picture) -> Text:
    look = picture.look
    if look is None:
        return _text(("Corral", "bold"), f"  {picture.url}")
    told, state = look.scrape, look.readiness
    ready = ("ready", "green") if state.ready else ("stopping" if state.draining else "not ready", "bold red")
    storage = (f"storage {state.storage}", "red" if state.storage == "degraded" else "")
    up = f"up {duration(look.wall - told.started)}" if told.started else ""
    name = f"Corral {told.version}" + (" (compiled)" if told.build == "compiled" else "")
    return _text((name, "bold"), f"  {picture.url}  ", ready, "  ", storage, f"  {up}")


def _down(picture: Picture) -> Text:
    seen = "" if picture.look is None else f" What follows is {duration(picture.down_seconds)} old."
    return _text(("no answer: ", "bold red"), picture.down, f"; trying again.{seen}")


def _doing(picture: Picture) -> Text:
    look, rates = picture.look, picture.rates
    if look is None:
        return _text(("asking …", "dim"))
    parts: list[Part] = [f"in flight {len(look.generations) - look.queued}  "]
    parts.append((f"queued {look.queued}  ", "yellow" if look.queued else ""))
    if rates.tokens_per_second is not None:
        failed = rates.failures.total()
        parts.append(f"{speed(rates.tokens_per_second)} tok/s  ")
        parts.append((f"errors {failed}/{rates.requests}  ", "bold red" if failed else ""))
        if rates.ttft_p50 is not None and rates.ttft_p95 is not None:
            parts.append(f"TTFT {latency(rates.ttft_p50)} p95 {latency(rates.ttft_p95)}  ")
        parts.append(f"in {duration(rates.seconds)}")
        parts += [f"  {outcome} {n}" for outcome, n in rates.failures.most_common()]
    return _text(*parts)


def _amiss(look: Look) -> list[Text]:
    """A line for each host that is not well, then for each finding."""
    lines = [
        _text((f"{host.name} {host.health}: ", _COLOURS.get(host.health, "")), host.why)
        for host in look.fleet.hosts
        if not host.well
    ]
    return lines + [_text((finding.text, "yellow")) for finding in look.fleet.findings]


def _table(*columns: tuple[str, str]) -> Table:
    """A table on the whole width; a column is ``left`` (takes what is left), ``right`` or ``tight``."""
    table = Table(box=None, expand=True, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name, kind in columns:
        table.add_column(
            name,
            justify="right" if kind == "right" else "left",
            ratio=1 if kind == "left" else None,
            no_wrap=True,
            overflow="ellipsis",
            min_width=min(len(name), 6),
        )
    return table


def _add(table: Table, name: str, *cells: Part, chosen: bool = False) -> None:
    """A line. A chosen one has a mark as well: it can be seen without colours."""
    table.add_row(_text(f"{'▸' if chosen else ' '} {name}"), *map(_text, cells), style="reverse" if chosen else "")


def _headed(name: str, shown: int, count: int) -> str:
    return f"  {name}" if shown == count else f"  {name} ({shown} of {count})"


def _hosts(hosts: Sequence[SeenHost], picture: Picture, room: int, choice: Choice | None) -> Table:
    chosen = next((n for n, host in enumerate(hosts) if choice == Choice(host.name, host=True)), None)
    start, end = window(len(hosts), room, chosen)
    table = _table(
        (_headed("HOST", end - start, len(hosts)), "left"),
        ("HEALTH", "tight"),
        ("OLLAMA", "tight"),
        ("LATENCY", "right"),
        ("SLOTS", "right"),
        ("TOK/S", "right"),
        ("SEEN", "right"),
    )
    for number, host in enumerate(hosts[start:end], start):
        state = "draining" if host.draining and host.well else host.health
        seen = "never" if host.seen_seconds_ago is None else duration(host.seen_seconds_ago)
        _add(
            table,
            host.name,
            (state + (", draining" if host.draining and not host.well else ""), _COLOURS.get(state, "")),
            host.version,
            latency(host.latency_seconds) if host.version else "",
            (f"{host.leases}/{host.slots}", "yellow" if host.leases >= host.slots else ""),
            speed(picture.rates.by_host.get(host.name)),
            seen,
            chosen=number == chosen,
        )
    return table


def _models(models: Sequence[tuple[SeenHost, SeenModel]], wall: float, room: int) -> Table:
    start, end = window(len(models), room, None)
    kept = any(host.models_kept for host, _ in models)
    columns = [
        (_headed("LOADED MODEL", end - start, len(models)), "left"),
        ("HOST", "tight"),
        ("VRAM", "right"),
        ("ON GPU", "right"),
        ("CONTEXT", "right"),
        ("EXPIRES", "right"),
    ]
    table = _table(*columns, *([("KEPT", "tight")] if kept else []))
    for host, model in models[start:end]:
        share = f"{100 * model.size_vram / model.size:.0f} %" if model.size else ""
        _add(
            table,
            model.name,
            host.name,
            size(model.size_vram) if model in host.models_loaded else "",
            share,
            f"{model.context_length:.0f}" if model.context_length else "",
            left(model.expires_at, wall) if model in host.models_loaded else "",
            *([_kept(host, model)] if kept else []),
        )
    return table


def _kept(host: SeenHost, model: SeenModel) -> Part:
    keep = host.kept(model)
    if keep is None:
        return ""
    if model in host.models_loaded:
        return keep.kind
    return f"{keep.kind}, {keep.state}", "yellow" if keep.state in ("due", "loading") else "red"


def _generations(
    generations: Sequence[SeenGeneration], picture: Picture, room: int, choice: Choice | None, *, wide: bool
) -> Table:
    chosen = next((n for n, one in enumerate(generations) if choice == Choice(one.id, host=False)), None)
    start, end = window(len(generations), room, chosen)
    columns = [
        (_headed("IN FLIGHT", end - start, len(generations)), "left"),
        ("ID", "tight"),
        ("HOST", "tight"),
        ("PHASE", "tight"),
        ("AGE", "right"),
        ("TOKENS", "right"),
        ("TOK/S", "right"),
    ]
    table = _table(*columns, *([("CLIENT", "tight")] if wide else []))
    for number, one in enumerate(generations[start:end], start):
        _add(
            table,
            one.model,
            short(one.id),
            one.host or "",
            (one.phase, "yellow" if one.phase == "queued" else ""),
            duration(one.age_seconds),
            str(one.tokens),
            speed(picture.rates.by_generation.get(one.id)),
            *([one.client] if wide else []),
            chosen=number == chosen,
        )
    return table


def _footer(desk: Desk) -> Text:
    if desk.question:
        verb = "Cancel" if desk.question.verb is Verb.CANCEL else "Drain"
        return _text((f"{verb} {desk.question.words}? ", "bold"), "y yes   any other key no")
    return _text(desk.note) if desk.note else _text((KEYS, "dim"))
