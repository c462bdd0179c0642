"""``corral demo``: simulated hosts, a gateway before them, the app before that, and what to try."""

import asyncio
import contextlib
import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

from gateway.config import Config
from gateway.loader import from_tree
from gateway.places import split_listen

HOSTS = 3
GRACE_SECONDS = 5.0
"""For the programs beside the gateway to end by themselves, once it has ended."""


def demo(wanted: str, app: str, serve: Callable[[Config], int]) -> int:
    """Start the hosts, and the app at ``app`` (empty: none) where it is installed, then ``serve`` until it ends; its exit code."""
    with contextlib.ExitStack() as beside:
        simulator = beside.enter_context(
            _running("simulator", "--hosts", str(HOSTS), "--base-port", "0", "--json", stdout=subprocess.PIPE)
        )
        assert simulator.stdout is not None
        try:
            rows = [json.loads(simulator.stdout.readline()) for _ in range(HOSTS)]
        except json.JSONDecodeError:
            print("corral: the simulated hosts did not start", file=sys.stderr)
            return 1
        hosts = [{key: row[key] for key in ("name", "url", "vram_bytes")} for row in rows]
        listen = _told_listen(wanted, "the demo")
        if app and importlib.util.find_spec("streamlit") is not None:
            shown = _told_listen(app, "the app")
            beside.enter_context(_running("dashboard", "--gateway", f"http://{listen}", "--listen", shown))
            print(f"The app is about to be at http://{shown}: chat, model talk, sessions, metrics, fleet")
        elif app:
            print("There is an app too: pip install '.[dashboard]', and begin again.")
        print(_what_to_try(listen, hosts), flush=True)
        folder = beside.enter_context(tempfile.TemporaryDirectory(prefix="corral-demo-"))
        database = {"url": f"sqlite:///{folder}/corral.db"}
        return serve(from_tree({"listen": listen, "hosts": hosts, "database": database}))


@contextlib.contextmanager
def _running(module: str, *options: str, stdout: int = subprocess.DEVNULL) -> Iterator[subprocess.Popen[str]]:
    """Another of our programs, until the demo ends. In a session of its own: Ctrl-C is for the gateway, which lets streams finish."""
    command = [sys.executable, "-m", module, *options]
    with subprocess.Popen(command, stdout=stdout, text=True, start_new_session=True) as process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def _told_listen(wanted: str, who: str) -> str:
    """Where it can listen; told where that is not what was wanted."""
    listen = _free_listen(wanted)
    if listen != wanted and not wanted.endswith(":0"):
        print(f"{wanted} is taken; {who} listens on {listen} instead.")
    return listen


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


def _what_to_try(listen: str, hosts: list[dict[str, Any]]) -> str:
    url, python = f"http://{listen}", sys.executable
    named = ", ".join(f"{host['name']} {host['url']}" for host in hosts)
    return f"""Corral is about to listen on {url} for {len(hosts)} simulated hosts: {named}
Try, in another terminal:
  curl {url}/api/tags
  curl {url}/api/chat -d '{{"model": "llama3.2:1b", "messages": [{{"role": "user", "content": "Why is the sky blue?"}}]}}'
  curl {url}/api/route/explain -d '{{"model": "llama3.2:1b", "prompt": "hello"}}'
  curl {url}/api/sessions -d '{{"model": "llama3.2:1b"}}'
  curl {url}/api/sessions/ID/chat -d '{{"message": {{"content": "Why is the sky blue?"}}}}'   # ID: as the line above says
  curl {url}/api/chat/multi-model -d '{{"participants": [{{"model": "llama3.2:1b"}}, {{"model": "smollm2:135m"}}], "topic": "Is cheese a dessert?", "turns": 4}}'
  curl {url}/api/generations
  curl {url}/metrics
  {python} -m gateway top --gateway {url}
  OLLAMA_HOST={listen} ollama run llama3.2:1b
  {python} -c "import ollama; print(ollama.Client('{url}').generate('llama3.2:1b', 'hello')['response'])"
  {python} -c "import openai; print(openai.OpenAI(base_url='{url}/v1', api_key='-').completions.create(model='llama3.2:1b', prompt='hello').choices[0].text)"
Ctrl-C ends it all.
"""
