"""docker-compose.yml: that it is one, that it is closed to others, and that what it starts starts. There is no Docker engine here: its commands
and checks run as processes, with the environment and the arguments that it gives them."""

import asyncio
import json
import re
import shutil
import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import jsonschema
import pytest
import yaml

from gateway.access.keys import digest, make
from gateway.loader import API_KEY, environment_names
from gateway.tasks import pause
from gateway.telemetry.catalogue import Catalogue
from tests.builders import call
from tests.collector import Collector
from tests.components import missing
from tests.contract.raw import Connection, ask
from tests.deploy.files import ROOT, Image, composition, environment, text, variables
from tests.processes import Process, corral, program
from tests.sockets import LOOK_SECONDS
from tests.store.postgres import Postgres, programs

SET = {"CORRAL_HOSTS": "gpu1=http://gpu1:11434", "POSTGRES_PASSWORD": "p4ss", "GRAFANA_PASSWORD": "w0rd"}
COMPOSED = composition(SET)
SERVICES: dict[str, Any] = COMPOSED["services"]
IMAGES = {
    name: Image(text("Dockerfile"), service["build"]["target"])
    for name, service in SERVICES.items()
    if "build" in service
}
IMAGE = IMAGES["gateway"]
DEBIAN = {"promtool": "prometheus"}
"""Program → Debian's package, where that is called otherwise."""


def named(names: object) -> list[str]:
    """Services, for parametrize."""
    return sorted(names)  # type: ignore[call-overload,no-any-return]


# -- as it is written -----------------------------------------------------------------------------------------------------------------


def test_it_is_a_composition() -> None:
    """By the specification's own schema (as docker-compose 1.29.2 has it, Apache-2.0)."""
    schema = json.loads((Path(__file__).parent / "compose_spec.json").read_text(encoding="utf-8"))
    specification = jsonschema.Draft201909Validator(schema)
    specification.validate(COMPOSED)
    assert not specification.is_valid({"services": {"gateway": {"image": "x", "restrat": "always"}}})


def test_its_variables() -> None:
    """Are those of .env.example, and those without which nothing should start are asked for."""
    example = environment(text(".env.example"))
    assert variables(text("docker-compose.yml")) == example.keys() - {"COMPOSE_PROFILES"}
    for name in SET:
        with pytest.raises(ValueError, match=name):
            composition(SET | {name: ""})
    with pytest.raises(ValueError, match="PASSWORD"):
        composition(example)


def test_passwords_are_made(tmp_path: Path) -> None:
    """`make .env`: each its own, for nobody else to read; an .env that is there is left alone."""
    for name in ("Makefile", ".env.example"):
        shutil.copy(ROOT / name, tmp_path)
    make = ["make", "--no-print-directory", ".env"]
    subprocess.run(make, cwd=tmp_path, check=True, capture_output=True)
    made = environment((tmp_path / ".env").read_text(encoding="utf-8"))
    passwords = [made["POSTGRES_PASSWORD"], made["GRAFANA_PASSWORD"]]
    assert all(re.fullmatch(r"[0-9a-f]{48}", password) for password in passwords)
    assert passwords[0] != passwords[1]
    assert {name: made[name] for name in made if "PASSWORD" not in name}.items() <= environment(
        text(".env.example")
    ).items()
    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600
    subprocess.run(make, cwd=tmp_path, check=True, capture_output=True)
    assert environment((tmp_path / ".env").read_text(encoding="utf-8")) == made


@pytest.mark.parametrize("name", named(SERVICES))
def test_a_service(name: str) -> None:
    """Its image has a version, nobody elsewhere reaches its ports, and what it mounts is there."""
    service = SERVICES[name]
    assert re.search(r":(?!latest)[\w.-]+$", service["image"])
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
    assert "network_mode" not in service
    assert not service.get("privileged")
    for mount in service.get("volumes", ()):
        source = mount.split(":")[0]
        assert (ROOT / source).exists() if source.startswith(".") else source in COMPOSED["volumes"]
    assert set(service.get("depends_on", ())) <= SERVICES.keys()


def test_each_image_is_built_of_one_stage() -> None:
    """One name, one content."""
    built = {(service["image"], service["build"]["target"]) for service in SERVICES.values() if "build" in service}
    assert built == {("corral:local", "gateway"), ("corral-dashboard:local", "dashboard")}


def test_our_variables() -> None:
    """Are ones that are read, each by the program that gets it."""
    for name, image in IMAGES.items():
        given = image.environ | SERVICES[name].get("environment", {})
        ours = {each for each in given if each.startswith("CORRAL")}
        assert ours <= {"CORRAL_HOSTS", API_KEY, *environment_names()}, name
    commented = set(re.findall(r"# (CORRAL_\w+): ", text("docker-compose.yml")))
    assert commented == {"CORRAL_CONFIG"}


