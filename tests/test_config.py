"""The configuration: where it comes from, which source wins, and what is said of what is wrong with it."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from gateway.config import Config, HostConfig, PlacementConfig, ReloadsConfig, WarmConfig
from gateway.errors import ConfigError
from gateway.loader import environment_names, from_tree, gateway_url, load, mistyped
from gateway.places import split_listen

URL = "http://10.0.0.5:11434"
HOST = {"name": "gpu1", "url": URL}
HOSTS = {"CORRAL_HOSTS": f"gpu1={URL}"}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test reads the configuration of whoever runs it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(path: Path, text: str) -> Path:
    """A file with this in it."""
    path.write_text(text, encoding="utf-8")
    return path


def refused(tree: dict[str, Any]) -> str:
    """What is said of a tree that cannot be used."""
    with pytest.raises(ConfigError) as caught:
        from_tree(tree)
    return caught.value.message


# -- sources --------------------------------------------------------------------------------------------------------------------------

TOML = f"""
listen = "127.0.0.1:1111"
[[hosts]]
name = "gpu1"
url = "{URL}"
slots = 4
tags = ["fast", "new"]
[queue]
limit = 7
[relay]
deadline_seconds = 1.5
"""


def test_a_file(tmp_path: Path) -> None:
    """What it says is taken, what it does not say has a default."""
    config = load(written(tmp_path / "x.toml", TOML))
    assert config.hosts == (HostConfig("gpu1", URL, 4, ("fast", "new")),)
    assert (config.listen, config.queue.limit, config.relay.deadline_seconds) == ("127.0.0.1:1111", 7, 1.5)
    assert config.poll == Config().poll


def test_a_file_that_is_there(tmp_path: Path) -> None:
    """./corral.toml is read without being named, but not if another is."""
    written(tmp_path / "corral.toml", TOML)
    other = written(tmp_path / "other.toml", TOML.replace("1111", "2222"))
    assert load().listen == "127.0.0.1:1111"
    assert load(None, {"CORRAL_CONFIG": str(other)}).listen == "127.0.0.1:2222"
    assert load(other).listen == "127.0.0.1:2222"


def test_the_environment_over_the_file(tmp_path: Path) -> None:
    """Key by key; the file's other keys stay."""
    path = written(tmp_path / "x.toml", TOML + "attempts = 9\n")
    config = load(
        path, {"CORRAL_LISTEN": "127.0.0.1:3333", "CORRAL_RELAY_DEADLINE_SECONDS": "2", "CORRAL_LOG_FORMAT": "json"}
    )
    assert (config.listen, config.relay.deadline_seconds, config.relay.attempts) == ("127.0.0.1:3333", 2.0, 9)
    assert (config.log.format, config.queue.limit) == ("json", 7)
    assert config.hosts[0].slots == 4


def test_flags_over_everything(tmp_path: Path) -> None:
    """The last word; hosts are replaced as a whole."""
    path = written(tmp_path / "x.toml", TOML)
    config = load(
        path, HOSTS | {"CORRAL_LISTEN": "127.0.0.1:3333"}, listen="127.0.0.1:4444", hosts=["a=http://a:1", "http://b:2"]
    )
    assert config.listen == "127.0.0.1:4444"
    assert [(host.name, host.url, host.slots) for host in config.hosts] == [
        ("a", "http://a:1", 0),
        ("b-2", "http://b:2", 0),
    ]


def test_hosts_of_the_environment() -> None:
    """Several with commas between them, with or without names; blanks do not matter."""
    config = load(None, {"CORRAL_HOSTS": f" gpu1={URL} , http://10.0.0.6:11434,,"})
    assert [(host.name, host.url) for host in config.hosts] == [
        ("gpu1", URL),
        ("10.0.0.6-11434", "http://10.0.0.6:11434"),
    ]


def test_empty_variables_say_nothing() -> None:
    """As if they were not set."""
    assert load(None, HOSTS | {"CORRAL_LISTEN": "", "CORRAL_QUEUE_LIMIT": "", "CORRAL_CONFIG": ""}) == load(None, HOSTS)


def test_standard_output_in_the_environment(tmp_path: Path) -> None:
    """Stands above a path in the file, by a word: an empty variable says nothing."""
    file = tmp_path / "x.toml"
    file.write_text('[log]\npath = "corral.log"\n', encoding="utf-8")
    assert load(file, HOSTS | {"CORRAL_LOG_PATH": ""}).log.path == "corral.log"
    assert load(file, HOSTS | {"CORRAL_LOG_PATH": "-"}).log.path == ""


