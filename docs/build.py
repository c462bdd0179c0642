"""Writes the reference pages from the code: ``python docs/build.py``; ``--check`` fails where a page is stale.

docs/config.md from gateway/config.py, docs/metrics.md from the catalogue, docs/errors.md from the error tree,
docs/cli.md from the command line's own help, docs/access.md (docs/access_page.py) from the table of rights, docs/openapi.json and docs/api.md (docs/api_page.py) from what a gateway says of itself.
A page's text outside the generated tables lives here, beside its table.
"""

import argparse
import ast
import asyncio
import dataclasses
import functools
import inspect
import json
import os
import sys
import tokenize
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any, get_origin, get_type_hints

import aiohttp
from access_page import access_page
from api_page import Json, api_page

from dashboard import __main__ as dashboard
from gateway import cli, config, errors, keyconfig, loader, places
from gateway.app import running
from gateway.fleet.snapshot import FleetSnapshot
from gateway.store.entries import Row
from gateway.telemetry.families import exposed, unit_of
from gateway.telemetry.gauges import Configured, Kept, Live, Turned
from gateway.telemetry.metrics import Metrics
from simulator import __main__ as simulator
from simulator.models import PUBLISHED

DOCS = Path(__file__).parent
os.environ["COLUMNS"] = "100"  # the width of argparse's help


def _comments(source: str) -> dict[int, str]:
    return {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }


def _field_comments() -> dict[tuple[str, str], str]:
    """(class, field) → the comment on the field's line."""
    sources = [inspect.getsource(module) for module in (config, keyconfig)]
    return {
        (node.name, item.target.id): " ".join(filter(None, map(comments.get, range(item.lineno, item.end_lineno + 1))))
        for source, comments in zip(sources, map(_comments, sources), strict=True)
        for node in ast.parse(source).body
        if isinstance(node, ast.ClassDef)
        for item in node.body
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
    }


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default_factory is not dataclasses.MISSING:
        return f"`{field.default_factory()!r}`"
    if field.default is dataclasses.MISSING:
        return "required"
    return f"`{field.default!r}`".replace("'", '"')


def _rows(kind: type, section: str, comments: dict[tuple[str, str], str]) -> Iterator[str]:
    hints = get_type_hints(kind)
    for field in dataclasses.fields(kind):
        named = f"CORRAL_{section}_{field.name}".upper().replace("__", "_")
        variable = named if named in loader.environment_names() else ""
        hint = hints[field.name]
        name = hint.__name__ if isinstance(hint, type) else "str" if "Literal" in str(get_origin(hint)) else str(hint)
        text = comments[kind.__name__, field.name]
        if name == "str" and (values := getattr(hint, "__args__", ())):
            text = f"{' or '.join(f'`{value}`' for value in values)}. {text}"
        yield f"| `{field.name}` | {name} | {_default(field)} | {f'`{variable}`' if variable else ''} | {text} |"


def config_page() -> str:
    """docs/config.md."""
    comments = _field_comments()
    lines = [
        "# Configuration",
        "",
        "Corral reads a TOML file (`--config`, else `$CORRAL_CONFIG`, else `./corral.toml` if it is there), then the environment, then",
        "flags; later ones win. An unknown key is an error that names the nearest one. Times are in seconds, sizes in bytes. A list in the",
        "environment has commas between its parts; a variable that is empty says nothing, as if it were not there.",
        "`corral check` prints what is in force and asks each host. `corral.example.toml` is a file to start from.",
        "",
        "## Top level",
        "",
        "| key | type | default | environment | meaning |",
        "| --- | --- | --- | --- | --- |",
        f'| `listen` | str | `"{places.DEFAULT_LISTEN}"` | `CORRAL_LISTEN` | {comments["Config", "listen"]} |',
        "| `hosts` | tables | required | `CORRAL_HOSTS` | see below; in the environment `gpu1=http://…,gpu2=http://…`; without `NAME=` named after its address |",
        "| `placement` | tables | none |  | see below |",
        "| `reloads` | tables | none |  | see below |",
        "| `warm` | tables | none |  | see below |",
        f"| `pin` | tuple[str, ...] | `()` | `CORRAL_PIN` | {comments['Config', 'pin']} |",
        "| `keys` | tables | none |  | see below; `corral keys create` makes others, in the database |",
        f'| `account_host` | str | `""` | `CORRAL_ACCOUNT_HOST` | {comments["Config", "account_host"]} |',
    ]
    sections = get_type_hints(config.Config) | config.TABLES
    for section, kind in sections.items():
        if not dataclasses.is_dataclass(kind):
            continue
        title = f"[[{section}]]" if section in config.TABLES else f"[{section}]"
        doc = inspect.getdoc(kind) or ""
        lines += [
            "",
            f"## `{title}`",
            "",
            doc,
            "",
            "| key | type | default | environment | meaning |",
            "| --- | --- | --- | --- | --- |",
        ]
        lines += _rows(kind, section, comments)
    return "\n".join(lines) + "\n"