@pytest.mark.parametrize("name", SERVICES)
def test_who_is_asked_is_there(name: str) -> None:
    """Every URL of a service's arguments and environment names a service, and a port on which that listens."""
    listening = {
        "gateway": {11434},
        "prometheus": {9090},
        "tempo": tempo_ports(),
        "postgres": {5432},
        "simulator": {11501, 11502, 11503},
    }
    service = SERVICES[name]
    said = " ".join([*service.get("command", ()), *service.get("environment", {}).values()])
    for host, port in re.findall(r"(?:https?|postgresql)://(?:[^\s/@]*@)?([\w.]+):?(\d*)", said):
        if host != "gpu1":
            assert int(port or 5432) in listening[host], f"{host}:{port}"


def tempo_ports() -> set[int]:
    """Where Tempo listens: its API, and OTLP."""
    config = yaml.safe_load(text("deploy/tempo.yml"))
    protocols = config["distributor"]["receivers"]["otlp"]["protocols"]
    return {
        config["server"]["http_listen_port"],
        *(int(each["endpoint"].rpartition(":")[2]) for each in protocols.values()),
    }


def test_every_volume_is_used() -> None:
    """None is left over."""
    used = {mount.split(":")[0] for service in SERVICES.values() for mount in service.get("volumes", ())}
    assert COMPOSED["volumes"].keys() <= used


@pytest.mark.parametrize("name", IMAGES)
def test_our_containers_can_do_little(name: str) -> None:
    """No root, no capability, no new privilege, and a file system that they cannot write to."""
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    user = IMAGES[name].one("USER").split(":")[0]
    assert user.isdigit()
    assert user != "0"


def test_there_is_time_to_stop() -> None:
    """Streams may finish and what waits is written before Docker kills."""
    assert SERVICES["gateway"]["stop_grace_period"] == "45s"
    assert IMAGE.one("STOPSIGNAL") == "SIGTERM"


def test_grafana() -> None:
    """Lets in nobody without the password, and finds its sources and dashboards."""
    given = SERVICES["grafana"]["environment"]
    assert given["GF_SECURITY_ADMIN_PASSWORD"] == "w0rd"
    assert given["GF_AUTH_ANONYMOUS_ENABLED"] == "false"
    mounted = [mount.split(":")[1] for mount in SERVICES["grafana"]["volumes"]]
    (provider,) = yaml.safe_load(text("grafana/provisioning/dashboards/corral.yml"))["providers"]
    assert provider["options"]["path"] in mounted
    sources = yaml.safe_load(text("grafana/provisioning/datasources/corral.yml"))["datasources"]
    tempo = yaml.safe_load(text("deploy/tempo.yml"))["server"]["http_listen_port"]
    assert {source["uid"]: source["url"] for source in sources} == {
        "prometheus": "http://prometheus:9090",
        "tempo": f"http://tempo:{tempo}",
    }
    scrape = yaml.safe_load(text("deploy/prometheus.yml"))["global"]["scrape_interval"]
    assert sources[0]["jsonData"]["timeInterval"] == scrape


def test_what_grafana_refers_to() -> None:
    """Every source that a dashboard, a link or another source names is one that is provisioned, and has what is asked of it."""
    written = yaml.safe_load(text("grafana/provisioning/datasources/corral.yml"))["datasources"]
    sources = {source["uid"]: source for source in written}
    boards = [json.loads(path.read_text(encoding="utf-8")) for path in (ROOT / "grafana" / "out").glob("*.json")]
    assert len(boards) == 5
    links = unquote(" ".join(found for found in strings(boards) if found.startswith("/explore")))
    assert set(re.findall(r'"datasource":"(\w+)"', links)) == {"tempo"}
    assert "--enable-feature=exemplar-storage" in SERVICES["prometheus"]["command"]
    (exemplars,) = sources["prometheus"]["jsonData"]["exemplarTraceIdDestinations"]
    assert sources[exemplars["datasourceUid"]]["type"] == "tempo"
    metrics = sources["tempo"]["jsonData"]["tracesToMetrics"]
    assert sources[metrics["datasourceUid"]]["type"] == "prometheus"
    (asked,) = metrics["queries"]
    (name,) = re.findall(r"corral_\w+", asked["query"])
    family = next(family for family in Catalogue().families() if f"{family.name}_bucket" == name)
    assert {tag["value"] for tag in metrics["tags"]} <= set(family.labelnames)
    told = text("gateway/telemetry/spans.py")
    assert [tag["key"] for tag in metrics["tags"] if f'"{tag["key"]}"' not in told] == []