def test_nothing_else_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what is handed in counts, not the environment of the process."""
    monkeypatch.setenv("CORRAL_LISTEN", "127.0.0.1:9999")
    assert load(None, HOSTS).listen == Config().listen


@pytest.mark.parametrize("name", sorted(environment_names()))
def test_every_scalar_has_a_variable(name: str) -> None:
    """Named after its section and key, and of its type."""
    section, key, kind = environment_names()[name]
    assert name == "_".join(filter(None, ("CORRAL", section, key))).upper()
    default = getattr(getattr(Config(), section) if section else Config(), key)
    assert isinstance(default, kind)
    config = load(None, HOSTS | {name: ",".join(default) or " , " if kind is tuple else str(default)})
    assert getattr(getattr(config, section) if section else config, key) == default


@pytest.mark.parametrize(("text", "value"), [("true", True), ("1", True), ("FALSE", False), ("no", False)])
def test_a_truth_in_the_environment(text: str, value: bool) -> None:
    """As people write it; anything else is refused."""
    assert load(None, HOSTS | {"CORRAL_RELAY_MODEL_AT_HOST": text}).relay.model_at_host is value
    with pytest.raises(ConfigError, match="CORRAL_RELAY_MODEL_AT_HOST must be true or false, not 'maybe'"):
        load(None, HOSTS | {"CORRAL_RELAY_MODEL_AT_HOST": "maybe"})


def test_a_list_in_the_environment() -> None:
    """With commas."""
    assert load(None, HOSTS | {"CORRAL_DISCOVERY_FILES": "a.json, b.yml"}).discovery.files == ("a.json", "b.yml")


def test_every_section_has_variables() -> None:
    """No key was forgotten. Tables of names and values have none."""
    scalars = {
        (field.name, inner.name)
        for field in dataclasses.fields(Config)
        if dataclasses.is_dataclass(getattr(Config(), field.name))
        for inner in dataclasses.fields(getattr(Config(), field.name))
        if not isinstance(getattr(getattr(Config(), field.name), inner.name), Mapping)
    }
    assert {(section, key) for section, key, _ in environment_names().values()} == scalars | {
        ("", "listen"),
        ("", "account_host"),
        ("", "pin"),
    }


def test_lists_in_the_environment() -> None:
    """Commas between the parts; blanks do not matter."""
    config = load(None, HOSTS | {"CORRAL_HTTP_ORIGINS": " https://a.example, app://* ,,"})
    assert config.http.origins == ("https://a.example", "app://*")


# -- http -----------------------------------------------------------------------------------------------------------------------------

HTTP = {"origins": ["*", "https://*.example.com"], "allowed_hosts": ["ai.example.com"], "prefix": "/a/v1-c.d"}


def test_good_manners() -> None:
    """Origins with a wildcard, names of hosts, a path."""
    http = from_tree({"hosts": [HOST], "http": HTTP}).http
    assert (http.origins, http.allowed_hosts) == (("*", "https://*.example.com"), ("ai.example.com",))
    assert http.prefix == "/a/v1-c.d"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("origins", [origin]) for origin in ("", "example.com", "https://*.*.com", "localhost:*")),
        *(("allowed_hosts", [name]) for name in ("", "a:80", "*.example.com", "http://a", "[::1]", "a b")),
        *(
            ("prefix", prefix)
            for prefix in ("/", "corral", "/corral/", "//a", "/a//b", "/..", "/a?b", "/{a}", "/a\n", "/api", "/v1/x")
        ),
    ],
)
def test_bad_manners(key: str, value: Any) -> None:
    """What could never match, or would match too much, is refused with an example."""
    message = refused({"hosts": [HOST], "http": {key: value}})
    assert message.startswith(f"http.{key}")
    assert "like" in message


def test_the_account_host() -> None:
    """Is one of the hosts."""
    assert from_tree({"hosts": [HOST], "account_host": "gpu1"}).account_host == "gpu1"
    assert refused({"hosts": [HOST], "account_host": "gpu2"}) == "account_host = 'gpu2' is none of the hosts: gpu1"


# -- models in memory -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"pin": ["llama3"]}, "pin = 'llama3': write MODEL@HOST, like 'llama3:8b@gpu1'"),
        ({"pin": ["@gpu1"]}, "pin = '@gpu1': write MODEL@HOST, like 'llama3:8b@gpu1'"),
        ({"pin": ["llama3@gpu9"]}, "pin = 'llama3@gpu9': no host is named 'gpu9'; there are: gpu1"),
        ({"pin": ["llama3@gpu1"] * 2}, "pin names the same model on the same host twice"),
        ({"warm": [{"model": "a", "copies": 2}]}, "[[warm]] for a: 2 copies cannot be on 1 host"),
        ({"warm": [{"model": " "}]}, "[[warm]]: name the model"),
        ({"warm": [{"model": "a"}, {"model": "a"}]}, "[[warm]] names a twice"),
        ({"reloads": [{"models": []}]}, "[[reloads]]: name the models (patterns)"),
    ],
)
def test_refused_for_memory(tree: dict[str, Any], message: str) -> None:
    """Whoever wrote it is told what to write."""
    assert refused({"hosts": [HOST]} | tree) == message


def test_models_in_memory() -> None:
    """Pins from the environment too; hosts that are yet to come may have any name, and any number."""
    config = load(None, HOSTS | {"CORRAL_PIN": "llama3:8b@gpu1, qwen3@gpu1"})
    assert config.pin == ("llama3:8b@gpu1", "qwen3@gpu1")
    rules = {"pin": ["llama3@gpu9"], "warm": [{"model": "a", "copies": 7}], "reloads": [{"models": ["a*"]}]}
    later = from_tree({"hosts": [HOST], "discovery": {"files": ["hosts.json"]}} | rules)
    assert (later.pin, later.warm) == (("llama3@gpu9",), (WarmConfig("a", 7),))
    assert later.reloads == (ReloadsConfig(("a*",), "group"),)


# -- placement ------------------------------------------------------------------------------------------------------------------------


def test_placement() -> None:
    """Rules name hosts that are there, or tags that some host has."""
    rules = [{"models": ["llama3*"], "hosts": ["gpu1"]}, {"models": ["*"], "tags": ["big"]}]
    config = from_tree({"hosts": [HOST | {"tags": ["big"]}], "placement": rules})
    assert config.placement == (PlacementConfig(("llama3*",), ("gpu1",)), PlacementConfig(("*",), (), ("big",)))


@pytest.mark.parametrize("tree", [{"discovery": {"files": ["hosts.json"]}}, {"hosts": [HOST | {"url": f"dns+{URL}"}]}])
def test_placement_on_hosts_to_come(tree: dict[str, Any]) -> None:
    """Which hosts there will be is not known when the configuration is read."""
    rule = {"models": ["a*"], "hosts": ["gpu9"]}
    assert from_tree({"hosts": [HOST], "placement": [rule]} | tree).placement[0].hosts == ("gpu9",)


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"models": ["a*"], "hosts": ["gpu9"]}, "[[placement]] for a*: there is no host gpu9; known: host gpu1"),
        ({"models": ["a*"], "tags": ["big"]}, "[[placement]] for a*: there is no tag big; known: host gpu1"),
        ({"models": [], "hosts": ["gpu1"]}, "[[placement]]: name the models (patterns), and hosts or tags"),
        ({"models": ["a"]}, "[[placement]]: name the models (patterns), and hosts or tags"),
        ({"model": ["a"]}, "unknown key 'placement.model': did you mean 'models'?"),
        ({"hosts": ["gpu1"]}, "models"),
    ],
)
def test_placement_that_places_nothing(rule: dict[str, Any], words: str) -> None:
    """It says what is wrong."""
    assert words in refused({"hosts": [HOST], "placement": [rule]})


# -- hosts ----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flag", "name", "url"),
    [
        ("gpu1=http://10.0.0.5:11434", "gpu1", "http://10.0.0.5:11434"),
        ("gpu1=10.0.0.5:11434", "gpu1", "http://10.0.0.5:11434"),
        ("gpu1=gpu1.lan", "gpu1", "http://gpu1.lan:11434"),
        ("gpu1.lan/ollama", "gpu1.lan", "http://gpu1.lan:11434/ollama"),
        ("local=[::1]", "local", "http://[::1]:11434"),
        ("local=[::1]:80", "local", "http://[::1]:80"),
        (" gpu1=http://10.0.0.5 ", "gpu1", "http://10.0.0.5"),
        ("http://10.0.0.5:11434", "10.0.0.5-11434", "http://10.0.0.5:11434"),
        ("10.0.0.5:11434", "10.0.0.5-11434", "http://10.0.0.5:11434"),
        ("https://gpu1.lan/ollama", "gpu1.lan", "https://gpu1.lan/ollama"),
        ("http://[::1]:11434", "1-11434", "http://[::1]:11434"),
        ("local=http://[::1]:11434", "local", "http://[::1]:11434"),
    ],
)
def test_host_flags(flag: str, name: str, url: str) -> None:
    """``name=url`` or a URL, from which a name is made; http and Ollama's port where no scheme is written."""
    (host,) = load(hosts=[flag]).hosts
    assert (host.name, host.url) == (name, url)


