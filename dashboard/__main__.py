"""``python -m dashboard``: the app on its own server. Nothing that it shows is fetched from anywhere else."""

import argparse
import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import streamlit as st
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse
from starlette.routing import Route

from dashboard.gateway import DEFAULT, GRAFANA, KEY, URL, USER_HEADER

CSP = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline';"
    " img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' ws: wss:; worker-src 'self' blob:; frame-ancestors 'self'"
)
HEADERS = (
    (b"content-security-policy", CSP.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)

PAGES = ("chat", "talk", "sessions", "metrics", "usage", "fleet", "healthz")
NAME = re.compile(r"/[\w-]+")
HEADER = re.compile(r"[A-Za-z0-9-]{1,64}")


class Shielded:
    """Adds HEADERS to every answer."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def sent(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *HEADERS]
            await send(message)

        await self._app(scope, receive, sent if scope["type"] == "http" else send)


class Guided:
    """Leads whoever opens a page that there is not to the first one, which says so: Streamlit's own words are English."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        led = scope["type"] == "http" and astray(scope["path"], Headers(scope=scope).get("accept", ""))
        await (RedirectResponse(f"/?lost={quote(scope['path'][1:])}") if led else self._app)(scope, receive, send)


def astray(path: str, accept: str) -> bool:
    """Whether somebody opens a page of this name, and there is none. What is no page's name may be Streamlit's own."""
    return "text/html" in accept and bool(NAME.fullmatch(path)) and path[1:] not in PAGES


async def healthz(_request: Request) -> JSONResponse:
    """This process is well; the gateway says of itself whether it is."""
    return JSONResponse({"status": "ok", "gateway": os.environ[URL]})


async def chat(request: Request) -> RedirectResponse:
    """The first page's own name leads to it, with what was asked: Streamlit knows the first page by ``/`` alone."""
    return RedirectResponse(f"/?{request.url.query}".rstrip("?"))


def parser() -> argparse.ArgumentParser:
    """Its command line."""
    made = argparse.ArgumentParser(
        prog="corral dashboard",
        description=f"The app in a browser. ${KEY}: the key that it asks with, where one is needed.",
    )
    made.add_argument("--gateway", metavar="URL", help=f"the gateway (default: ${URL}, or {DEFAULT})")
    made.add_argument(
        "--grafana", metavar="URL", help=f"a Grafana with Corral's dashboards, to link to (default: ${GRAFANA})"
    )
    made.add_argument(
        "--user-header",
        metavar="NAME",
        help=f"the header by which a sign-on before the app says who looks at it, like X-Forwarded-User or Remote-User (default: ${USER_HEADER}): "
        "sessions are then theirs. The gateway must list the key in access.user_keys, and nobody may reach the app but through the sign-on",
    )
    made.add_argument("--listen", default="127.0.0.1:8501", metavar="ADDRESS:PORT", help="default 127.0.0.1:8501")
    return made


def main() -> None:
    """Serve until it is stopped."""
    given = parser().parse_args()
    address, _, port = given.listen.rpartition(":")
    if not port.isdigit():
        parser().error(f"--listen: {given.listen!r} is not like 127.0.0.1:8501")
    user_header = given.user_header or os.environ.get(USER_HEADER, "")
    if user_header and not HEADER.fullmatch(user_header):
        parser().error(f"--user-header: {user_header!r} is no header's name, like X-Forwarded-User")
    os.environ[USER_HEADER] = user_header
    os.environ[URL] = given.gateway or os.environ.get(URL) or DEFAULT
    os.environ[GRAFANA] = given.grafana or os.environ.get(GRAFANA, "")
    here = Path(__file__).parent
    os.chdir(here)  # where Streamlit looks for its configuration
    routes = [Route("/healthz", healthz), Route("/chat", chat)]
    app = st.App(here / "app.py", routes=routes, middleware=[Middleware(Shielded), Middleware(Guided)])
    config = {"server.address": address.strip("[]") or "0.0.0.0", "server.port": int(port)}
    if config["server.address"] in (
        "0.0.0.0",
        "::",
    ):  # else Streamlit asks a stranger for this machine's address, to print it
        config["browser.serverAddress"] = "localhost"
    app.run(config=config)


if __name__ == "__main__":
    main()