def metrics_page() -> str:
    """docs/metrics.md."""
    known = Metrics(_nothing_live, lambda _: True, genai_semconv=True)
    lines = [
        "# Metrics",
        "",
        "What `GET /metrics` tells, in Prometheus' text format; in OpenMetrics, with exemplars of the traces that are kept, where the",
        "request's Accept names `application/openmetrics-text`. Seconds and bytes only; a model is a label value only once some host",
        "had it (else `_unknown`; `_other` beyond 200), a host by its configured name (`_other` beyond 256), everything else of a fixed",
        "set. Counters of such sets are there at 0 from the start. Gauges are read from the live state at the moment of the scrape.",
        "`process_*` and `python_*` come from prometheus-client. Why each is what it is: docs/decisions/0012.",
        "",
        "| metric | type | unit | labels | meaning |",
        "| --- | --- | --- | --- | --- |",
    ]
    for family in known.declared():
        bounds = getattr(family, "bounds", ())
        buckets = f" Buckets: {' '.join(f'{bound:g}' for bound in bounds)}." if bounds else ""
        labels = ", ".join(f"`{label}`" for label in family.labelnames)
        name = exposed(family.kind, family.name)
        lines.append(f"| `{name}` | {family.kind} | {unit_of(family.name)} | {labels} | {family.help}{buckets} |")
    lines += ["", "`gen_ai_*` are there with `metrics.genai_semconv = true` only."]
    return "\n".join(lines) + "\n"


def _nothing_live() -> Live:
    return Live(
        *(FleetSnapshot(0.0, ()), (), 0.0, {}, 1, 0.0, {}, {}, Kept(0, 0, 0, 0), Turned(0, {}), 0),
        *(Configured(True, 0.0), ("", "", "")),
    )


def errors_page() -> str:
    """docs/errors.md."""
    lines = [
        "# Errors",
        "",
        "Errors come in the dialect of the path that was called: Ollama's `{\"error\": text}`, OpenAI's",
        '`{"error": {"message", "type", "param", "code"}}`, Anthropic\'s `{"type": "error", "error": {…}}`. Corral\'s own carry their code in',
        "the header `X-Corral-Error`; a 503 carries `Retry-After` where it can help to try again: not where no database is configured, and",
        "not that of `/readyz` and `/healthz/storage`, which are reports. What a host answers about a request (an unknown option, a model",
        "that cannot do tools) is passed on as it came.",
        "",
        "| code | status | whose fault | when |",
        "| --- | --: | --- | --- |",
    ]
    for kind in vars(errors).values():
        if inspect.isclass(kind) and issubclass(kind, errors.CorralError) and kind is not errors.ConfigError:
            doc = (inspect.getdoc(kind) or "").partition("\n")[0]
            lines.append(f"| `{kind.code}` | {kind.status} | {kind.fault} | {doc} |")
    lines += [
        "",
        "After the first byte no status can be sent any more. A stream that breaks off or is stopped ends in a line or event of its own:",
        "",
        "| dialect | a host broke off, the deadline passed, or Corral stops | an operator stopped it |",
        "| --- | --- | --- |",
        '| Ollama | `{"error": "host gpu1 …"}` | `{"done": true, "done_reason": "cancelled", …}` |',
        '| OpenAI chat, completions | `data: {"error": {…}}`, no `[DONE]` | a chunk with `"finish_reason": "cancelled"`, then `[DONE]` |',
        "| OpenAI responses | `response.failed` | `response.incomplete`, reason `cancelled` |",
        '| Anthropic | `event: error` | `message_delta` with `"stop_reason": "cancelled"`, `message_stop` |',
        "",
        "OpenAI's have the id of the stream that they end.",
        "",
        "What Ollama itself swallows (a runner that dies in the middle of a /v1 stream ends it without `[DONE]`, `message_stop` or",
        "`response.completed`) is passed on as it came; the record says `upstream_error`.",
        "",
        "An answer that is one JSON object cannot be ended in words: its connection is closed, so that the client sees it is not whole.",
        "",
        "A host's failure counts as the host's when it is a refused or broken connection, something that is not HTTP, 429, 502, 503, 504,",
        "a 404 for a model it had listed, or a 500 that says its runner failed (could not load, ran out of memory, died). Before the first",
        "byte the request then goes to another host.",
    ]
    return "\n".join(lines) + "\n"