@pytest.mark.parametrize("name", ["gpu1", "GPU-1", "a.b_c", "1", "x" * 63])
def test_good_names(name: str) -> None:
    """Letters, digits, dashes, underscores and dots."""
    assert from_tree({"hosts": [HOST | {"name": name}]}).hosts[0].name == name


@pytest.mark.parametrize("name", ["", "-a", ".a", "a b", "a/b", "ä", "x" * 64, "a\n"])
def test_bad_names(name: str) -> None:
    """A name is a metric label and stands in headers."""
    assert "use letters, digits" in refused({"hosts": [HOST | {"name": name}]})


@pytest.mark.parametrize(
    "url",
    [
        "10.0.0.5:11434",
        "ftp://10.0.0.5",
        "http://",
        "http:///path",
        "http://10.0.0.5:0",
        "http://10.0.0.5:99999",
        "http://10.0.0.5:port",
        "http://[::1",
        "",
    ],
)
def test_bad_urls(url: str) -> None:
    """What no connection can be made to is refused at once, with an example."""
    message = refused({"hosts": [HOST | {"url": url}]})
    assert "'gpu1'" in message
    assert "is not like http://10.0.0.5:11434" in message


@pytest.mark.parametrize(
    "url", ["http://me@gpu1", "http://me:secret@gpu1", "http://:secret@gpu1", "http://gpu1?a=b", "http://gpu1#a"]
)
def test_urls_that_say_too_much(url: str) -> None:
    """A user, a query or a fragment would get lost."""
    assert "must hold no user, query or fragment" in refused({"hosts": [HOST | {"url": url}]})


