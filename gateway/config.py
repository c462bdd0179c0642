"""The configuration: frozen dataclasses. loader.py reads it, checked.py says what must hold between its parts. Seconds and bytes, always."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec

from gateway.keyconfig import AccessConfig, KeyConfig
from gateway.places import DEFAULT_LISTEN

USUAL_PORT = 11434  # Ollama's own
DNS = "dns+"  # before a host's url: one host for each address of the name
TRACES_PATH = "/v1/traces"  # where a collector takes spans

Positive = Annotated[float, msgspec.Meta(gt=0)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]
Count = Annotated[int, msgspec.Meta(ge=1)]
Whole = Annotated[int, msgspec.Meta(ge=0)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


@dataclass(frozen=True, slots=True)
class HostConfig:
    """One Ollama server: a short name (a metric label), its URL, and how many requests it may serve at once, if that is known."""

    name: str  # short: it is a metric label
    url: str  # like http://10.0.0.5:11434; https and a path prefix are fine
    slots: Whole = 0  # requests at a time, the host's OLLAMA_NUM_PARALLEL; 0: found out, from 1 up
    tags: tuple[str, ...] = ()  # words of your own
    vram_bytes: Whole = 0  # the memory of its GPUs, for the metrics: no API tells; 0: not said
    ca: str = ""  # a file of certificates (PEM), by which alone that of the host is trusted; empty: by the system's
    server_name: str = (
        ""  # the name that must be in its certificate, where url has another; a dns+https url brings its name along
    )
    cert: str = ""  # a file with our certificate for this host and those up to its CA (PEM), where the host wants one
    key: str = ""  # a file with the certificate's key; empty: it is in the same
    insecure_skip_verify: bool = (
        False  # whoever answers is taken for the host: anybody on the way can read and change everything
    )
    headers: Mapping[str, str] = field(
        default_factory=dict, repr=False
    )  # sent with each request to it, in place of a caller's of that name; in TOML { X-Team = "ml" }
    headers_env: Mapping[str, str] = field(
        default_factory=dict
    )  # the same, with values out of the environment: { Authorization = "GPU1_AUTHORIZATION" }


@dataclass(frozen=True, slots=True)
class PlacementConfig:
    """Where models go that are pulled or created: the first rule whose pattern matches the name wins; without one, to all hosts."""

    models: tuple[str, ...]  # patterns like "llama3*", for names as `ollama list` shows them
    hosts: tuple[str, ...] = ()  # names of hosts
    tags: tuple[str, ...] = ()  # and every host that has one of these tags


@dataclass(frozen=True, slots=True)
class ReloadsConfig:
    """What of requests that make Ollama load a model anew, as their runner options (`num_ctx`, `num_gpu`, …) differ from those it is loaded with: the first
    rule whose pattern matches the model counts; without one, `group`."""

    models: tuple[str, ...]  # patterns like "llama3*", for names as `ollama list` shows them
    policy: Literal["group", "leave", "clamp"] = (
        "group"  # each set of options keeps to a host that holds it so; leave: they do not count in choosing; clamp: as group, but a num_ctx is lowered to the one that is loaded where that is enough for the request, which is then sent otherwise than it came (X-Corral-Num-Ctx says so)
    )


@dataclass(frozen=True, slots=True)
class WarmConfig:
    """A model that is kept in the memory of so many hosts: on those that have it and where it evicts nothing that is asked for more, as long as
    no request waits for them."""

    model: str  # a name as `ollama list` shows it
    copies: Count = 1  # hosts that hold it


@dataclass(frozen=True, slots=True)
class QueueConfig:
    """The waiting room."""

    limit: Count = 512  # requests that may wait, in all
    per_principal: Whole = (
        0  # and of one caller; 0: as many. Behind one chat UI all people are one caller, but for access.user_keys
    )
    deadline_seconds: NotNegative = 0.0  # until the first byte, for who sends no X-Corral-Deadline; 0: none
    background: bool = True  # what chat UIs and editors ask by themselves (titles, tags, suggestions, completions of code) waits until nobody else does
    background_prompts: tuple[str, ...] = ()  # beginnings of further prompts that nobody waits for


@dataclass(frozen=True, slots=True)
class RoutingConfig:
    """How a host is chosen."""

    policy: Literal["predictive", "least_connections", "round_robin", "random", "warm_first"] = (
        "predictive"  # by predicted seconds; the others are there to be compared with
    )


@dataclass(frozen=True, slots=True)
class RelayConfig:
    """How requests are sent on."""

    attempts: Count = 3  # hosts tried before the first byte
    connect_timeout_seconds: Positive = (
        2.0  # for a connection to come about; a host that is silent after that is never left
    )
    body_limit_bytes: Count = 64 * 1024 * 1024  # largest request body; 413 beyond
    bodies_bytes: Count = (
        256 * 1024 * 1024
    )  # of all bodies over 64 KiB that are held at a time, until their requests end; 503 beyond. Blobs are not held
    idle_connection_seconds: Positive = 300.0  # how long an unused connection to a host is kept
    deadline_seconds: NotNegative = 0.0  # for a whole generation; 0: none
    model_at_host: bool = (
        False  # a model named like llama3@gpu1 means that host alone, wherever a request names a model
    )


@dataclass(frozen=True, slots=True)
class GenerationsConfig:
    """Detached generations: they run on without their caller, and their answers are kept for readers."""

    answer_bytes: Count = 16 * 1024 * 1024  # of one answer that are held; over that its oldest chunks go
    held_bytes: Count = (
        256 * 1024 * 1024
    )  # of all; over that the oldest ended answers go, then chunks of those that run
    keep_seconds: NotNegative = 600.0  # how long an answer can be read after its end
    keep_count: Count = 200  # ended answers that can be read
    orphan_seconds: NotNegative = 0.0  # one that nobody has read for so long is stopped; 0: it may finish
    heartbeat_seconds: Positive = 15.0  # between comments to readers of server-sent events while nothing is said


@dataclass(frozen=True, slots=True)
class PollConfig:
    """How hosts are watched."""

    interval_seconds: Positive = 2.0  # /api/version and /api/ps
    inventory_seconds: Positive = 10.0  # /api/tags
    inventory_ttl_seconds: NotNegative = 600.0  # how long the lists show the models of a host that is down
    timeout_seconds: Positive = 5.0  # for one call of a poll
    backoff_seconds: Positive = 5.0  # most seconds between polls of a host that is down


@dataclass(frozen=True, slots=True)
class DiscoveryConfig:
    """Hosts that come and go without a restart. A host's url may be like dns+http://ollama.internal:11434: one host for each address.

    Of the labels in a file `slots` and `tags` (words with commas between them) are those of all its targets, `name` is that of an
    entry with one target; without it a host is named after its address and port. All other labels are ignored. Beside `targets` and `labels` an entry
    may have what `[[hosts]]` has: `ca`, `cert`, `key`, `server_name`, `insecure_skip_verify`, `headers`, `headers_env`, `vram_bytes`. The first host of a name counts, and the first of a url, the configuration's before those of files; the log names the others.
    """

    files: tuple[
        str, ...
    ] = ()  # JSON or YAML files of hosts, as Prometheus' file_sd has them; a path may begin where Corral was started
    interval_seconds: Positive = 10.0  # between looks at names, files and this configuration file
    secrets_env: tuple[
        str, ...
    ] = ()  # variables that entries of files may name in headers_env: whoever writes those files must not have just any secret sent to a host of theirs
    secrets: Mapping[str, str] = field(
        default_factory=dict, repr=False
    )  # the same, with values written here: { GPU_AUTHORIZATION = "Bearer …" }


@dataclass(frozen=True, slots=True)
class HealthConfig:
    """When a host is taken out of routing, and for how long."""

    failures: Count = 3  # failures in a row, where one alone proves nothing
    eject_seconds: Positive = 1.0  # the first ejection; doubles with each that follows
    eject_max_seconds: Positive = 60.0  # the longest


@dataclass(frozen=True, slots=True)
class HttpConfig:
    """Who may call, and under which path."""

    origins: tuple[str, ...] = ()  # origins of web pages that may call, as in OLLAMA_ORIGINS; at most one `*` in each
    allowed_hosts: tuple[str, ...] = ()  # names in the Host header that are let in when listening on loopback
    prefix: str = ""  # like /corral: every path also answers under it
    trusted_proxies: tuple[
        str, ...
    ] = ()  # addresses, networks like 10.0.0.0/8, or unix: who says by X-Forwarded-For whose requests it passes on
    proxy_protocol: bool = (
        False  # every connection to `listen` comes from a trusted proxy and begins with a PROXY header, version 1 or 2
    )
    unix_mode: str = "660"  # who may connect to a Unix socket: octal rights of its file, whose owner and group are those of the process


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """TLS at the addresses of `listen`, version 1.2 or newer; Unix sockets have none. The files are in PEM form and read anew when they have changed."""

    cert: str = ""  # a file with our certificate and those up to its CA; empty: no TLS
    key: str = ""  # a file with its key; empty: it is in the same
    client_ca: str = (
        ""  # a file of certificates, one of which must vouch for that of each caller; empty: callers need none
    )


@dataclass(frozen=True, slots=True)
class AdminConfig:
    """A second place to listen at, for operators and their machines: everything is there, and metrics, hosts and management are there alone (docs/access.md)."""

    tls: bool = False  # whether it speaks TLS too, as [tls] has it
    listen: str = ""  # as above, like 127.0.0.1:11435 or unix:/run/corral/admin.sock; empty: everything is at the first


@dataclass(frozen=True, slots=True)
class ConnectionsConfig:
    """Callers' connections: how many, and how long each may take."""

    total: Count = 8192  # open at once; who comes then is told 503
    per_address: Count = 2048  # and of one address that is none of http.trusted_proxies. A chat UI in front is one
    head_seconds: Positive = 20.0  # for a request's head, from its first byte; 408 after that
    body_seconds: Positive = 30.0  # within which at least 1 KB more of a body has to come; 408 otherwise
    idle_seconds: Positive = 3600.0  # how long one may stay open on which nothing is asked


