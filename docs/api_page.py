"""docs/api.md: prose, and the tables of what Corral adds, which are made from the OpenAPI document that the gateway serves."""

from collections.abc import Iterable, Iterator
from typing import Any

Json = dict[str, Any]
SCHEMAS = "#/components/schemas/"
WORDS = {
    "string": "text",
    "integer": "integer",
    "number": "number",
    "boolean": "bool",
    "object": "object",
    "null": "null",
}

INTRO = """\
# API

All of Ollama's inference endpoints are at the root: `/api/generate`, `/api/chat`, `/api/embed`, `/api/embeddings`,
`/v1/chat/completions`, `/v1/completions`, `/v1/embeddings`, `/v1/responses`, `/v1/messages`, `/v1/audio/transcriptions`. Every answer
of an inference endpoint carries `X-Corral-Generation` (its id) and, once a host answered, `X-Corral-Host`.

What Corral adds is described for programs too, in OpenAPI 3.1: `GET /openapi.json`, and [openapi.json](openapi.json) here.

## The fleet as one Ollama

| path | answer |
| --- | --- |
| `/` | `Ollama is running`, from Corral itself |
| `/api/version` | the lowest version among the hosts that are not ejected: clients gate features upwards on it |
| `/api/tags` | every model name once, newest first. Where hosts have different models under one name: the one most hosts have, then the newest. A host that is down counts with its last inventory for `poll.inventory_ttl_seconds` |
| `/api/ps` | every name and digest in memory once: the row of the host where it stays longest, latest expiry first |
| `/v1/models`, `/v1/models/{model}` | the same models as OpenAI lists them |
| `POST /api/show` | from a host that has the model, the one routing would choose, unchanged; from the next one if that fails. 404 if no host has it, 503 if those that have it are down or draining. `X-Corral-Host` names the one to ask |
| `/api/status`, `POST /api/me`, `POST /api/signout`, `DELETE /api/user/keys/{key}`, `/api/experimental/{web_search,web_fetch,model-recommendations}` | from the host that `account_host` names (else the first), or the one that `X-Corral-Host` names, unchanged: they depend on its ollama.com account. 503 if it does not answer |

Lists are told from what the last polls saw: no host can delay them. HEAD is there where Ollama has it.

"""

ADDED = """\
## What Corral adds

Field names carry their units. What an answer may lack is null, not left out. Errors of Corral's own are `{"error": text}` with the code in
`X-Corral-Error` ([errors.md](errors.md)). What is answered to GET is answered to HEAD.

"""