def strings(value: Any) -> Iterator[str]:
    """Every text in a value of JSON."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from strings(each)


# -- as it runs -----------------------------------------------------------------------------------------------------------------------


def installed(name: str) -> str:
    """A program by its path, or the test ends."""
    return shutil.which(name) or missing(f"{name} (apt-get install {DEBIAN.get(name, name)})")


async def succeeds(cwd: Path, command: list[str], **environ: str) -> bool:
    """Whether a check says that all is well: exit code 0."""
    async with program(cwd, installed(command[0]), *command[1:], **environ) as check:
        return (await check.ended())[0] == 0


def moved(command: list[str], before: str, now: str) -> list[str]:
    """A command with another address in it."""
    assert any(before in argument for argument in command)
    return [argument.replace(before, now) for argument in command]


async def test_the_app(tmp_path: Path) -> None:
    """Starts with the composition's command where it can write nothing, is well by its own check, and ends on SIGTERM."""
    image = IMAGES["dashboard"]
    nowhere = tmp_path / "nowhere"
    nowhere.mkdir(mode=0o500)
    command = SERVICES["dashboard"]["command"]
    assert command[:1] == image.command[1:2]
    command = moved(command, "0.0.0.0:8501", "0.0.0.0:0")
    async with corral(tmp_path, *command, HOME=str(nowhere)) as app:
        port = (await app.line(r" URL: http://localhost:(\d+)"))[1]
        check = moved(image.healthcheck, "127.0.0.1:8501", f"127.0.0.1:{port}")
        assert await succeeds(tmp_path, check)
        app.signal()
        code, errors = await app.ended()
        assert code in (0, -signal.SIGTERM)
        assert errors == "", "it asked nobody for its address, and failed at that"
    assert list(nowhere.iterdir()) == []


async def test_the_gateway_and_its_database(postgres: Postgres, tmp_path: Path) -> None:
    """With the image's and the composition's environment it serves the simulated hosts of the profile demo, keeps what there is to keep in PostgreSQL,
    sends its trace, is well by its own check, and ends on SIGTERM."""
    postgres.sql("CREATE DATABASE corral")
    simulate = [*SERVICES["simulator"]["command"], "--tokens-per-second", "5000", "--load-seconds-per-gb", "0"]
    simulate[simulate.index("11501")] = "0"
    given = composition(environment(text(".env.example")) | {"POSTGRES_PASSWORD": "p4ss", "GRAFANA_PASSWORD": "w"})
    environ = IMAGE.environ | given["services"]["gateway"]["environment"]
    assert IMAGE.command == ["corral", "serve"]
    async with corral(tmp_path, *simulate) as simulator:
        hosts = environ["CORRAL_HOSTS"]
        for name in ("sim1", "sim2", "sim3"):
            host, port = (await simulator.line(rf"^{name} http://(\S+):(\d+)")).groups()
            assert host == "0.0.0.0"
            place = re.search(rf"{name}=http://(simulator:\d+)", hosts)
            assert place
            assert await as_called(f"http://127.0.0.1:{port}", place[1]) == 200
            hosts = hosts.replace(place[1], f"127.0.0.1:{port}")
            if name == "sim1":
                check = SERVICES["simulator"]["healthcheck"]["test"][1:]
                assert await succeeds(tmp_path, moved(check, "127.0.0.1:11501", f"127.0.0.1:{port}"))
        url = environ["CORRAL_DATABASE_URL"].replace("@postgres/", f"@127.0.0.1:{postgres.port}/")
        kept = {name: value for name, value in environ.items() if name != "PATH"}
        async with Collector() as tempo:
            changed = {"CORRAL_LISTEN": "0.0.0.0:0", "CORRAL_HOSTS": hosts, "CORRAL_DATABASE_URL": url}
            changed["OTEL_EXPORTER_OTLP_ENDPOINT"] = tempo.url
            assert changed.keys() <= environ.keys()
            async with corral(tmp_path, *IMAGE.command[1:], **kept | changed) as gateway:
                await serves(gateway, tmp_path)
            assert [span.name for span in tempo.spans] == ["POST /api/chat", "chat smollm2:135m"]
            assert {path for path, _, _ in tempo.requests} == {"/v1/traces"}
    assert "timed out" not in "".join(gateway.lines)
    assert postgres.sql("SELECT count(*) FROM requests", "corral") == "1"


async def as_called(url: str, name: str) -> int:
    """The status of a host that is called by a name of the composition."""
    async with Connection.to(url) as client:
        await client.send("GET", "/api/version", headers={"Host": name})
        return (await client.answer()).status


async def serves(gateway: Process, cwd: Path) -> None:
    """One answer, one check, and the end."""
    port = (await gateway.listens()).rpartition(":")[2]
    sent = call("/api/chat", "smollm2:135m", tokens=3)
    answer = await ask(f"http://127.0.0.1:{port}", "POST", sent.path, sent.body)
    assert answer.status == 200
    ready = json.loads((await ask(f"http://127.0.0.1:{port}", "GET", "/readyz")).body)
    assert (ready["ready"], ready["storage"]) == (True, "up")
    check = moved(IMAGE.healthcheck, "127.0.0.1:11434", f"127.0.0.1:{port}")
    assert await succeeds(cwd, check)
    gateway.signal()
    assert (await gateway.ended())[0] == 0
    assert not await succeeds(cwd, check)


