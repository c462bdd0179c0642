"""The model of a multipart form. Only what can be read in one way is read: a form is forwarded as it came, and what its host would take
another model from must not be let in for the sake of this one.

A form is strict here: CRLF at every line's end, nothing before its first part, parameters as RFC 7578 writes them. Go's reader, which is
Ollama's, also takes bare LF, folded lines, RFC 2231's parameters, quoted-printable values, and a field of the query before the form's.
"""

import re
from urllib.parse import unquote_plus

from gateway.errors import BadRequest

_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_VALUE = rf'(?:"((?:[^"\\\r\n\0]|\\[^\r\n\0])*)"|({_WORD}))'
_PARAMETER = re.compile(rf"[ \t]*;[ \t]*({_WORD})={_VALUE}")
_FORM = re.compile(r"multipart/form-data(?=[; \t]|\Z)", re.IGNORECASE)
_PART = re.compile(r"form-data(?=[; \t]|\Z)", re.IGNORECASE)
_BOUNDARY_MOST = 70
_HEAD_MOST_BYTES = 8192
TWICE = "the request could be read in two ways"


def field_of(body: bytes, content_type: str, query: str, name: str, most: int) -> str:
    """A text field of a form, its first ``most`` bytes; "" where it has none. Raises BadRequest for no form, and for what could be read in two ways."""
    if any(unquote_plus(pair.partition("=")[0]) == name for pair in query.split("&")):
        raise BadRequest(f"{name!r} is in the query of a form: {TWICE}")
    found: bytes | None = None
    for head, value in _parts(body, _boundary_of(content_type)):
        disposition = _disposition(head)
        if disposition.get("name") != name:
            continue
        if found is not None or "filename" in disposition or b"content-transfer-encoding" in head.lower():
            raise BadRequest(f"the form's {name!r} is there twice, as a file, or encoded: {TWICE}")
        if b"\n" in value or b"\r" in value:
            raise BadRequest(f"the form's {name!r} has several lines: {TWICE}")
        found = value
    return (found or b"")[:most].decode("utf-8", errors="replace")


def _boundary_of(content_type: str) -> bytes:
    text = content_type.strip()
    match = _FORM.match(text)
    boundary = _parameters(text, match.end()).get("boundary", "") if match else ""
    if not 0 < len(boundary) <= _BOUNDARY_MOST or "\\" in boundary:
        raise BadRequest("expected a multipart/form-data body")
    return boundary.encode("latin-1", errors="replace")


def _parts(body: bytes, boundary: bytes) -> list[tuple[bytes, bytes]]:
    """Head and value of each part that is whole. Raises BadRequest."""
    fence = b"--" + boundary
    if not body.startswith(fence):
        if body.find(b"\n" + fence) >= 0:
            raise BadRequest("the form does not begin with its first part")
        return []
    if b"\r" + fence in body:
        raise BadRequest(
            f"a boundary of the form comes after half a line's end: {TWICE}"
        )  # to some readers that is a line's end
    found: list[tuple[bytes, bytes]] = []
    at = len(fence)
    fence = b"\n" + fence  # at the beginning of a line: a file may hold anything else
    while True:
        if body[at : at + 2] == b"--":
            if body[at + 2 : at + 4] not in (b"", b"\r\n"):
                raise BadRequest(f"the last boundary of the form is followed by something else: {TWICE}")
            return found
        end = _fence(body, fence, at)
        if body[at : at + 2] != b"\r\n" or (end >= 0 and body[end - 1] != 0x0D):
            raise BadRequest("a line of the form does not end in CRLF")
        split = body.find(b"\r\n\r\n", at, at + _HEAD_MOST_BYTES)
        if end < 0 or split < 0 or split >= end:
            raise BadRequest("the form has no end" if end < 0 else "a part of the form has no head")
        found.append((body[at + 2 : split], body[split + 4 : end - 1]))
        at = end + len(fence)


def _fence(body: bytes, fence: bytes, at: int) -> int:
    """Where the next boundary's line feed stands: a longer word that begins like it is none."""
    while (at := body.find(fence, at)) >= 0:
        after = body[at + len(fence) : at + len(fence) + 2]
        if after in (b"\r\n", b"--"):
            return at
        if after[:1] in (b"", b"\r", b"\n", b" ", b"\t", b"-"):
            raise BadRequest(f"a boundary of the form is followed by something else: {TWICE}")
        at += 1
    return -1


def _disposition(head: bytes) -> dict[str, str]:
    """The parameters of a part's Content-Disposition. Raises BadRequest."""
    lines = head.decode("latin-1").split("\r\n")
    found: dict[str, str] | None = None
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not re.fullmatch(_WORD, name) or "\n" in value or "\r" in value or "\0" in value:
            raise BadRequest("a part of the form has a head that is none")
        if name.lower() != "content-disposition":
            continue
        value = value.strip()
        match = _PART.match(value)
        if found is not None or match is None:
            raise BadRequest("a part of the form has not the one Content-Disposition that it needs")
        found = _parameters(value, match.end())
        if "\\" in found.get("name", ""):
            raise BadRequest(f"a part's name is escaped: {TWICE}")
    return found or {}


def _parameters(text: str, at: int) -> dict[str, str]:
    """``; a=b; c="d"`` from ``at`` to the end, names in lower case. Raises BadRequest for anything else, and for one that is there twice."""
    found: dict[str, str] = {}
    while match := _PARAMETER.match(text, at):
        key = match[1].lower()
        if key in found or (key.endswith("*") and key != "filename*") or re.search(r"\*\d", key):
            raise BadRequest(f"the parameter {key!r} of the form is there twice, or in pieces: {TWICE}")
        found[key] = match[2] if match[2] is not None else match[3]
        at = match.end()
    if text[at:].strip(" \t;"):
        raise BadRequest("the form has a header that is none")
    if "filename*" in found:
        found.setdefault("filename", "")
    return found
