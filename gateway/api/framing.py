"""Whether a head can be read in one way alone. aiohttp's parser (llhttp, strict) has let it pass; a proxy before or behind us may read it otherwise."""

from collections.abc import Awaitable
from typing import Any, Final

from aiohttp import HttpVersion10, HttpVersion11, hdrs, web

from gateway.api.caller import Handler
from gateway.errors import CorralError, HeadTooLarge, NotHttp

HEAD_LIMIT_BYTES: Final = 64 * 1024
_VERSIONS: Final = (HttpVersion11, HttpVersion10)
_LENGTH_DIGITS: Final = 18
_SEGMENTS_MOST: Final = 100


def looked_at(serve: Handler, prefix: str) -> Handler:
    """Before all other handlers: nobody serves what could be read in two ways."""

    def first(request: Any) -> Awaitable[web.StreamResponse]:
        visitor = request.protocol
        error = amiss(request._message, bulky=visitor.bulky)
        return serve(request) if error is None else visitor.refused(request, error, prefix)

    return first


def amiss(message: Any, *, bulky: bool) -> CorralError | None:
    """Why nobody is to serve it, if so. ``message``: aiohttp's RawRequestMessage, of which there are two; ``bulky``: it came in more than one read, or in a large one.

    1. a version that we do not speak; 2. an authority in the target (as proxies are asked) that is not the Host, as CONNECT has it; a fragment; a path of very many segments;
    3. a body that is framed otherwise than by one plain length or one plain ``chunked``; 4. a head that is too large in all.
    """
    headers, version, path = message.headers, message.version, message.path
    if version not in _VERSIONS:
        return NotHttp(f"HTTP/{version[0]}.{version[1]} is not spoken here: HTTP/1.1 and 1.0 are")
    if not path.startswith("/") and path != "*" and not _same_authority(message):
        return NotHttp("the request is for another host than its Host header says: this is no proxy")
    if len(path) > _SEGMENTS_MOST and path.partition("?")[0].count("/") > _SEGMENTS_MOST:
        return NotHttp(f"a path has at most {_SEGMENTS_MOST} segments")  # the router looks for each of its beginnings
    if "#" in path:
        return NotHttp("a request's path has no fragment")
    if hdrs.TRANSFER_ENCODING in headers:
        codings = [value.lower() for value in headers.getall(hdrs.TRANSFER_ENCODING)]
        if codings != ["chunked"] or version != HttpVersion11:
            return NotHttp("a body is framed by Content-Length, or by Transfer-Encoding: chunked and nothing else")
    if len(headers.get(hdrs.CONTENT_LENGTH, "")) > _LENGTH_DIGITS:
        return NotHttp("the Content-Length is none")
    if bulky and sum(len(name) + len(value) for name, value in message.raw_headers) > HEAD_LIMIT_BYTES:
        return HeadTooLarge(f"the request's head is over {HEAD_LIMIT_BYTES} bytes")
    return None


def _same_authority(message: Any) -> bool:
    url = message.url
    host = message.headers.get(hdrs.HOST, "")
    return bool(message.method != "CONNECT" and url.scheme in ("http", "https") and url.raw_authority == host.lower())