@pytest.mark.parametrize("flag", ["http://[::1", "gpu1=http://[::1", "gpu1=", "=", "=http://gpu1", "http://"])
def test_bad_flags(flag: str) -> None:
    """What is wrong with a flag is said like anything else, not with a traceback."""
    with pytest.raises(ConfigError):
        load(hosts=[flag])


def test_two_of_one_name() -> None:
    """Their metrics would be one."""
    assert "two hosts are named 'gpu1'" in refused({"hosts": [HOST, HOST]})


def test_mistyped_variables() -> None:
    """Each with the name that was meant; what Kubernetes or anybody else sets is not ours to judge."""
    environ = {"CORRAL_QUEUE_LIMITS": "5", "CORRALHOSTS": "x", "CORRAL_SERVICE_HOST": "10.0.0.1", "CORRAL_PORT": "tcp"}
    environ |= {"CORRAL_LISTEN": ":1", "CORRAL_TEST_OLLAMA": "http://gpu1", "HOME": "/"}
    assert mistyped(environ) == {"CORRAL_QUEUE_LIMITS": "CORRAL_QUEUE_LIMIT", "CORRALHOSTS": "CORRAL_HOSTS"}


@pytest.mark.parametrize("environ", [{}, {"CORRAL_HOSTS": " , "}])
def test_no_hosts(environ: dict[str, str]) -> None:
    """The message shows all three ways to name some."""
    with pytest.raises(ConfigError) as caught:
        load(None, environ)
    for way in ("--host gpu1=", "CORRAL_HOSTS=", "[[hosts]]"):
        assert way in caught.value.message


# -- what is wrong --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"lisen": "x"}, "unknown key 'lisen': did you mean 'listen'?"),
        ({"queue": {"limits": 5}}, "unknown key 'queue.limits': did you mean 'limit'?"),
        ({"relay": {"deadline": 5}}, "unknown key 'relay.deadline': did you mean 'deadline_seconds'?"),
        ({"hosts": [HOST | {"slot": 2}]}, "unknown key 'hosts.slot': did you mean 'slots'?"),
        ({"queue": {"zzz": 5}}, "unknown key 'queue.zzz': known here: limit, per_principal"),
        ({"zzz": 5}, "unknown key 'zzz': known here: listen, hosts"),
        ({"bogus": 5}, "unknown key 'bogus': known here: listen, hosts"),
    ],
)
def test_unknown_keys(tree: dict[str, Any], message: str) -> None:
    """The nearest key is named, or all that are known there."""
    assert refused({"hosts": [HOST]} | tree).startswith(message)


