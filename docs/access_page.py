"""docs/access.md: keys for people, and the table of what each endpoint needs, which is the one that decides."""

from collections.abc import Iterator

from gateway.access.rights import ANONYMOUS, IN_WORDS, NEEDS, RIGHTS, KeyRole, Right, behind

INTRO = """\
# Access

Who may do what. `corral check` says it for a configuration, with the keys that it knows.

## Without keys

| where a caller comes in | what everybody may who can reach it |
| --- | --- |
| on loopback (`127.0.0.1`, `::1`), as by default, or by a Unix socket | everything |
| elsewhere | look at the fleet and use every model; the start says so with one warning |
| wherever, once there is a key | nothing without one |

`access.anonymous` says otherwise: {modes}. There is no default password, ever.

## Behind a proxy

A proxy on the same machine connects from loopback, whoever speaks through it. That must not make strangers people of this machine:

| what comes in on loopback, or by a Unix socket | the client, in the log, records and audit | what it may without a key |
| --- | --- | --- |
| without a header of a proxy's | whoever connected | what this machine may: everything |
| with `X-Forwarded-For`, from one of `http.trusted_proxies` | the right-most address there that is no trusted proxy | what others may |
| with `X-Forwarded-For`, `Forwarded` or `X-Real-IP`, from anybody else | whoever connected: the header is not believed | what others may |

Nobody who comes through a proxy is near, not even if the header says `127.0.0.1`: others could have written that. Caddy, Traefik, Tailscale and cloudflared add
`X-Forwarded-For` by themselves. **nginx and HAProxy do not**: `proxy_pass` alone looks just like a caller on this machine, and whoever reaches nginx may then do everything. So with
them: `proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for` (`option forwardfor`), or make a key, or set `access.anonymous`; any one of these closes it.
`http.trusted_proxies` names addresses, networks and `unix` (whoever comes by a Unix socket); empty, as by default, nobody is believed. A proxy that is trusted must set the
header itself: of one that passes on what its callers send, Corral would believe the callers. `X-Forwarded-Proto` and `-Host` are not looked at; the `Host` that a
proxy passes on must be in `http.allowed_hosts` where Corral listens on loopback, as its name is all that tells a page of another site from yours.

## Several places

`listen` may name several places, with commas between them: addresses with ports, and Unix sockets (`unix:/run/corral/corral.sock`). For each counts where it
is: with `listen = "0.0.0.0:11434, unix:/run/corral/corral.sock"` callers without a key may infer by the first and do everything by the second. A
socket's file belongs to the user and group that Corral runs as, and its rights are `http.unix_mode` (`660`): the system decides who may connect. What a process that
has died left there is replaced; where a living one listens, the start fails.

`admin.listen` names places for operators and their machines. Everything is served there. At `listen`, what `place` in the table below calls `admin` is then a 404,
whoever asks: metrics, readiness, hosts, and what changes models, hosts or keys; callers who only use models need none of it, and it tells of addresses inside. `/healthz` is at both. So `corral top`,
`corral status`, the app and Prometheus ask the place of `admin.listen`. It has no rights of its own: the same keys are good there, and where it listens on
loopback while `listen` does not, who is on this machine may do everything there without one. Unloading a model stays with inference; it takes a role, not a place.

## Keys

```
corral keys create ann                              # a user
corral keys create ci --role operator --expires 2027-01-31
corral keys create guest --models 'llama3*,qwen*' --hosts 'gpu1,lab-*'
corral keys create app --rpm 60 --tpm 20000 --concurrency 4 --budget 1000000/day --budget 20000000/month --priority normal --share 2
corral keys limit app --rpm 120 --tpm 0             # other limits for the same key; 0 takes one away; budgets stand in place of all that there were
corral keys list; corral keys rotate ann; corral keys revoke ann
```

A key is `crl_` and 43 characters: 256 random bits. It is shown once. What is kept is its HMAC-SHA256 under `access.pepper`, a secret that
all gateways on one database share and that may be empty: who steals the database can then still not use a key, nor guess one. A gateway
that runs knows of a change within a second, and where it was asked to make it (`/api/keys`, for admins) at once. The key that was rotated
or revoked is worthless from then on; what runs goes on, but a conversation of several models begins no turn more. Revoking the last one opens
nothing: callers without a key may still do nothing, until `access.anonymous` says otherwise or `corral keys create` makes another.

`corral keys hash` prints a key for the configuration instead, where no database is needed:

```
[[keys]]
name = "ann"
role = "user"
hash = "…"
```

A name is a principal: requests, sessions and sums belong to it, so whoever gets a key of the same name later has them: the name of a revoked
key is taken, but for `--again`. Roles:

{roles}

`--models` and `--hosts` are patterns of what a user's key is good for: models by their full name (`llama3.2:1b`), on those hosts alone. Other
models are refused (403, `not_allowed`); of the hosts, routing leaves out the others and says so. The lists of
models (`/api/tags`, `/api/ps`, `/v1/models`) leave out what the key is not good for, and `/api/show` refuses it; views of the fleet (`/api/fleet`,
`/api/models/servers`) show all. What one host's ollama.com account answers for the fleet (`/api/status`, `/api/experimental/…`) is refused where the key is not good for that
host; who names one of theirs with `X-Corral-Host` gets its answer. Keys of other roles have no such limits.

## Limits

Each key can have limits, wherever it stands: by `corral keys create` and `limit`, in `[[keys]]`, by `POST /api/keys` and `PATCH /api/keys/{{name}}`. They count from the next
request on, within a second at all gateways; what was used was used, and rotating a key keeps them.

| limit | exactly |
| --- | --- |
| `rpm` | requests to models in any 60 seconds. A request counts when it is let in; one that is refused does not count. Counted by whole seconds: there is room again 60 to 61 seconds later |
| `tpm` | tokens, of prompts and of answers, in any 60 seconds. An answer's count as they come (of many at a time a little later: N streams are looked at every N milliseconds), a prompt's when the answer ends, as the host tells them. Where it does not (whoever leaves before the last chunk does not hear it, nor does who streams under `/v1` without `include_usage`), what was said counts, and from the first byte of the answer on the prompt as routing estimates it: a token for four bytes, images too, 32,768 at most. What ends before that costs no tokens |
| `concurrency` | requests that wait or run at a time |
| `budgets` | tokens of a day, or of a month, of UTC: all of it is there again when the next begins |
| `priority` | the most urgent that its requests can be: `X-Corral-Priority` and what Corral knows of titles and completions can make them less urgent, not more. How urgent a request is its caller knows; how urgent it may be is for whoever made the key to say |
| `share` | its weight in the waiting room, 1 if nothing is said: while two keys wait, one with 2 gets twice the seconds of one with 1 (docs/routing.md) |

Records, metrics and sums of requests (`/api/requests`, `/api/stats`) know no estimates: there a prompt has the tokens that the host told, else none. So `/api/usage` can tell more than they do.

A request is let in while something is left of each limit, whatever it then takes: nothing that runs is cut. So one stream may run over its minute's tokens or its budget, by
as much as it and those beside it still have to say; the next request is refused, with 429 in the caller's dialect:

- `rate_limit_exceeded` for `rpm`, `tpm` and `concurrency`; `insufficient_quota` for budgets, with `x-should-retry: false`, as to try again soon is no use. OpenAI's clients know both words,
  Anthropic's get a `rate_limit_error`.
- `Retry-After`: when there is some of it again, as far as can be told; of `concurrency` 1 second.
- `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-10), on answers too: of each limit `q`, what there is, and `r`, what is left; `t`: in how many seconds it is whole again, if nothing comes. Under `/v1` also what
  clients look for there: `x-ratelimit-limit-requests` and so on, at `/v1/messages` `anthropic-ratelimit-requests-limit` and so on.

Limited are requests to models (`/api/generate`, `/api/chat`, `/api/embed`, `/v1/…`), turns of sessions and of conversations, whose every answer is one request, and titles. Not limited is what costs no
model: lists, sums, sessions, unloading, managing models and hosts. `corral_requests_limited_total` counts what was refused, by limit; the log says once a minute whose it is.

`GET /api/usage` tells what each key has used in this minute, day and month, what is left of each limit, and when all of it is there again; the app's page Usage shows it.
`GET /api/stats/principals` and `/api/stats/breakdown?by=principal` have what was before, as long as sums are kept.

**Several gateways on one PostgreSQL** tell each other once a second what each key has used and has under way. So the slack is what the others let in within the last
second or two: of a burst that comes to two gateways at the same moment each may let in as much as the limit says, after that neither lets in more until the minute is over. No budget is
counted twice or forgotten by a restart or a failing database: each gateway writes how much it has counted in all. What a gateway that dies had counted in its last second, and in its current
minute, is forgotten; and while the database is away, each goes by its own minutes and by what it knew of budgets. Without a database, limits and budgets are of one gateway and begin anew with it.

**Cost**, compiled, on two cores that others used too (`PYTHONPATH=build/compiled python -P -m bench.limits`): a key costs a request 6.2 to 6.6 µs, with every limit there is and the headers that tell of them 8.8 to 9.2 µs, under `/v1` 9.6 to 9.9 µs. While another key is refused 100
times a second, a stream of 149 ms takes 1.000 to 1.010 times as long as without; an answer at once, of 0.4 to 0.5 ms, takes 0.03 to 0.05 ms longer on a machine that others kept busy.

## How keys are sent

Any of these; what does not begin with `crl_` is no key of ours, so tools that must be given some key still work without one:

| how | for example |
| --- | --- |
| `Authorization: Bearer` | `OPENAI_API_KEY=crl_…`; `OLLAMA_API_KEY=crl_…` for Ollama's Python library; `CORRAL_API_KEY=crl_…` for `corral top`, `corral status` and the app, which is then one principal, whoever looks at it, but for [people behind one key](#people-behind-one-key) |
| `x-api-key` | `ANTHROPIC_API_KEY=crl_…` |
| the password of Basic auth, the user does not matter | `curl -u me:crl_… http://gw:11434/api/tags`; Prometheus' `basic_auth` |
| before the path, with `access.key_in_path = true` | `OLLAMA_HOST=http://gw:11434/k/crl_…`, for tools that can set nothing else: addresses stand in histories and in the logs of proxies |

One request, one key: two different ones of ours, in two headers, in one that is sent twice, or in one and before the path, are a 400 (`bad_request`), as it would be a guess who asks;
the same one twice is one. A word that is no key of ours is not looked at, whichever comes first: the one that begins with `crl_` counts.

No key goes to a host, into the log, a trace, a metric or an error; a key in the path is taken out of it before anything else looks, whether
that is enabled or not.

**When the database is away.** Keys that are known stay good. A gateway that starts without it knows only those of the configuration: it answers
503 to other keys, and lets callers without one infer and look, but do nothing else, until it knows. `access.anonymous = "none"` lets nobody in
even then.

## People behind one key

An app that people share (Corral's own, Open WebUI) asks with one key. Name that key in `access.user_keys = ["app"]`, and each request of it says by `X-Corral-User` which
person it is for: `app/ann`. To that name belong sessions, what runs, rows and sums of requests, and what is written down of deeds; others behind the same key do not see them, nor does the key
without the header. In the waiting room each person is a caller of their own. The rights, models and hosts are the key's, and so are its limits: one allowance for all of its people.

| the header | what comes of it |
| --- | --- |
| with a key of `access.user_keys`, one name of 1 to 64 printable characters (UTF-8) | the person |
| with such a key, but empty, longer, twice, or with what is not printable (control characters, no-break spaces) | 400, `bad_request` |
| with any other key, or without one | 403, `not_allowed`: who names people that are not told apart shall know it. `/` and `/healthz` answer all the same |
| missing | the key itself, as ever |

A name is taken as it is: `Ann` and `ann` are two. It is not checked, the app is: only keys of programs that know whom they let in belong there, and an operator's key lets each of its people operate.
The header goes to no host and into no metric.

- Corral's app: `corral dashboard --user-header X-Forwarded-User` ([app.md](app.md#people)).
- Open WebUI: `ENABLE_FORWARD_USER_INFO_HEADERS=true` and `FORWARD_USER_INFO_HEADER_USER_EMAIL=X-Corral-User` (or `…_USER_ID`; the name's is percent-encoded).

## Whose it is

Sessions, what was asked and what was answered are for their owner alone, whatever somebody's role. That something runs or ran (models, hosts,
times, tokens, addresses: `/api/generations`, `/api/requests`, `/api/stats`) its owner knows, and operators and admins; they can also stop it. What
callers without a key run belongs to all of them: they can stop and follow it by its id, which they alone were told.

## What was done

What changes models, hosts or keys is written down: when, whose key it was, from where, what, to what, and with what status; also what a key was
not allowed to do. It stands in the log, and in the database's table `audit` for 400 days: `GET /api/audit`. So does each `corral keys`. An attempt without a
good key (401) is in the log of requests alone (`log.access`).

## Endpoints

`yes` with that role; `own`: of what is their own. Without a key it depends on `access.anonymous`.

| endpoint | place | needs | {columns} |
| --- | --- | --- | {dashes} |
"""
OF_ONES_OWN = "/api/generations", "/api/chat/cancel"


