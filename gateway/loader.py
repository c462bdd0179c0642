"""Reads the configuration: a TOML file, then the environment, then flags; later ones win. Nothing else reads the environment.

An unknown key is an error that names the nearest key. Every ``[section] key`` can also be set as ``CORRAL_SECTION_KEY`` (a list with
commas); hosts as ``CORRAL_HOSTS="gpu1=http://10.0.0.5:11434,gpu2=http://10.0.0.6:11434"``.
"""

import dataclasses
import difflib
import math
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

import msgspec

from gateway.checked import HOW_TO_NAME_HOSTS, checked
from gateway.complaint import in_words
from gateway.config import (
    TABLES,
    TRACES_PATH,
    Config,
    DatabaseConfig,
    with_scheme,
)
from gateway.errors import ConfigError
from gateway.places import DEFAULT_LISTEN

API_KEY = "CORRAL_API_KEY"
"""The variable with the key that commands and the app send."""
STDOUT = "-"
FILES = {
    "ca": ("CORRAL_CA", "a file of certificates (PEM), by which alone that of a gateway by https is trusted"),
    "cert": ("CORRAL_CERT", "a file with a certificate of ours, where the gateway wants one"),
    "cert_key": ("CORRAL_CERT_KEY", "a file with its key, where it is in another"),
}
"""What commands that ask a gateway take for TLS: by option, the variable that can say it too, and what it is."""
_TRUTH = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_PARSED: dict[type, Callable[[str], Any]] = {
    str: str,
    int: int,
    float: float,
    bool: lambda text: _TRUTH[text.lower()],
    tuple: lambda text: tuple(part.strip() for part in text.split(",") if part.strip()),
}
_WANTED = {int: "a whole number", float: "a number", bool: "true or false"}
_COLON_FOR_EQUALS = re.compile(r"([A-Za-z0-9_.-]+):((?:dns\+)?https?://.*)\Z")


def load(
    path: Path | None = None,
    environ: Mapping[str, str] | None = None,
    *,
    listen: str | None = None,
    hosts: Iterable[str] = (),
) -> Config:
    """Read ``path`` (or CORRAL_CONFIG, or ./corral.toml if there), then the environment, then flags; later ones win.

    ``hosts`` are ``name=url`` (or a bare URL) flags and replace those of the file. Raises ConfigError.
    """
    env = environ or {}
    file, tree = _tree(path, env)
    if listen is not None:
        tree["listen"] = listen
    if named := [_host_flag(text) for text in hosts]:
        tree["hosts"] = named
    try:
        _fill_in_headers(tree, env)
        _fill_in_secrets(tree, env)
        return from_tree(tree)
    except ConfigError as error:
        if error.message == HOW_TO_NAME_HOSTS:
            raise
        overruled = {"CORRAL_LISTEN"} if listen is not None else set()
        message = _naming_variable(error.message, {name: env[name] for name in env if name not in overruled})
        if file is not None and message == error.message:
            message += f" ({file}, environment and flags together)"
        raise ConfigError(message) from None


def database_config(path: Path | None, environ: Mapping[str, str]) -> DatabaseConfig:
    """The database alone, as ``load`` would have it: who looks after it need not name hosts. Raises ConfigError."""
    _, tree = _tree(path, environ)
    table = {"database": tree["database"]}
    _refuse_unknown(table, Config, "")
    try:
        return _converted(table).database
    except ConfigError as error:
        raise ConfigError(_naming_variable(error.message, environ)) from None


def keys_config(path: Path | None, environ: Mapping[str, str]) -> Config:
    """What is said of keys, and the database, without hosts. Raises ConfigError."""
    _, tree = _tree(path, environ)
    parts: dict[str, Any] = {name: tree[name] for name in ("database", "access", "keys") if name in tree}
    _refuse_unknown(parts, Config, "")
    return _converted(parts)