REST = """\
## Detached generations

Any inference request with `?detach=true` is answered at once with 202 and `{"id", "session", "stream", "cancel"}` (`stream` and `cancel` are
paths; `Location` is the first of them) and runs on, whoever leaves. What can be refused at once (a body that cannot be read, a full queue,
no host) is, in the dialect of the path. Everything else is as for any request: routing, the queue, failover, deadline, record, metrics. An
unload is answered as always.

`GET /api/generations/{id}/stream?from=N` replays its answer from chunk N on and follows it to the end, for any number of readers. A chunk is
one NDJSON line or one server-sent event, counted from 0; an answer in one piece is one chunk.

| reader | what it gets |
| --- | --- |
| any | status, type and bytes as the caller would have got them, with the first byte; `id: N` before each event where the answer is one of events. If it failed before its first byte: the error's status and body |
| with `Accept: text/event-stream` | its head at once, comments (`: queued`) while nothing is said, each line as an event with `id: N`; `Last-Event-ID: N` goes on behind N, also over `from`. An error is `event: error` with the body as data, or a status if it is known by then. 204 when nothing is left, which ends a browser's `EventSource` |

A slow reader is held back by its own connection alone. What is held is bounded (`[generations]` in [config.md](config.md)): beyond
`answer_bytes` an answer's oldest chunks go, and a reader who wants them is told `{"gone": {"from": 0, "to": 41}}` in a line of its own, or
`event: gone` with `{"from", "to"}`; an answer in one piece that is larger is 410 `gone`. An answer that breaks off without last words breaks
its readers' connections, as it would have broken the caller's. After its end it can be read for `keep_seconds`, while it is among the last
`keep_count` and `held_bytes` has room for it, and as long as somebody reads it.

In the lists a detached generation has `"detached": true`, `readers`, `chunks` (that have come), `first_chunk` (that is still held), and,
once it has ended, `outcome` and `reason`. A page that was reloaded finds its own with `?session=…&kept=true`. A generation that is not
detached cannot be followed: its answer passes without being copied (409).

Readers who leave end nothing. With `generations.orphan_seconds` a generation that nobody has read for so long is stopped.

## Models together

`POST /api/chat/multi-model` lets 2 to 8 models talk in one session:

```
curl http://127.0.0.1:11434/api/chat/multi-model -d '{
  "participants": [{"model": "llama3.2", "name": "Ann", "system": "You love cheese."}, {"model": "qwen3", "name": "Bob"}],
  "topic": "Is cheese a dessert?", "mode": "dialogue", "turns": 6}'
```

| mode | who speaks | what a speaker sees |
| --- | --- | --- |
| `dialogue` | one after the other | all that was said: its own turns as its answers, the others' as a user's words, with their names in front |
| `panel` | all at once, then again | the same; of its own round only its own answer |
| `compare` | all at once, once | what the user said, and its own answers |
| `judge` | the same, then `judge` | the judge: the question and every answer. It ends with `Winner: NAME`, which `end` tells as `winner` |

`turns` counts every turn of everybody (`dialogue`, `panel`; else two each). A phrase of `stop` in an answer ends it with that round, and so does a
`token_budget` that is used up: what is left of it is shared by those whose turn it is (and the judge), and bounds their answers. A turn that fails is told, and the others go on unless `on_error` is `stop`; it
ends when as many turns fail one after another as there are participants. In a dialogue and on a panel each model is told who it is, among whom, and
how the conversation began, before its own `system`. Each turn is a generation like any other: routed, queued, measured, and stopped by its id alone,
which skips it.

The answer is one event a line:

| `event` | has |
| --- | --- |
| `start` | `id` (of the conversation, while it runs), `session`, `mode`, `participants` |
| `said` | `message`, `content`: the user said it, before the turns that follow |
| `turn_start` | `turn` (from 1), `participant`, `model`, `message` (the answer's number in the session), `generation` |
| `delta` | `turn`, `participant`, `content` or `thinking` or both |
| `turn_end` | `turn`, `participant`, `state`, `error`, `host`, `usage`, `timings`, `tokens_per_second` |
| `end` | `reason` (`turns`, `stop_phrase`, `token_budget`, `cancelled`, `error`), `error`, `turns`, `usage`, `winner` |

With `"stream": false` it is one object. With `"detach": true` it is 202 with `{"id", "session", "stream", "cancel"}`, and the events are read as a
detached generation's answer is, `GET /api/generations/{id}/stream?from=N`, by any number of readers, as lines or as server-sent events.

It is a session like any other: read it, export it, branch off. `GET /api/generations` lists it among `conversations`. While it runs, its `running` is the conversation's id, other turns are 409, and the user
says something with `POST /api/sessions/{id}/messages` `{"content": "…"}`: whoever speaks next sees it. It is stopped by its id or its session's. It
goes on with `{"session": "…", "turns": 4}`, after whoever spoke last, perhaps with a new `topic`, other `participants` or another `mode`; a chat
becomes a conversation the same way.

## Who may call

Web pages: as with Ollama, pages of this machine (`localhost`, `127.0.0.1`, `0.0.0.0`, any port) and of desktop applications (`app://`,
`file://`, `tauri://`, `vscode-webview://`, `vscode-file://`) may call, others get 403. `http.origins` lets more in, as OLLAMA_ORIGINS does
for one Ollama: `["https://chat.example.com", "https://*.lab.example"]`, or `["*"]` for all. Corral judges and answers this itself: hosts
see no `Origin`, so their own setting does not matter. A page's script may read and send `X-Corral-` headers.

The Host header is looked at only while Corral listens on loopback: it must be an address of this machine or a private network, this
machine's name, `localhost`, `*.localhost`, `*.local`, `*.internal`, or one of `http.allowed_hosts`; else 403. A reverse proxy on the same
machine that passes a public name on needs that name there.

With `http.prefix = "/corral"` every path also answers below it: `OLLAMA_HOST=http://gateway/corral` works.

Paths are Ollama's in the small print too: a slash too many at the end is redirected (GET 301, else 307), as are doubled slashes (307); an
unknown path is 404, a known one with another method 405 with `Allow`, both in plain text.

## Where an answer differs from one Ollama's

Nowhere but here; `tests/contract/test_conformance.py` asks one host and Corral before two the same nearly a thousand times, and
compares status, headers, framing, and every byte but times.

| what | why |
| --- | --- |
| `X-Corral-` headers, `X-Request-Id`, and `Access-Control-Expose-Headers` for them | so that it can be told which host answered, and where the log has it |
| the text of an error about a body that is no JSON | it says which byte; no host is asked |
| an error in which hosts are named | several were asked, or tried |
| `Retry-After` on a 503 | so that clients know when to come again |
| a progress bar's steps | they are those of the slowest host |
| a page that may not call gets 403 where Ollama would redirect it, and one that may is told so with the redirect | who may call is looked at first |
| `GET /v1/models/library%2Fx` is found | any model can be asked for |

## What goes to a host

Headers for this hop, `Host`, `Origin`, `Cookie`, `Authorization`, `x-api-key` and its like (`Api-Key`, `X-Auth-Token`, `X-Goog-Api-Key`), `Referer` and its like (`X-Original-URI`, …), and `Accept-Encoding` are not sent to hosts. Errors:
[errors.md](errors.md).

## Managing models

`POST /api/pull`, `/api/push`, `/api/create`, `/api/copy`, `DELETE /api/delete`, `HEAD` and `POST /api/blobs/{digest}` take what Ollama takes
and answer as one Ollama would. With one host configured, answers are that host's own.

| operation | on which hosts |
| --- | --- |
| pull, create | those of the first `[[placement]]` rule that matches the model ([config.md](config.md)), else all; not a draining one |
| blobs | all that are not draining: a blob has no model's name |
| copy, delete | every host that has the model, a draining one too: it would be back with another set of models |
| push | the first healthy host that has the model, in the configuration's order; a draining one only if no other has it |

**Progress.** Each status comes once: `pulling manifest` at once, any other when every host that still runs has come to it. A layer's bar is
that of the slowest host that still runs. `{"status":"success"}` comes once, last, when every host that was asked has succeeded and Corral's
own lists show the model. Otherwise the last line is
`{"error":"gpu1: pull model manifest: file does not exist (succeeded on gpu2)"}`; with `"stream": false` that is a 500. An error status that
all hosts answer alike before any progress is passed on as it is; if no host says anything, it is a 502.

**Copy and delete** are a 200 if at least one host did it and none failed; a host's 404 does not count beside another's 200. Otherwise a
502 says who failed, an ejected host that has the model among them, and where it worked.

**Blobs.** An upload is sent on as it comes in, to all hosts at once, in constant memory and without the limit on bodies; the slowest host
sets the pace. 201 if any host stored it, 200 if all had it, 502 with the names of the hosts that failed. The digest is checked on the way:
what does not match is a 400, and no host stores it.

**Leaving** stops it on every host, as with one Ollama: a pull that is asked for again goes on where it was. A pull, push or create with
`?detach=true` runs on without its caller: the answer is a 202 with the job's `id`, and how it goes is told at `/api/jobs/{id}`.

"""