@dataclass(frozen=True, slots=True)
class DatabaseConfig:
    """Where sessions and the history of requests are kept. Relaying never waits for it, and goes on without it."""

    url: str = ""  # sqlite:////var/lib/corral.db (four slashes; with three the path begins where Corral was started) or postgresql://user:password@host/name; empty: ~/.local/share/corral/corral.db; none: nothing is kept
    direct_url: str = (
        ""  # PostgreSQL without the pooler (PgBouncer) that url leads through: for migrations and notifications
    )
    replicas: Count = 1  # gateways that share the database; more than one needs PostgreSQL
    requests_days: Count = 7  # how long the record of each request is kept
    requests_rows: Count = 20_000_000  # and how many records, to within an hour; a plain one takes 290 bytes in SQLite
    minutes_days: Count = 14  # how long the sums of each minute are kept
    hours_days: Count = 400  # how long the sums of each hour are kept

    @property
    def kept(self) -> bool:
        """Whether anything is kept at all."""
        return self.url not in ("", "none")


@dataclass(frozen=True, slots=True)
class SessionsConfig:
    """Turns of sessions."""

    context_tokens: Count = 4096  # how much of a session a model sees that is not loaded, where no num_ctx is asked for
    title_model: str = (
        ""  # the model that titles sessions after their first answer, in the background; empty: none does
    )