def _tree(path: Path | None, env: Mapping[str, str]) -> tuple[Path | None, dict[str, Any]]:
    file = config_file(path, env)
    tree = _read_toml(file) if file is not None else {}
    _overlay_environment(tree, env)
    _fill_in_database(tree, env)
    _fill_in_tracing(tree, env)
    return file, tree


def config_file(path: Path | None, env: Mapping[str, str]) -> Path | None:
    """Which file ``load`` reads, if any."""
    named = path or (Path(env["CORRAL_CONFIG"]) if env.get("CORRAL_CONFIG") else None)
    return named or (Path("corral.toml") if Path("corral.toml").exists() else None)


def gateway_url(given: str | None, environ: Mapping[str, str]) -> str:
    """Where the gateway is that a command asks: as given, else as OLLAMA_HOST says, else where one listens by default.

    Written as Ollama's clients take it: a scheme may be missing, and then the port means 11434. An address to listen on, as 0.0.0.0, is
    this machine. Raises ConfigError.
    """
    text = (given or environ.get("OLLAMA_HOST") or DEFAULT_LISTEN).strip()
    bare = "://" not in text
    usual = DEFAULT_LISTEN.rpartition(":")[2]
    try:
        parts = urlsplit(f"http://{text}" if bare else text)
        port = parts.port or (usual if bare else "")
    except ValueError:
        parts, port = urlsplit(""), ""
    if parts.scheme not in {"http", "https"} or "@" in parts.netloc or parts.query or parts.fragment:
        raise ConfigError(f"{text!r} is no address of a gateway, like http://127.0.0.1:11434")
    name = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(parts.hostname or "", parts.hostname or "")
    host = f"[{name}]" if ":" in name else name
    return f"{parts.scheme}://{host}{f':{port}' if port else ''}{parts.path.rstrip('/')}"


def api_key(environ: Mapping[str, str]) -> str:
    """The key that a command sends which asks a gateway; empty: none."""
    return environ.get(API_KEY, "")


def gateway_files(url: str, given: Mapping[str, str | None], environ: Mapping[str, str]) -> tuple[str, str, str]:
    """Files (PEM) for speaking TLS with the gateway at ``url``: the CA that it is trusted by, a certificate of ours, and its key; as given, else as the
    environment says; empty: none. Raises ConfigError for what would be of no use."""
    if not url.startswith("https:"):
        if useless := [name for name in FILES if given.get(name)]:
            raise ConfigError(f"--{useless[0].replace('_', '-')} is for a gateway by TLS, and its address is {url}")
        return "", "", ""
    ca, cert, key = (given.get(name) or environ.get(variable, "") for name, (variable, _) in FILES.items())
    if key and not cert:
        raise ConfigError("--cert-key is the key of a certificate: name its file, too (--cert)")
    return ca, cert, key


def from_tree(tree: dict[str, Any]) -> Config:
    """Check and convert a plain tree (as TOML gives it). Raises ConfigError."""
    _refuse_unknown(tree, Config, "")
    config = checked(_converted(tree))
    if config.log.path != STDOUT:
        return config
    return dataclasses.replace(config, log=dataclasses.replace(config.log, path=""))


def _converted(tree: dict[str, Any]) -> Config:
    try:
        config = msgspec.convert(tree, Config)
    except msgspec.ValidationError as error:
        raise ConfigError(_in_words(error)) from None
    _refuse_endless(config)
    return config


def _refuse_endless(config: Config) -> None:
    """TOML and the environment can say inf and nan, and no clock can count them."""
    for section in dataclasses.fields(config):
        table = getattr(config, section.name)
        for key in dataclasses.fields(table) if dataclasses.is_dataclass(table) else ():
            value = getattr(table, key.name)
            if isinstance(value, float) and not math.isfinite(value):
                raise ConfigError(f"{section.name}.{key.name} must be a finite number, not {value}")


