"""What Prometheus' own promtool says of the rules, and of what a gateway tells."""

import subprocess
from pathlib import Path

import pytest
import yaml

from grafana.build import OUT
from tests.builders import TEXT, call, simulated
from tests.components import program
from tests.conftest import Corral

CASES = Path(__file__).parent / "rules.test.yml"


def promtool(*arguments: str, given: bytes = b"") -> tuple[int, str]:
    """Its exit code and all that it says."""
    command = [program("promtool", "prometheus"), *arguments]
    done = subprocess.run(command, input=given, capture_output=True, check=False, timeout=30)
    return done.returncode, (done.stdout + done.stderr).decode()


def test_rules_are_good() -> None:
    """No mistake, and no lint."""
    code, said = promtool("check", "rules", "--lint=all", str(OUT / "rules.yml"))
    assert code == 0, said
    assert "SUCCESS" in said


def test_rules_fire_as_they_should() -> None:
    """All that rules.test.yml tells."""
    code, said = promtool("test", "rules", str(CASES))
    assert code == 0, said


@pytest.mark.parametrize(
    ("rule", "changed", "case"),
    [
        ("> 20", "> 2", "one failure among nine"),
        ("for: 2m\n    keep_firing_for: 5m", "for: 1m", "a host is down after two minutes"),
        ("sum by (job) (corral_host_up", "min by (job) (corral_host_up", "a host is down after two minutes"),
        (
            'unless on (job, host) max by (job, host) (corral_host_draining{job="corral"}) == 1\n    for: 10m',
            "for: 10m",
            "a pinned model",
        ),
        ('{job="corral",kind="pin"}', '{job="corral"}', "a pinned model"),
        ('outcome=~"upstream_error', 'outcome=~"client_error|upstream_error', "callers' mistakes"),
    ],
    ids=["nine requests", "two minutes", "one host is up", "it drains", "only warm", "callers' mistakes"],
)
def test_the_cases_have_teeth(tmp_path: Path, rule: str, changed: str, case: str) -> None:
    """With a rule that is changed, the case about it does not pass; as it is, it does."""
    rules = (OUT / "rules.yml").read_text(encoding="utf-8")
    assert rule in rules
    cases = yaml.safe_load(CASES.read_text(encoding="utf-8"))
    (about,) = (each for each in cases["tests"] if each["name"].startswith(case))
    alone = tmp_path / "rules.test.yml"
    alone.write_text(yaml.safe_dump(cases | {"rule_files": ["rules.yml"], "tests": [about]}), encoding="utf-8")
    ended = []
    for text in (rules, rules.replace(rule, changed)):
        (tmp_path / "rules.yml").write_text(text, encoding="utf-8")
        ended.append(promtool("test", "rules", str(alone))[0])
    assert ended == [0, 1]


async def test_what_a_gateway_tells_is_good(corral: Corral) -> None:
    """Names, types, units and help, after some requests, with everything switched on."""
    stage = await corral(simulated("a"), simulated("b"), metrics={"genai_semconv": True})
    for stream in (True, False):
        await stage.ask(call("/api/chat", TEXT, stream=stream))
    told = stage.gateway.metrics.render()
    code, said = promtool("check", "metrics", given=told)
    assert (code, said) == (0, "")