WRONG = {
    "text for a number": ({"queue": {"limit": "many"}}, "queue.limit "),
    "a fraction for a count": ({"queue": {"limit": 1.5}}, "queue.limit "),
    "a truth value for a count": ({"queue": {"limit": True}}, "queue.limit "),
    "no slots": ({"hosts": [HOST | {"slots": -1}]}, "slots"),
    "no room": ({"queue": {"limit": 0}}, "queue.limit "),
    "no attempts": ({"relay": {"attempts": 0}}, "relay.attempts "),
    "no time": ({"poll": {"interval_seconds": 0}}, "poll.interval_seconds "),
    "less than no time": ({"shutdown": {"grace_seconds": -1}}, "shutdown.grace_seconds "),
    "not a number": ({"poll": {"interval_seconds": float("nan")}}, "poll.interval_seconds "),
    "without an end": (
        {"relay": {"deadline_seconds": float("inf")}},
        "relay.deadline_seconds must be a finite number, not inf",
    ),
    "words": ({"queue": {"limit": "many"}}, "queue.limit must be a whole number, not a text"),
    "an unknown word": ({"log": {"format": "xml"}}, "log.format "),
    "a number for text": ({"listen": 11434}, "listen "),
    "a number for a section": ({"queue": 5}, "queue "),
    "a table for hosts": ({"hosts": {"gpu1": URL}}, "hosts "),
    "text for a host": ({"hosts": [URL]}, "hosts"),
    "a host without a url": ({"hosts": [{"name": "gpu1"}]}, "url"),
    "text for tags": ({"hosts": [HOST | {"tags": "fast"}]}, "tags"),
}


@pytest.mark.parametrize(("tree", "words"), WRONG.values(), ids=WRONG)
def test_wrong_values(tree: dict[str, Any], words: str) -> None:
    """The message says which key."""
    assert words in refused({"hosts": [HOST]} | tree)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("CORRAL_QUEUE_LIMIT", "many", "CORRAL_QUEUE_LIMIT must be a whole number, not 'many'"),
        ("CORRAL_QUEUE_LIMIT", "1.5", "CORRAL_QUEUE_LIMIT must be a whole number, not '1.5'"),
        ("CORRAL_QUEUE_LIMIT", "0", "^CORRAL_QUEUE_LIMIT must be at least 1"),
        ("CORRAL_POLL_INTERVAL_SECONDS", "2s", "CORRAL_POLL_INTERVAL_SECONDS must be a number, not '2s'"),
        ("CORRAL_POLL_INTERVAL_SECONDS", "nan", "^CORRAL_POLL_INTERVAL_SECONDS "),
        ("CORRAL_RELAY_DEADLINE_SECONDS", "inf", "^CORRAL_RELAY_DEADLINE_SECONDS must be a finite number, not inf$"),
        ("CORRAL_LOG_LEVEL", "loud", "^CORRAL_LOG_LEVEL cannot be 'loud': it is one of debug, "),
        ("CORRAL_LISTEN", "nowhere", "^CORRAL_LISTEN = 'nowhere'"),
        ("CORRAL_HOSTS", "gpu1=ftp://x", "'gpu1'"),
        ("CORRAL_HOSTS", "a:http://10.0.0.5:11434", "write a=http://10.0.0.5:11434$"),
    ],
)
def test_wrong_variables(name: str, text: str, words: str) -> None:
    """So does that of a variable."""
    with pytest.raises(ConfigError, match=words):
        load(None, HOSTS | {name: text})


def test_a_flag_is_not_the_variable() -> None:
    """What a flag overrules is not to blame."""
    with pytest.raises(ConfigError, match=r"^listen = 'there'"):
        load(None, HOSTS | {"CORRAL_LISTEN": "127.0.0.1:1"}, listen="there")


def test_a_word_in_capitals() -> None:
    """As other programs have it in their variables."""
    log = load(None, HOSTS | {"CORRAL_LOG_LEVEL": "DEBUG", "CORRAL_LOG_FORMAT": "Json"}).log
    assert (log.level, log.format) == ("debug", "json")


def test_a_variable_of_a_section_that_is_none(tmp_path: Path) -> None:
    """What is wrong in the file is said, whatever the environment adds."""
    path = written(tmp_path / "x.toml", "queue = 5\n")
    with pytest.raises(ConfigError, match="queue"):
        load(path, HOSTS | {"CORRAL_QUEUE_LIMIT": "7"})


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """Its name is in the message."""
    with pytest.raises(ConfigError, match=r"cannot read .*nope\.toml: No such file"):
        load(tmp_path / "nope.toml")


def test_a_file_that_is_a_directory(tmp_path: Path) -> None:
    """Is none."""
    with pytest.raises(ConfigError, match="cannot read"):
        load(tmp_path)


@pytest.mark.parametrize("data", [b"listen = ", b"\xff", b"[queue]\n[queue]\n"])
def test_a_file_that_is_no_toml(tmp_path: Path, data: bytes) -> None:
    """What is wrong with it is in the message."""
    path = tmp_path / "x.toml"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=r"x\.toml is not valid TOML: "):
        load(path)