async def test_the_databases_check(postgres: Postgres, tmp_path: Path) -> None:
    """Of PostgreSQL's own programs."""
    command = SERVICES["postgres"]["healthcheck"]["test"][1:]
    command = [str(programs() / command[0]), *command[1:]]
    assert await succeeds(tmp_path, command, PGPORT=str(postgres.port))
    assert not await succeeds(tmp_path, command, PGPORT="1")


RULES = """
groups:
  - name: corral
    rules: [{record: "corral:up", expr: "up{job='corral'}"}]
"""


@pytest.mark.parametrize("key", ["", make(bytes)], ids=["without keys", "with keys"])
async def test_prometheus(tmp_path: Path, key: str) -> None:
    """Takes its configuration and its arguments, evaluates the rules that lie there, scrapes the gateway with the key of .env, if there is one,
    and is well by its check."""
    service = composition(SET | {"PROMETHEUS_KEY": key})["services"]["prometheus"]
    (tmp_path / "corral.toml").write_text(f'[[keys]]\nname = "prometheus"\nhash = "{digest(key)}"\n' if key else "")
    promtool = installed("promtool")
    arguments = [
        argument.replace("=/etc/prometheus/", f"={tmp_path}/").replace("=/prometheus", f"={tmp_path}/data")
        for argument in service["command"]
    ]
    begin = [each.replace("$$", "$").replace("/tmp/", f"{tmp_path}/") for each in service["entrypoint"]]
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "rules-corral.yml").write_text(RULES, encoding="utf-8")
    config = tmp_path / "prometheus.yml"
    async with corral(tmp_path, "serve", "--listen", "127.0.0.1:0", "--host", "gpu1=http://127.0.0.1:1") as gateway:
        address = (await gateway.listens()).removeprefix("http://")
        written = text("deploy/prometheus.yml").replace("/etc/prometheus/", f"{tmp_path}/")
        written = written.replace("/tmp/corral.key", f"{tmp_path}/corral.key")
        written = written.replace("gateway:11434", address).replace("_interval: 15s", "_interval: 1s")
        config.write_text(written, encoding="utf-8")
        installed("prometheus")
        run = [*begin, *arguments, "--web.listen-address=127.0.0.1:0"]
        async with program(tmp_path, *run, **service["environment"]) as server:
            url = await listens(server)
            assert await found(url, "corral:up") == ["1"]
            assert await succeeds(tmp_path, [promtool, "check", "config", str(config)])
            assert await found(url, "corral_host_up") == ["0"]
            assert await found(url, "up{job!='corral'}", empty=True) == [], (
                "nothing seems to be down that is not wanted"
            )
            check = service["healthcheck"]["test"][1:]
            assert await succeeds(tmp_path, moved(check, "http://127.0.0.1:9090", url))
            server.signal()
            await server.gone()


def test_an_alertmanager(tmp_path: Path) -> None:
    """Without the comment signs before it, its place in Prometheus' configuration is good."""
    written = text("deploy/prometheus.yml")
    there = re.sub(r"^# (alerting:| )", r"\1", written, flags=re.MULTILINE)
    assert yaml.safe_load(there)["alerting"]["alertmanagers"] == [
        {"static_configs": [{"targets": ["alertmanager:9093"]}]}
    ]
    (tmp_path / "prometheus.yml").write_text(there, encoding="utf-8")
    checked = [installed("promtool"), "check", "config", "--syntax-only", str(tmp_path / "prometheus.yml")]
    subprocess.run(checked, check=True, capture_output=True)


async def listens(server: Process) -> str:
    """Where a Prometheus listens, which it says on standard error."""
    assert server._process.stderr is not None
    async with asyncio.timeout(15):
        while line := (await server._process.stderr.readline()).decode():
            if told := re.search(r'msg="Listening on" address=(127\.0\.0\.1:\d+)', line):
                return f"http://{told[1]}"
    raise AssertionError("it did not listen")


async def found(url: str, query: str, *, empty: bool = False) -> list[str]:
    """The values of a query, once there are any."""
    async with asyncio.timeout(20):
        while True:
            answer = await ask(url, "GET", f"/api/v1/query?query={quote(query)}")
            if answer.status == 503:  # it is starting
                await pause(LOOK_SECONDS)
                continue
            rows = json.loads(answer.body)["data"]["result"]
            if rows or empty:
                return [row["value"][1] for row in rows]
            await pause(LOOK_SECONDS)
