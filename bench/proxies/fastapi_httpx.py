"""The proxy most gateways for Ollama are: FastAPI and httpx, the body parsed for its model, a StreamingResponse.

httpx's limits and timeout are lifted; uvicorn runs on uvloop and httptools, without its access log.
"""

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import uvicorn
from fastapi import FastAPI, Request
from starlette.background import BackgroundTask
from starlette.responses import StreamingResponse

UPSTREAM = sys.argv[2]
HOP_BY_HOP = {"connection", "content-length", "host", "keep-alive", "transfer-encoding"}


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=20)
    async with httpx.AsyncClient(base_url=UPSTREAM, timeout=None, limits=limits) as client:
        app.state.client = client
        yield


app = FastAPI(lifespan=lifespan)


def forwardable(headers):
    return {name: value for name, value in headers.items() if name.lower() not in HOP_BY_HOP}


@app.api_route("/{path:path}", methods=["GET", "POST", "HEAD", "DELETE"])
async def proxy(request: Request, path: str) -> StreamingResponse:
    client = request.app.state.client
    body = await request.body()
    if body:
        json.loads(body).get("model")
    question = client.build_request(
        request.method, "/" + path, params=request.query_params, content=body, headers=forwardable(request.headers)
    )
    answer = await client.send(question, stream=True)
    return StreamingResponse(
        answer.aiter_raw(),
        status_code=answer.status_code,
        headers=forwardable(answer.headers),
        background=BackgroundTask(answer.aclose),
    )


uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=False, log_level="warning", backlog=4096)