def _in_words(error: msgspec.ValidationError) -> str:
    """What is wrong, in the words of a TOML file."""
    text = in_words(error).replace("an object", "a table")
    if enum := re.match(r"(\w+)\.(\w+) cannot be ", text):
        text += f": it is one of {', '.join(_words_of(enum[1], enum[2]))}"
    return text + (": each host begins with [[hosts]]" if text.startswith("hosts must be a list") else "")


def _words_of(section: str, key: str) -> tuple[str, ...]:
    """The words that a key can be; none where it is no choice of words."""
    hint = get_type_hints(get_type_hints(Config)[section])[key] if section else str
    return get_args(hint) if get_origin(hint) is Literal else ()


def _naming_variable(message: str, env: Mapping[str, str]) -> str:
    """The same; a key at its beginning that the environment has set goes by the name of its variable."""
    key = re.match(r"[a-z_]+(?:\.[a-z_]+)?", message)
    name = f"CORRAL_{key[0].replace('.', '_')}".upper() if key else ""
    if key is None or name not in environment_names() or not env.get(name):
        return message
    return name + message[key.end() :]


def environment_names() -> dict[str, tuple[str, str, type]]:
    """Every key but hosts as ``CORRAL_SECTION_KEY`` → (section, key, type)."""
    names: dict[str, tuple[str, str, type]] = {
        "CORRAL_LISTEN": ("", "listen", str),
        "CORRAL_ACCOUNT_HOST": ("", "account_host", str),
        "CORRAL_PIN": ("", "pin", tuple),
    }
    for section, kind in get_type_hints(Config).items():
        if dataclasses.is_dataclass(kind):
            for key, hint in get_type_hints(kind).items():
                if get_origin(hint) is Mapping:
                    continue  # a table of its own
                scalar = {Literal: str, tuple: tuple}.get(get_origin(hint), hint)
                names[f"CORRAL_{section}_{key}".upper()] = (section, key, scalar)
    return names


def mistyped(environ: Mapping[str, str]) -> dict[str, str]:
    """Variables that nothing reads, but that are nearly the name of one → that name. Others may start with CORRAL_ by right:
    Kubernetes sets CORRAL_SERVICE_HOST and its like beside a service of that name.
    """
    known = ["CORRAL_CONFIG", "CORRAL_HOSTS", API_KEY, *(name for name, _ in FILES.values()), *environment_names()]
    strangers = [name for name in environ if name.startswith("CORRAL") and name not in known]
    near = {name: difflib.get_close_matches(name, known, n=1, cutoff=0.85) for name in strangers}
    return {name: found[0] for name, found in near.items() if found}


def _overlay_environment(tree: dict[str, Any], env: Mapping[str, str]) -> None:
    if env.get("CORRAL_HOSTS"):
        tree["hosts"] = [_host_flag(text) for text in env["CORRAL_HOSTS"].split(",") if text.strip()]
    for name, (section, key, kind) in environment_names().items():
        text = env.get(name)
        if not text:
            continue
        if text.lower() in _words_of(section, key):
            text = text.lower()
        try:
            value = _PARSED[kind](text)
        except (ValueError, KeyError):
            raise ConfigError(f"{name} must be {_WANTED[kind]}, not {text!r}") from None
        table = tree.setdefault(section, {}) if section else tree
        if isinstance(table, dict):  # else the file is wrong, and is told so
            table[key] = value


def _fill_in_database(tree: dict[str, Any], env: Mapping[str, str]) -> None:
    """A file in the user's folder for data, where no database is named; nothing where that folder is not known either."""
    table = tree.setdefault("database", {})
    home = env.get("XDG_DATA_HOME") or (f"{env['HOME']}/.local/share" if env.get("HOME") else "")
    if isinstance(table, dict) and not table.get("url") and home:
        table["url"] = f"sqlite:///{home}/corral/corral.db"


