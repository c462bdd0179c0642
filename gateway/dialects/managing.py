"""Reading what changes the models on disk: which model, and whether progress is wanted line by line."""

from collections.abc import Collection
from enum import StrEnum

import msgspec

from gateway.dialects.names import canonical
from gateway.dialects.read import at_host, fields_of, flag_of, model_key, renamed, text_of


class Operation(StrEnum):
    """What is done to a model, by the last word of its path."""

    PULL = "pull"
    PUSH = "push"
    CREATE = "create"
    COPY = "copy"
    DELETE = "delete"


class ManagementRequest(msgspec.Struct, frozen=True, gc=False):
    """One operation as asked for. ``name`` is the canonical name; ``body`` is what hosts are sent; ``host``: the one that the name ends in."""

    operation: Operation
    model: str
    name: str
    stream: bool
    body: bytes
    host: str = ""


def read_management(operation: Operation, body: bytes, at_hosts: Collection[str] = ()) -> ManagementRequest:
    """Read ``body``. Raises BadRequest for what is no JSON object; what is wrong in it, hosts say in their own words.

    Hosts are always asked to stream: progress is followed whatever the caller wants to see of it. Only a body that says
    otherwise, or that names a host (``at_hosts``: as for ``read``), is written anew, its other values byte for byte.
    """
    fields = fields_of(body)
    key = "source" if operation is Operation.COPY else model_key(fields)
    model, host = at_host(text_of(fields, key), at_hosts)
    if host:
        body = renamed(fields, key, model)
    stream = flag_of(fields, "stream", default=True)
    if not stream:
        body = msgspec.json.encode({**fields, "stream": True})
    return ManagementRequest(operation, model, canonical(model), stream, body, host)