# -- how hosts are reached ------------------------------------------------------------------------------------------------------------


LINKS = {
    "no TLS": ({"ca": "ca.pem"}, "ca is for a host by TLS, and its url begins with http"),
    "no certificate": ({"url": "https://a", "key": "k.pem"}, "key is that of a certificate: name its file, too (cert)"),
    "trusts all and one": ({"url": "https://a", "ca": "c", "insecure_skip_verify": True}, "leave one of them out"),
    "our own header": ({"headers": {"Host": "a"}}, "'Host' is no header that can be set"),
    "Corral's header": ({"headers": {"X-Corral-Host": "a"}}, "'X-Corral-Host' is no header that can be set"),
    "no name": ({"headers": {"X Y": "a"}}, "'X Y' is no header that can be set"),
    "two lines": ({"headers": {"X-A": "secret\r\nX-B: b"}}, "the value of X-A must be one line"),
    "spaces": ({"headers": {"X-A": " secret"}}, "the value of X-A must be one line"),
    "other letters": ({"headers": {"X-A": "secret я"}}, "the value of X-A must be one line"),
    "twice": ({"headers": {"X-A": "a", "x-a": "b"}}, "is there twice"),
    "no variable": ({"headers_env": {"X-A": "NOT_THERE"}}, "headers_env: the environment has no NOT_THERE"),
    "no text": ({"headers": {"X-A": 1}}, "headers"),
    "no table": ({"headers": "X-A"}, "must be a table"),
}


@pytest.mark.parametrize(("more", "words"), LINKS.values(), ids=LINKS)
def test_a_host_that_cannot_be_reached_so(tmp_path: Path, more: dict[str, Any], words: str) -> None:
    """The message says which host and what is wrong, and never the value of a header."""
    file = tmp_path / "x.toml"
    rows = {"name": "gpu1", "url": "http://10.0.0.5"} | more
    lines = [f"{key} = {_toml(value)}" for key, value in rows.items()]
    file.write_text("[[hosts]]\n" + "\n".join(lines), encoding="utf-8")
    with pytest.raises(ConfigError) as refused:
        load(file, {"HOME": "/nowhere"})
    assert words in refused.value.message
    assert "secret" not in refused.value.message


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {_toml(one)}" for key, one in value.items()) + " }"
    return json.dumps(value)


def test_headers_out_of_the_environment(tmp_path: Path) -> None:
    """Beside those that are written out; what is at the end of a secret's file does not count."""
    file = tmp_path / "x.toml"
    file.write_text(
        '[[hosts]]\nname = "gpu1"\nurl = "http://10.0.0.5"\n[hosts.headers]\nX-Team = "ml"\n[hosts.headers_env]\nX-Key = "K"\n',
        encoding="utf-8",
    )
    (host,) = load(file, {"K": "secret\n"}).hosts
    assert host.headers == {"X-Team": "ml", "X-Key": "secret"}
    assert "secret" not in repr(host)


def test_secrets_that_files_of_hosts_may_name(tmp_path: Path) -> None:
    """Those that are listed, and no other variable; values are not shown."""
    file = tmp_path / "x.toml"
    file.write_text('[discovery]\nfiles = ["h.json"]\nsecrets = { B = "written" }\n', encoding="utf-8")
    env = {"CORRAL_DISCOVERY_SECRETS_ENV": "A", "A": "secret\n", "C": "other", "CORRAL_DISCOVERY_SECRETS": "x"}
    discovery = load(file, env).discovery
    assert discovery.secrets == {"A": "secret", "B": "written"}
    assert 'secret"' not in repr(discovery)
    assert "written" not in repr(discovery)
    with pytest.raises(ConfigError, match=r"CORRAL_DISCOVERY_SECRETS_ENV: the environment has no A"):
        load(file, {"CORRAL_DISCOVERY_SECRETS_ENV": "A"})
    file.write_text('[discovery]\nfiles = ["h.json"]\nsecrets = "A"\nsecrets_env = ["A"]\n', encoding="utf-8")
    with pytest.raises(ConfigError, match=r"discovery\.secrets must be a table"):
        load(file, {"A": "x"})


# -- listening ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("listen", "expected"),
    [
        ("127.0.0.1:11434", ("127.0.0.1", 11434)),
        ("0.0.0.0:80", ("0.0.0.0", 80)),
        (":11434", ("0.0.0.0", 11434)),
        ("localhost:0", ("localhost", 0)),
        ("[::1]:11434", ("::1", 11434)),
        ("[::]:11434", ("::", 11434)),
        ("127.0.0.1:65535", ("127.0.0.1", 65535)),
    ],
)
def test_where_to_listen(listen: str, expected: tuple[str, int]) -> None:
    """An address and a port."""
    assert split_listen(listen) == expected