def access_page() -> str:
    """docs/access.md."""
    columns = [*(f"without a key, `{mode}`" for mode in ANONYMOUS), *(f"{role}" for role in KeyRole)]
    modes = "; ".join(f"`{mode}`: callers without a key {IN_WORDS[mode]}" for mode in ANONYMOUS)
    roles = "\n".join(f"- `{role}` {IN_WORDS[role]}." for role in KeyRole)
    dashes = " | ".join("---" for _ in columns)
    text = INTRO.format(modes=modes, roles=roles, columns=" | ".join(columns), dashes=dashes)
    tail = "\nUnloading a model (an empty prompt and `keep_alive: 0`) needs `manage` beside `infer`. HEAD needs what GET does. An endpoint that is in no table needs `admin`.\n"
    return text + "\n".join(_rows()) + "\n" + tail


def _rows() -> Iterator[str]:
    for endpoint, right in NEEDS.items():
        told = [
            *(_told(endpoint, right, rights) for rights in (*ANONYMOUS.values(), *(RIGHTS[role] for role in KeyRole)))
        ]
        place = "admin" if behind(*endpoint.split(" ")) else "both"
        yield f"| `{endpoint}` | {place} | {right} | {' | '.join(told)} |"


def _told(endpoint: str, right: Right, rights: frozenset[Right]) -> str:
    if right not in rights:
        return ""
    path = endpoint.partition(" ")[2]
    theirs = right is Right.OWN or path.startswith(OF_ONES_OWN)
    facts = path.startswith((*OF_ONES_OWN, "/api/requests", "/api/stats", "/api/usage")) and not path.endswith(
        "/stream"
    )
    return "own" if theirs and not (facts and Right.OPERATE in rights) else "yes"