LAST = """\
## Sessions

A session is a chain of messages that is kept in the database (`database.url`; where none is configured these paths are a 503 that says so,
where it is away a 503 with Retry-After). Nobody sees another owner's sessions; until there are keys, all have one owner.

Messages with the same `parent` are branches: a question that was edited, an answer that was made again; `siblings` are the numbers of all
that stand in one's place. An unknown key in a body is a 400 that names it. NUL and halves of characters become `\\ufffd`.

**Deleting.** What runs in a session that is deleted ends, and what was answered in it can be read nowhere any more. With `?restorable_seconds=3600` it is
only hidden: from every list and search but `?deleted=true`, and every path but `POST …/restore`, which brings it back as it was. After that time it is
erased, within seconds. Without `restorable_seconds` it is erased at once, hidden or not.

**Turns.** `POST /api/sessions/{id}/chat` with `{"message": {"content": "…"}}` answers as `/api/chat` would. What the model gets to see: the session's
system prompt, and of the branch the newest messages that fit into its context (`options.num_ctx`, else that with which it is loaded,
else `sessions.context_tokens`) with room left for the answer (`options.num_predict`, else a quarter). Tokens are estimated: one for every four bytes, 768 for
an image. Question and empty answer are in the database before a host is asked; the answer is written about once a second and at its end. It
is `done`, `stopped` by whoever left or cancelled, or an `error` that says why. If the database goes away meanwhile, the stream goes on and
its end is written later.

**Plain chats.** `/api/chat` and `/v1/chat/completions` with a session's id in `X-Corral-Session` are relayed as ever and recorded into it, without
their system prompts. Such a caller sends the whole history: what the shown branch has already is not stored again; where the two part,
another branch begins; who sends only the last messages goes on at the end. While somebody else writes to the session, or the database is
away, recording is tried for ten minutes. A hundred are recorded at a time.

**Titles.** A model is shown the beginning of the session and asked for a title, in the background: such a request stands behind all others that
wait. With `sessions.title_model` sessions without a title get one after an answer.

| of | at most |
| --- | --- |
| a title; a system prompt; a message | 300; 100,000; 1,000,000 characters |
| `options` | 16 KiB |
| images of a message | 16 |
| a session | 10,000 messages, 32 Mi characters with thinking, images and tool calls; then 413 |
| an import | 2,000 sessions, 10,000 messages, 32 Mi characters, `relay.body_limit_bytes`; 413 |
| a page of sessions; messages; hits | 200; 1,000; 50 |

## Loading and unloading

A request with an empty prompt loads a model on the host that routing would choose. With `keep_alive: 0` it unloads the model on every
host that has it in memory.
"""


