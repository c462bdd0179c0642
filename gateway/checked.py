"""What must hold between the parts of a configuration, and what their texts must be like."""

import re
from collections.abc import Iterable
from urllib.parse import SplitResult, urlsplit

from gateway.config import (
    DNS,
    Config,
    HostConfig,
    HttpConfig,
    PlacementConfig,
    TracingConfig,
    place_of,
)
from gateway.errors import ConfigError
from gateway.keyconfig import NAME, check_access, check_keys
from gateway.listen import is_there, next_to
from gateway.places import Place, places
from gateway.proxies import Proxies

PREFIX = re.compile(r"(?!/(api|v1)(/|\Z))(/[A-Za-z0-9_~-][A-Za-z0-9_.~-]*)*\Z")
HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}\Z")
VALUE = re.compile(r"(?! )[\x20-\x7e\xa0-\xff]{1,8192}(?<! )\Z")
HEADERS_MOST_BYTES = 16 * 1024  # of one host: most that servers take of a whole head
OWN_HEADERS = frozenset(
    (
        *("host", "connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"),
        *(
            "content-length",
            "content-type",
            "content-encoding",
            "accept-encoding",
            "expect",
            "traceparent",
            "tracestate",
        ),
    )
)
"""What we write ourselves, or what belongs to a body."""
HOW_TO_NAME_HOSTS = """no hosts configured. Name at least one Ollama host, in one of three ways:
  corral serve --host gpu1=http://10.0.0.5:11434 --host gpu2=http://10.0.0.6:11434
  CORRAL_HOSTS="gpu1=http://10.0.0.5:11434,gpu2=http://10.0.0.6:11434" corral serve
  corral.toml:
    [[hosts]]
    name = "gpu1"
    url = "http://10.0.0.5:11434\""""


def checked(config: Config) -> Config:
    """The same, if it makes sense as a whole. Raises ConfigError."""
    if not config.hosts and not config.discovery.files:
        raise ConfigError(HOW_TO_NAME_HOSTS)
    listening = every_place(config)
    _check_tls(config, listening)
    check_hosts(config.hosts)
    for place in listening:
        _refuse_itself(config.hosts, place)
    _check_account_host(config)
    _check_http(config.http)
    check_access(config.access)
    check_keys(config.keys)
    _check_tracing(config.tracing)
    for rule in config.placement:
        _check_rule(rule, config)
    _check_pins(config)
    _check_warm(config)
    if not all(rule.models for rule in config.reloads):
        raise ConfigError("[[reloads]]: name the models (patterns)")
    return config


def every_place(config: Config) -> tuple[Place, ...]:
    """Of ``listen``, then of ``admin.listen``. Raises ConfigError."""
    first, tls = places(config.listen), bool(config.tls.cert)
    admin = places(config.admin.listen, "admin.listen") if config.admin.listen else ()
    if both := [place for place in admin if place in first and (place.path or place.port)]:
        raise ConfigError(f"admin.listen = {config.admin.listen!r}: listen names {both[0]} already")
    return (
        *(place._replace(tls=tls and not place.path, proxied=config.http.proxy_protocol) for place in first),
        *(place._replace(tls=config.admin.tls and not place.path, admin=True) for place in admin),
    )


def _check_tls(config: Config, listening: Iterable[Place]) -> None:
    tls = config.tls
    if beside := [key for key in ("key", "client_ca") if getattr(tls, key) and not tls.cert]:
        raise ConfigError(f"tls.{beside[0]} is there, and tls.cert is not: it is the file of the certificate")
    if config.admin.tls and not tls.cert:
        raise ConfigError("admin.tls is true, and there is no certificate: name its file, tls.cert")
    if tls.cert and not any(place.tls for place in listening):
        raise ConfigError("tls.cert is for addresses, and listen names none")
    if config.http.proxy_protocol and not config.http.trusted_proxies:
        raise ConfigError("http.proxy_protocol: name the proxies, http.trusted_proxies; nobody else could connect")