def cli_page() -> str:
    """docs/cli.md."""
    root = cli.parser()
    lines = ["# Command line", "", "```", root.format_help().strip(), "```"]
    for name in ("serve", "check", "demo", "top", "status", "keys", "db", "export"):
        lines += ["", f"## corral {name}", "", "```", _command(root, name).format_help().strip(), "```"]
        if name in ("keys", "db"):
            for step in _commands(_command(root, name)):
                lines += [
                    "",
                    f"### corral {name} {step}",
                    "",
                    "```",
                    _command(_command(root, name), step).format_help().strip(),
                    "```",
                ]
    lines += [
        "",
        f"The columns are {', '.join(f'`{name}`' for name in Row._fields)}: times end in `_ms`, `ts_us` is when the request came, in",
        "microseconds since 1970 (in Parquet a timestamp), `reported` whether the host counted the tokens. What is unknown is empty.",
        "",
        "## corral simulate",
        "",
        "The same as `python -m simulator`. Hosts begin with `--models`, of any name: an unknown one gets its size from its tag (`:7b`). They can pull",
        f"{', '.join(f'`{name}`' for name in PUBLISHED)}; every other name is `pull model manifest: file does not exist`. A pull that was",
        "broken off keeps the layers that were whole and begins the others anew; a real Ollama goes on in the middle of a layer.",
        "",
        "```",
        simulator.parser().format_help().strip(),
        "```",
        "",
        "## corral dashboard",
        "",
        "The same as `python -m dashboard`; needs `pip install '.[dashboard]'`.",
        "",
        "```",
        dashboard.parser().format_help().strip(),
        "```",
    ]
    return "\n".join(lines) + "\n"


def _command(parser: argparse.ArgumentParser, name: str) -> argparse.ArgumentParser:
    return _commands(parser)[name]


def _commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    commands = next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return commands.choices


@functools.cache
def _document() -> Json:
    """What a gateway answers at /openapi.json."""

    async def asked() -> Json:
        async with (
            running(config.Config(listen="127.0.0.1:0")) as gateway,
            aiohttp.ClientSession(gateway.url) as session,
            session.get("/openapi.json") as answer,
        ):
            document: Json = await answer.json()
            return document

    return asyncio.run(asked())


PAGES = {
    "config.md": config_page,
    "metrics.md": metrics_page,
    "errors.md": errors_page,
    "cli.md": cli_page,
    "openapi.json": lambda: json.dumps(_document(), indent=2, ensure_ascii=False) + "\n",
    "api.md": lambda: api_page(_document()),
    "access.md": access_page,
}


def main() -> int:
    """Write the pages, or with --check tell which are stale (exit 1)."""
    stale = []
    for name, make in PAGES.items():
        path, text = DOCS / name, make()
        if "--check" not in sys.argv:
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
    if stale:
        print(f"stale: {', '.join(f'docs/{name}' for name in stale)}; run: python docs/build.py", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