def api_page(document: Json) -> str:
    """docs/api.md. The jobs stand where models are managed, every other room under what Corral adds."""
    tags = {tag["name"]: tag["description"] for tag in document["tags"]}
    rooms = [_room(document, name, told) for name, told in tags.items() if name != "jobs"]
    jobs = _room(document, "jobs", tags["jobs"])
    return "".join((INTRO, ADDED, *rooms, _headers(document), REST, jobs, LAST))


def _room(document: Json, tag: str, told: str) -> str:
    """One table of the endpoints, then one for each shape that is met here first."""
    lines = [f"### {told.removesuffix('.')}", "", "| endpoint | what it does | answer |", "| --- | --- | --- |"]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if tag in operation["tags"]:
                row = (
                    f"`{method.upper()} {path}`",
                    " ".join(_meaning(document, operation)),
                    _answer(document, operation),
                )
                lines.append(f"| {' | '.join(row)} |")
    for name in _shapes(document, tag):
        shape = document["components"]["schemas"][name]
        lines += ["", f"#### {name}", "", shape["description"], "", "| field | type | meaning |", "| --- | --- | --- |"]
        lines += [
            f"| `{field}` | {_type(document, schema)} | {_field(document, schema)} |"
            for field, schema in shape["properties"].items()
        ]
    return "\n".join((*lines, "", ""))