def _fill_in_headers(tree: dict[str, Any], env: Mapping[str, str]) -> None:
    """Hosts' headers whose values are in the environment. Raises ConfigError for a variable that is not there."""
    rows = tree.get("hosts")
    for row in rows if isinstance(rows, list) else ():
        named = row.get("headers_env") if isinstance(row, dict) else None
        headers = row.get("headers", {}) if named else None
        if not isinstance(named, dict) or not isinstance(headers, dict):
            continue  # there are none; or it is wrong, and is told so
        for variable in named.values():
            if not env.get(str(variable)):
                raise ConfigError(f"host {row.get('name')!r}: headers_env: the environment has no {variable}")
        row["headers"] = headers | {header: env[str(variable)].strip() for header, variable in named.items()}


def _fill_in_secrets(tree: dict[str, Any], env: Mapping[str, str]) -> None:
    """What files of hosts may have sent as headers. Raises ConfigError for a variable that is not there."""
    table = tree.get("discovery")
    if not isinstance(table, dict):
        return
    named, known = table.get("secrets_env", ()), table.get("secrets", {})
    if not named or not isinstance(named, (list, tuple)) or not isinstance(known, dict):
        return  # there are none; or it is wrong, and is told so
    for variable in map(str, named):
        if not env.get(variable):
            raise ConfigError(f"discovery.secrets_env: the environment has no {variable}")
        known = known | {variable: env[variable].strip()}
    table["secrets"] = known


def _fill_in_tracing(tree: dict[str, Any], env: Mapping[str, str]) -> None:
    """What OpenTelemetry's own variables say, where Corral is told no endpoint."""
    table = tree.setdefault("tracing", {})
    if not isinstance(table, dict):
        return
    if env.get("OTEL_SDK_DISABLED", "").lower() == "true" or env.get("OTEL_TRACES_EXPORTER", "").lower() == "none":
        table["mode"] = "off"
    if table.get("endpoint") or table.get("mode") == "off":
        return
    every = env.get("OTEL_EXPORTER_OTLP_ENDPOINT", "").rstrip("/")
    table["endpoint"] = env.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "") or (every and every + TRACES_PATH)
    protocol = env.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or env.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    if table["endpoint"] and protocol and protocol != "http/protobuf":
        raise ConfigError(
            f"OTEL_EXPORTER_OTLP_PROTOCOL={protocol!r}: Corral speaks http/protobuf; name another endpoint with"
            " CORRAL_TRACING_ENDPOINT, or set CORRAL_TRACING_MODE=off"
        )


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None


def _host_flag(text: str) -> dict[str, Any]:
    name, equals, url = text.strip().partition("=")
    if not equals or "/" in name:
        name, url = "", text.strip()
        if meant := _COLON_FOR_EQUALS.match(url):
            raise ConfigError(f"host {url!r}: write {meant[1]}={meant[2]}")
    elif not name.strip():
        raise ConfigError(f"host {text.strip()!r} has no name before its '=': write name=url, or the url alone")
    url = with_scheme(url)
    if not name:
        bare = text.strip().partition("://")[2] or text.strip()
        name = re.sub(r"[^A-Za-z0-9_.-]+", "-", bare.partition("/")[0]).strip("-.")
    return {"name": name, "url": url}


def _refuse_unknown(tree: Mapping[str, Any], kind: type, where: str) -> None:
    hints = get_type_hints(kind)
    for key, value in tree.items():
        if key not in hints:
            near = difflib.get_close_matches(key, hints, n=1, cutoff=0.6)
            known = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(hints)}"
            raise ConfigError(f"unknown key {where + key!r}: {known}")
        if dataclasses.is_dataclass(hints[key]) and isinstance(value, dict):
            _refuse_unknown(value, hints[key], f"{where}{key}.")
        elif key in TABLES and isinstance(value, list):
            for row in value:
                if isinstance(row, dict):
                    _refuse_unknown(row, TABLES[key], f"{key}.")
