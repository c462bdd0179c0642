"""The command line: parse, call, exit code. Each command loads what it needs when it is called: `corral status` in a script waits for no database's code."""

import argparse
import errno
import importlib.util
import json
import math
import os
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.config import Config, DatabaseConfig
from gateway.errors import BadRequest, ConfigError, StoreUnavailable
from gateway.loader import (
    FILES,
    api_key,
    config_file,
    database_config,
    gateway_files,
    gateway_url,
    keys_config,
    mistyped,
)
from gateway.loader import load as read_config
from gateway.places import DEFAULT_LISTEN
from gateway.process import build, package_version
from gateway.record import Outcome

if TYPE_CHECKING:
    import ssl

    from gateway.store.export import Sink

DEFAULT_APP = "127.0.0.1:8501"
BROKEN_PIPE = 141  # as a shell has it of who dies of SIGPIPE
LIMITS = ("rpm", "tpm", "concurrency", "budgets", "priority", "share")
PRIORITIES = ("interactive", "normal", "background")
PROGRAMS = {"simulate": "simulator", "dashboard": "dashboard"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``corral``; the exit code is 0, or 1 for a clear error, or 2 for wrong usage."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] in (["simulate"], ["dashboard"]):  # programs of their own, with options and signals of their own
        if arguments[0] == "dashboard" and importlib.util.find_spec("streamlit") is None:
            print("corral: the app is not installed: pip install '.[dashboard]'", file=sys.stderr)
            return 1
        os.execv(sys.executable, [sys.executable, "-m", PROGRAMS[arguments[0]], *arguments[1:]])
    parsed = parser().parse_args(arguments)
    try:
        code = int(parsed.run(parsed))
        sys.stdout.flush()
    except (
        BrokenPipeError
    ):  # whoever read has enough, as `head` has; so that the interpreter does not try to say more at its end:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except ConfigError as error:
        print(f"corral: {error.message}", file=sys.stderr)
        return 2 if parsed.run is _status else 1  # 1 would say that a gateway is degraded, and none was asked
    except KeyboardInterrupt:
        return 130
    return code


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    root = argparse.ArgumentParser(prog="corral", description="One Ollama address for a fleet.")
    root.add_argument("--version", action="version", version=f"corral {package_version()} ({build()})")
    commands = root.add_subparsers(required=True, metavar="COMMAND")
    for name, run, text in (
        ("serve", _serve, "run the gateway"),
        ("check", _check, "print the effective configuration and probe each host"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument(
            "--config", type=Path, help="TOML file (default: $CORRAL_CONFIG, or ./corral.toml if there)"
        )
        command.add_argument("--listen", help=f"address:port or unix:PATH (default {DEFAULT_LISTEN})")
        command.add_argument(
            "--host",
            action="append",
            default=[],
            metavar="NAME=URL",
            help="an Ollama host, an address alone means port 11434; may be repeated; without NAME= it is named after its address",
        )
        command.set_defaults(run=run)
    text = "three simulated hosts, the gateway and the app, until Ctrl-C"
    command = commands.add_parser("demo", help=text, description=text)
    command.add_argument(
        "--listen", default=DEFAULT_LISTEN, help=f"address:port (default {DEFAULT_LISTEN}, another if that is taken)"
    )
    command.add_argument(
        "--app",
        default=DEFAULT_APP,
        metavar="LISTEN",
        help=f"address:port of the app, which comes with the extra [dashboard]; empty: no app (default {DEFAULT_APP}, another if that is taken)",
    )
    command.set_defaults(run=_demo)
    _add_watching(commands)
    _add_db(commands)
    _add_export(commands)
    _add_keys(commands)
    for name, text in (
        ("simulate", "simulated Ollama hosts, until Ctrl-C"),
        ("dashboard", "the app in a browser: chat, model talk, sessions, metrics, fleet"),
    ):
        commands.add_parser(name, help=text, description=f"{text}. Its options: corral {name} --help", add_help=False)
    return root


def _add_watching(commands: Any) -> None:
    for name, run, text in (
        ("top", _top, "watch a running gateway: hosts, models, what is in flight; cancel and drain by key"),
        ("status", _status, "say how a running gateway and its hosts are: exit code 0 well, 1 degraded, 2 no gateway"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("--gateway", metavar="URL", help=f"default: $OLLAMA_HOST, or {DEFAULT_LISTEN}")
        for option, (variable, what) in FILES.items():
            command.add_argument(f"--{option.replace('_', '-')}", metavar="FILE", help=f"{what} (default: ${variable})")
        command.set_defaults(run=run)
        if name == "top":
            command.add_argument(
                "--interval", type=_interval, default=1.0, metavar="SECONDS", help="between looks (%(default)s)"
            )
        else:
            command.add_argument("--json", action="store_true", help="one JSON object (docs/operations.md)")


def _interval(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.1 <= value <= 3600:
        raise argparse.ArgumentTypeError(f"seconds, from 0.1 to 3600, not {text!r}")
    return value


def _gateway(parsed: argparse.Namespace) -> "tuple[str, ssl.SSLContext | None]":
    from gateway.fleet.host import Link
    from gateway.fleet.tls import context_of

    url = gateway_url(parsed.gateway, os.environ)
    files = gateway_files(url, vars(parsed), os.environ)
    return url, context_of(Link(*files)) if any(files) else None


def _top(parsed: argparse.Namespace) -> int:
    from gateway.top import program

    url, tls = _gateway(parsed)
    return int(_run(program.run(url, parsed.interval, api_key(os.environ), tls)))


def _status(parsed: argparse.Namespace) -> int:
    from gateway import status
    from gateway.top.asking import Unreachable, looked

    url, tls = _gateway(parsed)
    try:
        look = _run(looked(url, api_key(os.environ), tls))
    except Unreachable as error:
        code, told = status.UNREACHABLE, status.unreachable(url, str(error))
    else:
        code, told = status.verdict(look)[0], status.status(url, look)
    print(json.dumps(told, indent=2) if parsed.json else status.in_words(told))
    return code


def _add_db(commands: Any) -> None:
    text = "look after the database of sessions and requests"
    command = commands.add_parser("db", help=text, description=text)
    steps = command.add_subparsers(required=True, metavar="STEP")
    for name, what in (
        ("migrate", "bring the database to this version's schema; corral serve does it as well"),
        ("check", "say what is in it, and whether it is sound"),
        ("prune", "delete what is over its time now; corral serve does so by the hour"),
        ("vacuum", "give back the space of what was deleted"),
    ):
        parser = steps.add_parser(name, help=what, description=what)
        _add_database(parser)
        parser.set_defaults(run=partial(_db_step, name))
    what = "everything into another database, which must be empty; stop the gateways first"
    parser = steps.add_parser("copy", help=what, description=what)
    _add_database(parser)
    parser.add_argument(
        "--to", required=True, metavar="URL", help="postgresql://user:password@host/name, or sqlite:///…"
    )
    parser.set_defaults(run=partial(_db_step, "copy"))


def _db_step(name: str, parsed: argparse.Namespace) -> int:
    from gateway import db

    steps: dict[str, Callable[[DatabaseConfig], Coroutine[Any, Any, str]]] = {
        "migrate": db.migrate,
        "check": db.check,
        "prune": db.prune,
        "vacuum": db.vacuum,
        "copy": lambda config: db.copy(config, parsed.to),
    }
    return _db(steps[name], parsed)


def _add_database(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, help="TOML file (default: $CORRAL_CONFIG, or ./corral.toml if there)")
    parser.add_argument("--database", help="its url, instead of the configured one")


def _add_export(commands: Any) -> None:
    text = "write the requests that are kept into a file"
    command = commands.add_parser("export", help=text, description=text)
    kind = command.add_mutually_exclusive_group(required=True)
    kind.add_argument("--csv", type=Path, metavar="FILE", help="- is standard output")
    kind.add_argument("--parquet", type=Path, metavar="FILE", help="needs pyarrow: pip install '.[parquet]'")
    command.add_argument("--range", help="15m, 24h, 7d, 2w (default: everything)")
    command.add_argument("--from", help="like 2026-11-22T14:00:00Z, or Unix seconds")
    command.add_argument("--to", help="idem")
    command.add_argument("--model", help="its name as in the records")
    command.add_argument("--host", help="its name")
    command.add_argument("--outcome", choices=["failed", *Outcome], help="failed: all but ok")
    _add_database(command)
    command.set_defaults(run=_export)


def _add_keys(commands: Any) -> None:
    text = "make keys for callers, list them, take them away"
    command = commands.add_parser("keys", help=text, description=text)
    steps = command.add_subparsers(required=True, metavar="STEP")
    for name, what in (
        ("create", "make a key, and show it this once"),
        ("limit", "other limits for a key; those that are left out stay as they are, 0 takes one away"),
        ("rotate", "another key for the same name; the old one is no good any more"),
        ("revoke", "make a key worthless"),
        ("list", "all keys, without what it takes to use them"),
        ("hash", "a key that stands in the configuration, not in the database"),
    ):
        parser = steps.add_parser(name, help=what, description=what)
        if name in ("create", "limit", "rotate", "revoke"):
            parser.add_argument("name", metavar="NAME", help="whose it is: in records, sessions and the log")
        if name == "create":
            parser.add_argument(
                "--role", choices=("user", "operator", "admin"), default="user", help="default %(default)s"
            )
            parser.add_argument("--models", type=_words, default=(), metavar="PATTERNS", help="like 'llama3*,qwen*'")
            parser.add_argument("--hosts", type=_words, default=(), metavar="PATTERNS", help="like 'gpu1,lab-*'")
            parser.add_argument("--expires", default="", metavar="DAY", help="like 2027-01-31; its end, in UTC")
            parser.add_argument(
                "--again",
                action="store_true",
                help="though a key of that name was revoked: what is that name's is the new holder's",
            )
        if name in ("create", "limit"):
            parser.add_argument("--rpm", type=int, metavar="N", help="requests to models in any 60 seconds")
            parser.add_argument("--tpm", type=int, metavar="N", help="tokens, in and out, in any 60 seconds")
            parser.add_argument("--concurrency", type=int, metavar="N", help="requests that wait or run at a time")
            parser.add_argument(
                "--budget",
                dest="budgets",
                action="append",
                metavar="N/day",
                help="tokens of a day, or N/month of a month (UTC); may be given twice, for both; in place of all that there were",
            )
            parser.add_argument("--priority", choices=PRIORITIES, help="the most urgent that its requests can be")
            parser.add_argument("--share", type=float, metavar="X", help="its weight where others wait too (1)")
        _add_database(parser)
        parser.set_defaults(run=partial(_keys, name))


def _limits(parsed: argparse.Namespace) -> dict[str, Any]:
    return {name: getattr(parsed, name) for name in LIMITS if getattr(parsed, name) is not None}


def _words(text: str) -> tuple[str, ...]:
    words = tuple(word.strip() for word in text.split(",") if word.strip())
    if not words:  # an unset variable of a shell must not mean all
        raise argparse.ArgumentTypeError("names none; leave it out for all")
    return words


def _keys(step: str, parsed: argparse.Namespace) -> int:
    from gateway import keys

    environ = dict(os.environ) | ({"CORRAL_DATABASE_URL": parsed.database} if parsed.database else {})
    config = keys_config(parsed.config, environ)
    if step == "hash":
        print(keys.hashed(config))
        return 0
    steps = {
        "create": lambda: keys.create(
            *(config, parsed.name, parsed.role, parsed.models, parsed.hosts, parsed.expires, _limits(parsed)),
            again=parsed.again,
        ),
        "limit": lambda: keys.limit(config, parsed.name, _limits(parsed)),
        "rotate": lambda: keys.rotate(config, parsed.name),
        "revoke": lambda: keys.revoke(config, parsed.name),
        "list": lambda: keys.listed(config),
    }
    try:
        print(_run(steps[step]()))
    except StoreUnavailable as error:
        print(f"corral: {error.message}", file=sys.stderr)
        return 1
    return 0


def _export(parsed: argparse.Namespace) -> int:
    from gateway import db
    from gateway.api.span import span
    from gateway.store.export import STDOUT, CsvSink, ParquetSink
    from gateway.store.history import Filter

    query = {name: value for name in ("range", "from", "to") if (value := getattr(parsed, name))} or {"from": "0"}
    sink: Callable[[], Sink] = partial(CsvSink, parsed.csv) if parsed.csv else partial(ParquetSink, parsed.parquet)
    try:
        wanted = Filter(*span(query, time.time()), model=parsed.model, host=parsed.host, outcome=parsed.outcome)
        return _db(partial(db.export, wanted=wanted, sink=sink), parsed, quiet=parsed.csv == STDOUT)
    except BadRequest as error:
        print(f"corral: --{error.message}", file=sys.stderr)
    except BrokenPipeError:
        raise
    except OSError as error:
        print(f"corral: {error.filename}: {error.strerror}", file=sys.stderr)
    return 1


def _db(
    step: Callable[[DatabaseConfig], Coroutine[Any, Any, str]], parsed: argparse.Namespace, *, quiet: bool = False
) -> int:
    """``quiet``: standard output is for the rows."""
    environ = dict(os.environ) | ({"CORRAL_DATABASE_URL": parsed.database} if parsed.database else {})
    try:
        print(_run(step(database_config(parsed.config, environ))), file=sys.stderr if quiet else None)
    except StoreUnavailable as error:
        print(f"corral: {error.message}", file=sys.stderr)
        return 1
    return 0


def _config(parsed: argparse.Namespace) -> Config:
    from gateway.certificates import check_files

    for name, near in mistyped(os.environ).items():
        print(f"corral: the variable {name} means nothing; did you mean {near}?", file=sys.stderr)
    config = read_config(parsed.config, os.environ, listen=parsed.listen, hosts=parsed.host)
    check_files(config)
    return config


def _serve(parsed: argparse.Namespace) -> int:
    return _serve_config(_config(parsed), lambda: _config(parsed), config_file(parsed.config, os.environ))


def _demo(parsed: argparse.Namespace) -> int:
    from gateway.demo import demo

    return demo(parsed.listen, parsed.app, _serve_config)


def _serve_config(config: Config, load: Callable[[], Config] | None = None, file: Path | None = None) -> int:
    from gateway.listen import explain_taken
    from gateway.listeners import CannotListen
    from gateway.serve import serve

    try:
        _run(serve(config, load, file))
    except CannotListen as error:
        place = error.place
        if error.errno != errno.EADDRINUSE or place.path:
            print(f"corral: cannot listen on {place}: {error.strerror}", file=sys.stderr)
        else:
            print(f"corral: {explain_taken(place.address, place.port)}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"corral: cannot start: {error}", file=sys.stderr)
        return 1
    return 0


def _run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    import asyncio

    from gateway.loop import LOOP

    with asyncio.Runner(loop_factory=LOOP) as runner:
        return runner.run(coroutine)


def _check(parsed: argparse.Namespace) -> int:
    from gateway import check

    config = _config(parsed)
    print(check.effective(config))
    return 0 if _run(check.probe(config)) else 1