def _meaning(document: Json, operation: Json) -> Iterator[str]:
    yield f"{operation['summary']}."
    if more := operation.get("description"):
        yield more
    for given in operation.get("parameters", ()):
        if given["in"] != "path":
            word, mark = "Needs" if given["required"] else "Takes", "?" if given["in"] == "query" else ""
            yield f"{word} `{mark}{given['name']}`: {given['description']}{_bounds(given['schema'])}."
    for content in operation.get("requestBody", {}).get("content", {}).values():
        yield f"The body: {_type(document, content['schema'])}."


def _bounds(schema: Json) -> str:
    """What is taken where a parameter is missing, and how small and large it may be."""
    words = {"default": "`{}` if missing", "minimum": "at least {}", "maximum": "at most {}"}
    said = [word.format(schema[key]) for key, word in words.items() if schema.get(key) not in (None, "", False)]
    return f" ({', '.join(said)})" if said else ""


def _answer(document: Json, operation: Json) -> str:
    """Each status; those that every endpoint may have are left out."""
    said = []
    for status, answer in operation["responses"].items():
        if "$ref" in answer:
            continue
        codes = answer.get("headers", {}).get("X-Corral-Error", {}).get("schema", {}).get("enum")
        kinds = [
            _type(document, told["schema"]) if kind == "application/json" else f"`{kind}`"
            for kind, told in answer["content"].items()
        ]
        what = ", ".join(f"`{code}`" for code in codes or ()) or " or ".join(kinds)
        said.append(f"{status}: {what}")
    return "; ".join(said)


def _shapes(document: Json, tag: str) -> Iterable[str]:
    """The names of the Structs that the answers and bodies of a room are made of, outermost first; each only in its first room."""
    found: dict[str, str] = {}
    for methods in document["paths"].values():
        for operation in methods.values():
            bodies = [
                operation.get("requestBody", {}),
                *(answer for status, answer in operation["responses"].items() if status < "4"),
            ]
            waiting = list(_references(bodies))
            while waiting:
                name = waiting.pop(0)
                if name not in found and name != "ErrorAnswer":
                    found[name] = operation["tags"][0]
                    waiting += _references(document["components"]["schemas"][name])
    return [
        name for name, room in found.items() if room == tag and "properties" in document["components"]["schemas"][name]
    ]


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if "$ref" in value and value["$ref"].startswith(SCHEMAS):
            yield value["$ref"].removeprefix(SCHEMAS)
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from _references(each)


def _type(document: Json, schema: Json) -> str:
    if "$ref" in schema:
        name = schema["$ref"].removeprefix(SCHEMAS)
        return "text" if "enum" in document["components"]["schemas"][name] else f"[{name}](#{name.lower()})"
    if "enum" in schema:
        return "text"
    if "anyOf" in schema:
        return " or ".join(_type(document, each) for each in schema["anyOf"])
    if schema.get("type") == "array":
        return f"list of {_type(document, schema['items'])}"
    if isinstance(schema.get("additionalProperties"), dict):
        return f"object of {_type(document, schema['additionalProperties'])}"
    return WORDS[schema.get("type", "string")]


def _field(document: Json, schema: Json) -> str:
    """What a field means; of a few words all, where the meaning does not name them."""
    meaning = schema["description"]
    names = [name for name in _references(schema) if "enum" in document["components"]["schemas"][name]]
    words = [f"`{word}`" for name in names for word in document["components"]["schemas"][name]["enum"]]
    return meaning if all(word in meaning for word in words) else f"{meaning}: {', '.join(words)}"


def _headers(document: Json) -> str:
    parts = document["components"]
    rows = [("asking", name, header["description"]) for name, header in parts["parameters"].items()]
    rows += [("answering", name, header["description"]) for name, header in parts["headers"].items()]
    lines = [f"| `{name}` | {where} | {meaning} |" for where, name, meaning in rows]
    return "\n".join(("### Headers", "", "| header | when | meaning |", "| --- | --- | --- |", *lines, "", ""))