@dataclass(frozen=True, slots=True)
class LogConfig:
    """Where log lines go."""

    format: Literal["auto", "json", "pretty"] = "auto"  # auto: pretty on a terminal, JSON elsewhere
    level: Literal["debug", "info", "warning", "error"] = "info"  # warning: of generations only those that failed
    path: str = ""  # empty or -: standard output; - in the environment stands above a file's path, where an empty variable says nothing
    sample: Share = 1.0  # of the lines of generations in which neither a host nor the gateway failed
    access: bool = False  # a line for every other request, too


@dataclass(frozen=True, slots=True)
class MetricsConfig:
    """What ``/metrics`` tells besides."""

    genai_semconv: bool = False  # the same requests again under OpenTelemetry's gen_ai names


@dataclass(frozen=True, slots=True)
class TracingConfig:
    """Spans of generations, for an OpenTelemetry collector; without an endpoint there are none. OTEL_EXPORTER_OTLP_HEADERS, _TIMEOUT,
    _COMPRESSION, _CERTIFICATE, OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES count as usual (docs/observing.md)."""

    endpoint: str = ""  # OTLP over HTTP, like http://tempo:4318; empty: what OTEL_EXPORTER_OTLP_ENDPOINT names
    mode: Literal["off", "errors", "sampled", "all"] = (
        "sampled"  # which traces are kept: those that failed, also the slow, retried, cold and sampled ones, or all
    )
    ratio: Share = 0.05  # of all traces that are sampled, whatever becomes of them
    slow_first_byte_seconds: Positive = 2.0  # a trace is kept whose answer begins later than that
    slow_seconds: Positive = 60.0  # or takes longer than that
    per_second: Positive = 20.0  # traces that are kept at most, unless mode is all
    trust_incoming: bool = True  # a caller's sampled flag counts; false where strangers can call
    capture_content: bool = False  # prompts and answers go into spans
    content_bytes: Count = 4096  # of one message that go into a span
    redact: tuple[str, ...] = ()  # regular expressions; what they match in prompts and answers is left out

    @property
    def url(self) -> str:
        """Where spans are posted."""
        bare = self.endpoint.rstrip("/")
        return bare if urlsplit(bare).path else bare + TRACES_PATH

    @property
    def on(self) -> bool:
        """Whether there are spans at all."""
        return bool(self.endpoint) and self.mode != "off"