@pytest.mark.parametrize(
    "listen",
    ["", "11434", "127.0.0.1", "127.0.0.1:", "127.0.0.1:http", "a:-1", "[::1]", "a:²", "a: 80"],
)
def test_nowhere_to_listen(listen: str) -> None:
    """The message shows how to write it."""
    with pytest.raises(ConfigError, match=r"write address:port, as in '127\.0\.0\.1:11434'"):
        split_listen(listen)
    assert "write address:port" in refused({"hosts": [HOST], "listen": listen})


@pytest.mark.parametrize(
    ("listen", "words"),
    [
        ("127.0.0.1:65536", "a port is a number up to 65535"),
        ("::1:11434", "in brackets, as in '[::1]:11434'"),
        ("http://127.0.0.1:11434", "write address:port"),
    ],
)
def test_nearly_somewhere_to_listen(listen: str, words: str) -> None:
    """The message says what is wrong with it."""
    assert words in refused({"hosts": [HOST], "listen": listen})


ELSEWHERE: dict[str, tuple[dict[str, Any], str]] = {
    "a key alone": ({"tls": {"key": "k.pem"}}, "tls.key is there, and tls.cert is not"),
    "a client's CA alone": ({"tls": {"client_ca": "c.pem"}}, "tls.client_ca is there, and tls.cert is not"),
    "TLS for operators alone": ({"admin": {"listen": ":1", "tls": True}}, "admin.tls is true, and there is no"),
    "TLS by a socket": ({"listen": "unix:a", "tls": {"cert": "c"}}, "tls.cert is for addresses, and listen names none"),
    "no proxies": ({"http": {"proxy_protocol": True}}, "http.proxy_protocol: name the proxies"),
    "no proxy": ({"http": {"trusted_proxies": ["a"]}}, "http.trusted_proxies: 'a' is no address or network"),
    "the same place": ({"admin": {"listen": "127.0.0.1:11434"}}, "listen names 127.0.0.1:11434 already"),
    "no place": ({"admin": {"listen": "11435"}}, "admin.listen = '11435': write address:port"),
    "no rights": ({"http": {"unix_mode": "rw"}}, "http.unix_mode = 'rw' is not like '660'"),
    "too many rights": ({"http": {"unix_mode": "4777"}}, "http.unix_mode = '4777' is not like '660'"),
}


@pytest.mark.parametrize(("more", "words"), ELSEWHERE.values(), ids=ELSEWHERE)
def test_places_that_make_no_sense(more: dict[str, Any], words: str) -> None:
    """The message says which key, and how to mend it."""
    assert words in refused({"hosts": [HOST]} | more)


ITSELF = {
    "by TLS": ({"listen": "127.0.0.1:1", "tls": {"cert": "c.pem"}}, "https://127.0.0.1:1"),
    "for operators": ({"admin": {"listen": "127.0.0.1:1"}}, "http://127.0.0.1:1"),
    "among several": ({"listen": "unix:a, 127.0.0.1:1"}, "http://127.0.0.1:1"),
    "the default": ({}, "http://127.0.0.1:11434"),
    "by its name": ({"listen": "127.0.0.1:1"}, "http://localhost:1/"),
    "all addresses": ({"listen": ":1"}, "http://127.0.0.1:1"),
    "IPv6": ({"listen": "[::1]:1"}, "http://[::1]:1"),
}


@pytest.mark.parametrize(("more", "url"), ITSELF.values(), ids=ITSELF)
def test_a_host_that_is_corral_itself(more: dict[str, Any], url: str) -> None:
    """Its requests would go round for ever; the message says what to do."""
    assert "is where Corral itself listens: move one of them, for example with --listen" in refused(
        {"hosts": [{"name": "local", "url": url}]} | more
    )


def test_hosts_beside_corral() -> None:
    """Another port, another family, another machine: all fine."""
    for url in ("http://127.0.0.1:11435", "http://[::1]:11434", "http://10.0.0.5:11434", "https://127.0.0.1:11434"):
        assert from_tree({"hosts": [{"name": "local", "url": url}]}).hosts[0].url == url


@pytest.mark.parametrize("path", ["/v1", "/api/"])
def test_a_path_of_ollamas_own(path: str) -> None:
    """Is not part of a host's URL."""
    assert "leave " in refused({"hosts": [{"name": "gpu1", "url": URL + path}]})


def test_two_of_one_place() -> None:
    """Would count its slots twice."""
    hosts = [HOST, {"name": "gpu2", "url": URL.upper().replace("HTTP", "http") + "/"}]
    assert "hosts 'gpu1' and 'gpu2' have the same url" in refused({"hosts": hosts})


