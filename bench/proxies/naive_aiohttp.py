"""The proxy one writes first with aiohttp: read the body, ask upstream, copy what comes. On uvloop, its limits lifted."""

import sys

import aiohttp
import uvloop
from aiohttp import web

HOP_BY_HOP = {"connection", "content-length", "host", "keep-alive", "transfer-encoding"}


def forwardable(headers):
    return {name: value for name, value in headers.items() if name.lower() not in HOP_BY_HOP}


async def proxy(request: web.Request) -> web.StreamResponse:
    upstream, session = request.app["upstream"], request.app["session"]
    body = await request.read()
    async with session.request(
        request.method, upstream + request.path_qs, data=body, headers=forwardable(request.headers)
    ) as answer:
        response = web.StreamResponse(status=answer.status, headers=forwardable(answer.headers))
        response.content_length = answer.content_length
        await response.prepare(request)
        async for chunk in answer.content.iter_any():
            await response.write(chunk)
        await response.write_eof()
        return response


async def session(app: web.Application):
    app["session"] = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=None), auto_decompress=False
    )
    yield
    await app["session"].close()


def main() -> None:
    app = web.Application(client_max_size=1 << 30)
    app["upstream"] = sys.argv[2]
    app.cleanup_ctx.append(session)
    app.router.add_route("*", "/{path:.*}", proxy)
    uvloop.install()
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None, backlog=4096)


main()