@dataclass(frozen=True, slots=True)
class ShutdownConfig:
    """Stopping."""

    grace_seconds: NotNegative = 30.0  # running streams may finish for so long


TABLES = {
    "hosts": HostConfig,
    "placement": PlacementConfig,
    "reloads": ReloadsConfig,
    "warm": WarmConfig,
    "keys": KeyConfig,
}
"""Lists of tables in the file, and what a row is."""


@dataclass(frozen=True, slots=True)
class Config:
    """The whole configuration."""

    listen: str = DEFAULT_LISTEN  # address:port; [::1]:11434 for IPv6, :11434 for all addresses, port 0 for any free one; unix:/run/corral/corral.sock for a Unix socket; several with commas between them
    hosts: tuple[HostConfig, ...] = ()
    placement: tuple[PlacementConfig, ...] = ()
    reloads: tuple[ReloadsConfig, ...] = ()
    warm: tuple[WarmConfig, ...] = ()
    pin: tuple[
        str, ...
    ] = ()  # models that stay in a host's memory, like llama3:8b@gpu1: loaded at the start, and again whenever they are gone
    keys: tuple[KeyConfig, ...] = ()
    account_host: str = ""  # the host whose ollama.com account is used; empty: the first
    http: HttpConfig = field(default_factory=HttpConfig)
    tls: TlsConfig = field(default_factory=TlsConfig)
    admin: AdminConfig = field(default_factory=AdminConfig)
    connections: ConnectionsConfig = field(default_factory=ConnectionsConfig)
    access: AccessConfig = field(default_factory=AccessConfig)
    routing: RoutingConfig = field(default_factory=RoutingConfig)
    queue: QueueConfig = field(default_factory=QueueConfig)
    relay: RelayConfig = field(default_factory=RelayConfig)
    generations: GenerationsConfig = field(default_factory=GenerationsConfig)
    poll: PollConfig = field(default_factory=PollConfig)
    discovery: DiscoveryConfig = field(default_factory=DiscoveryConfig)
    health: HealthConfig = field(default_factory=HealthConfig)
    database: DatabaseConfig = field(default_factory=DatabaseConfig)
    sessions: SessionsConfig = field(default_factory=SessionsConfig)
    log: LogConfig = field(default_factory=LogConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    tracing: TracingConfig = field(default_factory=TracingConfig)
    shutdown: ShutdownConfig = field(default_factory=ShutdownConfig)


def place_of(url: str) -> str:
    """A host's URL, the same for spellings that are the same host."""
    return url.rstrip("/").lower()


def with_scheme(url: str) -> str:
    """A host's URL as Ollama takes an address: without a scheme it is http, and a port that is missing is Ollama's own."""
    if "://" in url:
        return url
    authority, slash, path = url.partition("/")
    bare = not re.search(r":\d*\Z", authority)
    return f"http://{authority}{f':{USUAL_PORT}' if authority and bare else ''}{slash}{path}"