def _refuse_itself(hosts: Iterable[HostConfig], place: Place) -> None:
    address, port = place.address, place.port
    for host in hosts:
        if is_there(host.url, address, port, tls=place.tls):
            raise ConfigError(
                f"host {host.name!r}: {host.url} is where Corral itself listens: move one of them, for example with"
                f" --listen {next_to(address, port)}"
            )


def check_hosts(hosts: Iterable[HostConfig]) -> None:
    """Names and URLs. Raises ConfigError."""
    seen: set[str] = set()
    places: dict[str, str] = {}
    for host in hosts:
        _check_host(host)
        if host.name in seen:
            raise ConfigError(f"two hosts are named {host.name!r}: names are metric labels and must differ")
        seen.add(host.name)
        place = place_of(host.url)
        if place in places:
            raise ConfigError(f"hosts {places[place]!r} and {host.name!r} have the same url, {host.url}")
        places[place] = host.name


def _parts(key: str, url: str, like: str) -> SplitResult:
    """The parts of an http url, without a user, a query or a fragment. Raises ConfigError."""
    try:
        parts = urlsplit(url)
        port_ok = parts.port is None or parts.port > 0
    except ValueError:
        parts, port_ok = urlsplit(""), False
    if "@" in parts.netloc or parts.query or parts.fragment:  # what may be a secret is not repeated
        raise ConfigError(f"{key} must hold no user, query or fragment: write it like {like}")
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_ok:
        raise ConfigError(f"{key} = {url!r} is not like {like}")
    return parts


def _check_host(host: HostConfig) -> None:
    if not NAME.match(host.name):
        raise ConfigError(f"host name {host.name!r}: use letters, digits, '-', '_' and '.', at most 63")
    parts = _parts(f"host {host.name!r}: url", host.url.removeprefix(DNS), "http://10.0.0.5:11434")
    if parts.path.rstrip("/") in ("/v1", "/api"):
        raise ConfigError(
            f"host {host.name!r}: url = {host.url!r}: leave {parts.path.rstrip('/')} out, it is Ollama's own"
        )

    _check_texts(host)
    _check_link(host, parts.scheme)


def _check_texts(host: HostConfig) -> None:
    """They are told on as they are: to the system, in requests and in JSON, where some characters cannot be, or end what they stand in."""
    texts = [(key, getattr(host, key)) for key in ("url", "ca", "server_name", "cert", "key")]
    for key, text in (*texts, *(("tags", tag) for tag in host.tags)):
        if not text.isprintable() or (key == "url" and " " in text):
            raise ConfigError(f"host {host.name!r}: {key} = {text!a}: it has characters that cannot stand there")


def _check_link(host: HostConfig, scheme: str) -> None:
    name = f"host {host.name!r}"
    wants_tls = [key for key in ("ca", "server_name", "cert", "key", "insecure_skip_verify") if getattr(host, key)]
    if wants_tls and scheme != "https":
        raise ConfigError(f"{name}: {wants_tls[0]} is for a host by TLS, and its url begins with {scheme}")
    if host.key and not host.cert:
        raise ConfigError(f"{name}: key is that of a certificate: name its file, too (cert)")
    if host.insecure_skip_verify and host.ca:
        raise ConfigError(f"{name}: insecure_skip_verify trusts everybody, ca one alone: leave one of them out")
    for header, value in host.headers.items():
        if not HEADER.match(header) or header.lower() in OWN_HEADERS or header.lower().startswith("x-corral-"):
            raise ConfigError(f"{name}: headers: {header!r} is no header that can be set")
        if not VALUE.match(value):  # which may be a secret
            raise ConfigError(
                f"{name}: the value of {header} must be one line of Latin letters and signs, without spaces around it"
            )
    if sum(len(header) + len(value) for header, value in host.headers.items()) > HEADERS_MOST_BYTES:
        raise ConfigError(f"{name}: headers are over {HEADERS_MOST_BYTES} bytes")
    if twice := [one for one in host.headers if [other.lower() for other in host.headers].count(one.lower()) > 1]:
        raise ConfigError(f"{name}: headers: {twice[0]!r} is there twice")


