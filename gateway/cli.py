"""The command line: parse, call, exit code."""

import argparse
import asyncio
import dataclasses
import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from gateway.config import DEFAULT_LISTEN, Config, split_listen
from gateway.errors import ConfigError
from gateway.fleet.client import HostClient, HostError
from gateway.fleet.discovery import Discovery
from gateway.fleet.host import Host
from gateway.listen import explain_taken
from gateway.loader import config_file, from_tree, mistyped
from gateway.loader import load as read_config
from gateway.process import build, package_version
from gateway.serve import serve

LOOP: Callable[[], asyncio.AbstractEventLoop]
try:
    import uvloop

    LOOP = uvloop.new_event_loop
except ImportError:  # Windows, PyPy: asyncio's own loop serves as well, only slower
    LOOP = asyncio.new_event_loop

DEMO_HOSTS = 3


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``corral``; the exit code is 0, or 1 for a clear error, or 2 for wrong usage."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["simulate"]:  # its options are the simulator's own
        os.execv(
            sys.executable, [sys.executable, "-m", "simulator", *arguments[1:]]
        )  # so that signals are its own, too
    parsed = parser().parse_args(arguments)
    try:
        return int(parsed.run(parsed))
    except ConfigError as error:
        print(f"corral: {error.message}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


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
        command.add_argument("--listen", help=f"address:port (default {DEFAULT_LISTEN})")
        command.add_argument(
            "--host", action="append", default=[], metavar="NAME=URL", help="an Ollama host; may be repeated"
        )
        command.set_defaults(run=run)
    text = "three simulated hosts and the gateway, until Ctrl-C"
    demo = commands.add_parser("demo", help=text, description=text)
    demo.add_argument(
        "--listen", default=DEFAULT_LISTEN, help=f"address:port (default {DEFAULT_LISTEN}, another if that is taken)"
    )
    demo.set_defaults(run=_demo)
    text = "simulated Ollama hosts, until Ctrl-C"
    commands.add_parser(
        "simulate", help=text, description=f"{text}. Its options: corral simulate --help", add_help=False
    )
    return root


def _config(parsed: argparse.Namespace) -> Config:
    for name, near in mistyped(os.environ).items():
        print(f"corral: the variable {name} means nothing; did you mean {near}?", file=sys.stderr)
    return read_config(parsed.config, os.environ, listen=parsed.listen, hosts=parsed.host)


def _serve(parsed: argparse.Namespace) -> int:
    return _serve_config(_config(parsed), lambda: _config(parsed), config_file(parsed.config, os.environ))


def _serve_config(config: Config, load: Callable[[], Config] | None = None, file: Path | None = None) -> int:
    try:
        _run(serve(config, load, file))
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            print(f"corral: cannot listen on {config.listen}: {error.strerror or error}", file=sys.stderr)
        else:
            print(f"corral: {explain_taken(*split_listen(config.listen))}", file=sys.stderr)
        return 1
    return 0


def _run(coroutine: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=LOOP) as runner:
        runner.run(coroutine)


def _check(parsed: argparse.Namespace) -> int:
    config = _config(parsed)
    print(json.dumps(dataclasses.asdict(config), indent=2))
    healthy: list[bool] = []
    _run(_probe(config, healthy))
    return 0 if healthy and all(healthy) else 1


async def _probe(config: Config, healthy: list[bool]) -> None:
    client = HostClient(config.poll.timeout_seconds, config.relay.connect_timeout_seconds)
    try:
        hosts: list[Host] = []
        await Discovery(config, hosts.extend).step()
        for host in hosts:
            try:
                version, models, loaded = (
                    await client.version(host),
                    await client.available(host),
                    await client.loaded(host),
                )
            except HostError as error:
                print(f"{host.name:12} {host.url:36} FAILED: {error}")
                healthy.append(False)
                continue
            names = ", ".join(model.name for model in loaded) or "none"
            print(f"{host.name:12} {host.url:36} ok: Ollama {version}, {len(models)} models, loaded: {names}")
            healthy.append(True)
    finally:
        await client.close()


def _demo(parsed: argparse.Namespace) -> int:
    command = [sys.executable, "-m", "simulator", "--hosts", str(DEMO_HOSTS), "--base-port", "0", "--json"]
    # In a session of its own: Ctrl-C is for the gateway, which lets streams finish; the hosts end after it.
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as simulator:
        try:
            assert simulator.stdout is not None
            rows = [json.loads(simulator.stdout.readline()) for _ in range(DEMO_HOSTS)]
            hosts = [{"name": row["name"], "url": row["url"]} for row in rows]
            listen = _free_listen(parsed.listen)
            if listen != parsed.listen and not parsed.listen.endswith(":0"):
                print(f"{parsed.listen} is taken; the demo listens on {listen} instead.")
            print(_what_to_try(listen, hosts), flush=True)
            return _serve_config(from_tree({"listen": listen, "hosts": hosts}))
        except json.JSONDecodeError:
            print("corral: the simulated hosts did not start", file=sys.stderr)
            return 1
        finally:
            simulator.terminate()


def _free_listen(listen: str) -> str:
    """``listen``, or its address with any free port if that one is taken."""
    address, port = split_listen(listen)
    with asyncio.Runner() as runner:
        for candidate in (port, 0):
            try:
                server = runner.run(_bound(address, candidate))
            except OSError:
                continue
            return f"{f'[{address}]' if ':' in address else address}:{server}"
    return listen


async def _bound(address: str, port: int) -> int:
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), address, port)
    bound: int = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    return bound


def _what_to_try(listen: str, hosts: list[dict[str, str]]) -> str:
    url, python = f"http://{listen}", sys.executable
    named = ", ".join(f"{host['name']} {host['url']}" for host in hosts)
    return f"""Corral is about to listen on {url} for {len(hosts)} simulated hosts: {named}
Try, in another terminal:
  curl {url}/api/tags
  curl {url}/api/chat -d '{{"model": "llama3.2:1b", "messages": [{{"role": "user", "content": "Why is the sky blue?"}}]}}'
  curl {url}/api/route/explain -d '{{"model": "llama3.2:1b", "prompt": "hello"}}'
  curl {url}/api/generations
  curl {url}/metrics
  OLLAMA_HOST={listen} ollama run llama3.2:1b
  {python} -c "import ollama; print(ollama.Client('{url}').generate('llama3.2:1b', 'hello')['response'])"
  {python} -c "import openai; print(openai.OpenAI(base_url='{url}/v1', api_key='-').completions.create(model='llama3.2:1b', prompt='hello').choices[0].text)"
Ctrl-C ends it all.
"""