def test_words_for_a_wrong_word() -> None:
    """Name the right ones, and the file."""
    assert refused({"hosts": [HOST], "log": {"format": "jsn"}}).endswith("it is one of auto, json, pretty")


def test_the_file_is_named(tmp_path: Path) -> None:
    """Where a file had a part in it: ./corral.toml is read without being asked for."""
    written(tmp_path / "corral.toml", "[queue]\nlimits = 3\n")
    with pytest.raises(ConfigError, match=r"unknown key 'queue.limits': did you mean 'limit'\? \(corral.toml, "):
        load()


def test_the_example_is_a_configuration() -> None:
    """What is copied works."""
    config = load(Path(__file__).parent.parent / "corral.example.toml")
    assert [host.name for host in config.hosts] == ["gpu1", "gpu2"]
    assert config.listen == Config().listen


# -- tracing --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "url"),
    [
        ({}, ""),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://tempo:4318"}, "http://tempo:4318/v1/traces"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://tempo:4318/"}, "http://tempo:4318/v1/traces"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "https://otlp.example.com/otlp"}, "https://otlp.example.com/otlp/v1/traces"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://tempo:4318/mine"}, "http://tempo:4318/mine"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://b/t"}, "http://b/t"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a", "CORRAL_TRACING_ENDPOINT": "http://b"}, "http://b/v1/traces"),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"},
            "http://a/v1/traces",
        ),
    ],
)
def test_a_collector(environment: dict[str, str], url: str) -> None:
    """OpenTelemetry's own variables name it where Corral's do not."""
    tracing = load(environ=HOSTS | environment).tracing
    assert (tracing.on, tracing.url if tracing.on else "") == (bool(url), url)


@pytest.mark.parametrize(
    "off", [{"OTEL_SDK_DISABLED": "true"}, {"OTEL_TRACES_EXPORTER": "none"}, {"CORRAL_TRACING_MODE": "off"}]
)
def test_no_tracing_after_all(off: dict[str, str]) -> None:
    """Each of the usual switches is enough; a protocol that is not spoken is then no error."""
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://tempo:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    assert load(environ=HOSTS | environment | off).tracing.on is False


def test_a_protocol_that_is_not_spoken() -> None:
    """Is told at the start, with what to do."""
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://tempo:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    with pytest.raises(ConfigError) as caught:
        load(environ=HOSTS | environment)
    assert "Corral speaks http/protobuf" in caught.value.message


@pytest.mark.parametrize(
    ("tracing", "words"),
    [
        ({"endpoint": "tempo:4318"}, "is not like http://tempo:4318"),
        ({"endpoint": "http://user:secret@tempo"}, "must hold no user"),
        ({"redact": ["("]}, "is not a regular expression"),
        ({"ratio": 1.5}, "tracing.ratio must be at most 1"),
        ({"mode": "some"}, "off, errors, sampled, all"),
    ],
)
def test_tracing_that_cannot_be(tracing: dict[str, Any], words: str) -> None:
    """Says what is wrong; a password is not repeated."""
    message = refused({"hosts": [HOST], "tracing": tracing})
    assert words in message
    assert "secret" not in message


@pytest.mark.parametrize(
    ("text", "url"),
    [
        (None, "http://127.0.0.1:11434"),
        ("", "http://127.0.0.1:11434"),
        ("gpu", "http://gpu:11434"),
        ("gpu:8080", "http://gpu:8080"),
        (":8080", "http://127.0.0.1:8080"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("0.0.0.0:8080", "http://127.0.0.1:8080"),
        ("[::]:8080", "http://[::1]:8080"),
        ("[fe80::1]", "http://[fe80::1]:11434"),
        ("http://gpu", "http://gpu"),
        ("https://ai.example.com/corral/", "https://ai.example.com/corral"),
    ],
)
def test_where_the_gateway_is(text: str | None, url: str) -> None:
    """As Ollama's clients read OLLAMA_HOST; what is given on the command line counts first."""
    assert gateway_url(None, {"OLLAMA_HOST": text} if text is not None else {}) == url
    if text:
        assert gateway_url(text, {"OLLAMA_HOST": "other"}) == url


@pytest.mark.parametrize(
    "text", ["ftp://gpu", "gpu:port", "gpu:70000", "http://user:secret@gpu", "[::1", "gpu?x=1", "gpu#x"]
)
def test_where_no_gateway_can_be(text: str) -> None:
    """Is said in words."""
    with pytest.raises(ConfigError, match="is no address of a gateway"):
        gateway_url(text, {})