def _check_rule(rule: PlacementConfig, config: Config) -> None:
    if not rule.models or not (rule.hosts or rule.tags):
        raise ConfigError("[[placement]]: name the models (patterns), and hosts or tags")
    known = {f"host {host.name}" for host in config.hosts} | {
        f"tag {tag}" for host in config.hosts for tag in host.tags
    }
    wanted = [f"host {name}" for name in rule.hosts] + [f"tag {tag}" for tag in rule.tags]
    if not _more_to_come(config) and (unknown := [word for word in wanted if word not in known]):
        known_words = ", ".join(sorted(known))
        raise ConfigError(f"[[placement]] for {', '.join(rule.models)}: there is no {unknown[0]}; known: {known_words}")


def _check_pins(config: Config) -> None:
    names = [host.name for host in config.hosts]
    for text in config.pin:
        model, at, host = text.rpartition("@")
        if not at or not model.strip() or not host:
            raise ConfigError(f"pin = {text!r}: write MODEL@HOST, like 'llama3:8b@{names[0] if names else 'gpu1'}'")
        if host not in names and not _more_to_come(config):
            raise ConfigError(f"pin = {text!r}: no host is named {host!r}; there are: {', '.join(names)}")
    if len(set(config.pin)) < len(config.pin):
        raise ConfigError("pin names the same model on the same host twice")


def _check_warm(config: Config) -> None:
    seen: set[str] = set()
    for rule in config.warm:
        if not rule.model.strip():
            raise ConfigError("[[warm]]: name the model")
        if rule.model in seen:
            raise ConfigError(f"[[warm]] names {rule.model} twice")
        seen.add(rule.model)
        if rule.copies > len(config.hosts) and not _more_to_come(config):
            hosts = f"{len(config.hosts)} host{'s' if len(config.hosts) > 1 else ''}"
            raise ConfigError(f"[[warm]] for {rule.model}: {rule.copies} copies cannot be on {hosts}")


def _more_to_come(config: Config) -> bool:
    """Whether there may be hosts that are not named here."""
    return bool(config.discovery.files) or any(host.url.startswith(DNS) for host in config.hosts)


def _check_account_host(config: Config) -> None:
    """Hosts that come later have names that are not known yet."""
    names = [host.name for host in config.hosts]
    if config.account_host and config.account_host not in names and not _more_to_come(config):
        raise ConfigError(f"account_host = {config.account_host!r} is none of the hosts: {', '.join(names)}")


def _check_tracing(tracing: TracingConfig) -> None:
    if tracing.endpoint:
        _parts("tracing.endpoint", tracing.endpoint, "http://tempo:4318")
    for rule in tracing.redact:
        try:
            re.compile(rule)
        except re.error as error:
            raise ConfigError(f"tracing.redact: {rule!r} is not a regular expression: {error}") from None


def _check_http(http: HttpConfig) -> None:
    for origin in http.origins:
        if origin.count("*") > 1 or (origin != "*" and "://" not in origin):
            raise ConfigError(f"http.origins: {origin!r} is not like https://chat.example.com, with at most one '*'")
    Proxies(http.trusted_proxies)
    for name in http.allowed_hosts:
        if not name or set(name) & set(":/*[] "):
            raise ConfigError(f"http.allowed_hosts: {name!r} is not a host's name, like ai.example.com, without a port")
    if not re.fullmatch(r"0?[0-7]{3}", http.unix_mode):
        raise ConfigError(
            f"http.unix_mode = {http.unix_mode!r} is not like '660': three octal digits, of owner, group and others"
        )
    if not PREFIX.match(http.prefix):
        raise ConfigError(
            f"http.prefix = {http.prefix!r}: write a path like '/corral', not /api or /v1, no slash at its end"
        )
