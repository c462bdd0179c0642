"""What is written is fresh, and every kind of mistake is found: by planting one."""

import copy
import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from grafana import build
from grafana.build import OUT, boards, files, stale
from grafana.checks import UNUSED, expressions, mistakes
from grafana.known import catalogue
from grafana.rules.file import groups, shrunk
from grafana.rules.rule import RUNBOOKS
from tests.test_shape import LONGEST_FILE, ROOT

Json = dict[str, Any]
KNOWN = cache(catalogue)
OURS = 'job=~"$job",instance=~"$instance"'


NO_RULES: Json = {"groups": []}
UNSEEN = "is shown by no panel and no rule"


def planted(change: Callable[[Json], object]) -> list[str]:
    """What is found of a change to the fleet's dashboard, looked at alone."""
    board = boards()["fleet.json"]
    change(board)
    return [line for line in mistakes([board], NO_RULES, KNOWN()) if not line.endswith(UNSEEN)]


def panel(board: Json, title: str) -> Json:
    """A panel by its title."""
    return next(each for each in board["panels"] if each["title"] == title)


def asking(expr: str, legend: str = "__auto") -> Callable[[Json], object]:
    """A panel asks something else."""
    return lambda board: panel(board, "By outcome")["targets"][0].update(expr=expr, legendFormat=legend)


def test_nothing_is_wrong() -> None:
    """What is in grafana/out is what is written now, and no mistake is in it."""
    assert stale(OUT) == []
    assert mistakes(boards().values(), groups(), KNOWN()) == []


def test_stale(tmp_path: Path) -> None:
    """A file that was changed, one that is missing and one that nobody writes are told."""
    for name, text in files().items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert stale(tmp_path) == []
    (tmp_path / "fleet.json").write_text("{}", encoding="utf-8")
    (tmp_path / "hosts.json").unlink()
    (tmp_path / "mine.json").write_text("{}", encoding="utf-8")
    assert stale(tmp_path) == ["fleet.json", "hosts.json", "mine.json"]


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Writes the files, and with --check only says what is amiss."""
    monkeypatch.setattr(build, "OUT", tmp_path / "out")
    monkeypatch.setattr("sys.argv", ["build", "--check"])
    assert build.main() == 1
    assert "stale: grafana/out/fleet.json; run: python -m grafana.build" in capsys.readouterr().err
    assert not build.OUT.exists()
    monkeypatch.setattr("sys.argv", ["build"])
    assert build.main() == 0
    monkeypatch.setattr("sys.argv", ["build", "--check"])
    assert build.main() == 0
    assert {path.name: path.read_text(encoding="utf-8") for path in build.OUT.iterdir()} == files()


PLANTED = {
    "renamed metric": (
        f"sum(rate(corral_request_total{{{OURS}}}[$__rate_interval]))",
        "no metric corral_request_total",
    ),
    "wrong grouping": (
        f"sum by (result) (rate(corral_requests_total{{{OURS}}}[$__rate_interval]))",
        "sum by {result}: there is only {instance, job, model, operation, outcome}",
    ),
    "wrong matcher": (f'corral_host_up{{{OURS},gpu="1"}}', "corral_host_up has no label gpu"),
    "wrong value": (
        f'sum(rate(corral_requests_total{{{OURS},outcome=~"ok|okay"}}[$__rate_interval]))',
        "corral_requests_total has no outcome okay: cancelled, client_error,",
    ),
    "wrong bound": (
        f'sum(rate(corral_time_to_first_token_seconds_bucket{{{OURS},le="2"}}[$__rate_interval]))',
        "corral_time_to_first_token_seconds_bucket has no bound 2: write it as it is told, one of 0.05, 0.1,",
    ),
    "counter without rate": (
        f"sum(corral_requests_total{{{OURS}}})",
        "corral_requests_total is a counter: it says something inside rate or increase only",
    ),
    "rate of a gauge": (f"rate(corral_host_up{{{OURS}}}[$__rate_interval])", "corral_host_up is no counter: rate"),
    "quantile without le": (
        f"histogram_quantile(0.9, sum(rate(corral_queue_wait_seconds_bucket{{{OURS}}}[$__rate_interval])))",
        "histogram_quantile of something without le",
    ),
    "sides that never match": (
        f"sum by (host) (corral_host_leases{{{OURS}}}) / sum(corral_host_concurrency_limit{{{OURS}}})",
        "/ between {host} and {} never matches",
    ),
    "matched on nothing": (
        f"corral_host_leases{{{OURS}}} / on (model) corral_host_up{{{OURS}}}",
        "/ on {model}: there is only {host, instance, job}",
    ),
    "not PromQL": ("sum(", "is not PromQL"),
    "any job": ('corral_host_up{instance=~"$instance"}', "corral_host_up is selected without job=~$job"),
    "any instance": ('corral_host_up{job=~"$job"}', "corral_host_up is selected without instance=~$instance"),
    "own window": (
        f"sum(rate(corral_requests_total{{{OURS}}}[5m]))",
        "a window of 5m, which no exception names, in place of $__rate_interval",
    ),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_wrong_expression(name: str) -> None:
    """It is told what is wrong, and where."""
    expr, said = PLANTED[name]
    assert any(line.startswith("Corral / Fleet overview / By outcome / A: " + said) for line in planted(asking(expr)))


def test_a_legend_of_what_is_not_there() -> None:
    """It would stay empty."""
    expr = f"sum by (code) (rate(corral_http_responses_total{{{OURS}}}[$__rate_interval]))"
    assert planted(asking(expr, "{{status}}")) == [
        "Corral / Fleet overview / By outcome / A: names status, which its result does not have"
    ]


CHANGES: dict[str, tuple[Callable[[Json], object], str]] = {
    "unknown panel key": (
        lambda board: panel(board, "Requests").update(descriptionn="x"),
        "Grafana knows nothing of panels[1].descriptionn",
    ),
    "unknown option": (
        lambda board: panel(board, "Requests")["options"].update(colourMode="value"),
        "Grafana knows nothing of panels[1].options.colourMode",
    ),
    "unknown field setting": (
        lambda board: panel(board, "By outcome")["fieldConfig"]["defaults"]["custom"].update(lineWide=1),
        "Grafana knows nothing of panels[10].fieldConfig.defaults.custom.lineWide",
    ),
    "unknown query key": (
        lambda board: panel(board, "By outcome")["targets"][0].update(legend="x"),
        "Grafana knows nothing of panels[10].targets[0].legend",
    ),
    "no description": (lambda board: panel(board, "Requests").update(description=""), "Requests: has no description"),
    "no unit": (lambda board: panel(board, "Requests")["fieldConfig"]["defaults"].pop("unit"), "Requests: has no unit"),
    "unknown unit": (
        lambda board: panel(board, "Requests")["fieldConfig"]["defaults"].update(unit="tok/s"),
        "Requests: tok/s is no unit of Grafana's",
    ),
    "one id twice": (lambda board: panel(board, "Requests").update(id=3), "two panels have the id 3"),
    "one title twice": (
        lambda board: panel(board, "Requests").update(title="Queued"),
        "two panels have the title Queued",
    ),
    "one refId twice": (
        lambda board: panel(board, "First token")["targets"][1].update(refId="A"),
        "First token: two queries have one refId",
    ),
    "overlap": (
        lambda board: panel(board, "Requests")["gridPos"].update(w=4),
        "Good share lies over Requests",
    ),
    "too wide": (
        lambda board: panel(board, "By status")["gridPos"].update(w=9),
        "By status sticks out on the right",
    ),
    "own data source": (
        lambda board: panel(board, "Requests").update(datasource={"type": "prometheus", "uid": "mine"}),
        "Requests: asks another data source than $datasource",
    ),
    "editable": (lambda board: board.update(editable=True), "can be edited, and what was edited is lost"),
    "a variable less": (
        lambda board: board["templating"]["list"].pop(2),
        "needs a variable instance of type query, labelled Instance",
    ),
    "one choice only": (
        lambda board: board["templating"]["list"][2].update(multi=False),
        "the variable instance needs {'multi': True",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_wrong_dashboard(name: str) -> None:
    """It is told what is wrong."""
    change, said = CHANGES[name]
    assert any(line.startswith("Corral / Fleet overview: " + said) for line in planted(change))


def test_links_to_traces() -> None:
    """They open what Grafana calls a pane, with the question and the time that is shown."""
    (link,) = panel(boards()["hosts.json"], "Failed attempts")["fieldConfig"]["defaults"]["links"]
    address = urlsplit(link["url"])
    asked = json.loads(parse_qs(address.query)["panes"][0])["corral"]
    assert (address.path, asked["datasource"]) == ("/explore", "tempo")
    assert asked["queries"][0]["query"] == '{ span.corral.host = "${__field.labels.host}" && status = error }'
    assert asked["range"] == {"from": "${__from}", "to": "${__to}"}


def test_traces_are_asked_for_what_they_have() -> None:
    """Every attribute that a link names is one that spans get."""
    links = " ".join(re.findall(r"/explore[^\"]+", "".join(files().values())))
    asked = set(re.findall(r"span\.([\w.]+)", unquote(links)))
    told = (ROOT / "gateway" / "telemetry" / "spans.py").read_text(encoding="utf-8")
    assert asked == {"corral.host", "corral.kept", "corral.time_to_first_byte"}
    assert [name for name in asked if f'"{name}"' not in told] == []


def test_tables_have_headings() -> None:
    """For every label and value; what is there for its labels only has no column."""
    (sorted_out,) = (
        each["options"]
        for each in panel(boards()["hosts.json"], "Facts")["transformations"]
        if each["id"] == "organize"
    )
    assert sorted_out["renameByName"] == {
        "host": "Host",
        "ollama_version": "Ollama",
        "Value #A": "Last good poll",
        "Value #B": "Slots",
        "Value #C": "Up",
    }
    assert sorted_out["excludeByName"] == {"Time": True, "Value #D": True}


def test_a_metric_that_nothing_shows() -> None:
    """It is told by name; what may stay unseen is listed, and is there."""

    given = boards()
    panel(given["fleet.json"], "Tokens for nobody")["targets"][0] |= {"expr": "vector(1)", "legendFormat": ""}
    assert mistakes(given.values(), groups(), KNOWN()) == [f"corral_wasted_tokens_total {UNSEEN}"]
    assert all(any(series.family.startswith(name) for series in KNOWN().values()) for name in UNUSED)


@pytest.mark.parametrize(
    ("expr", "said"),
    [
        (
            'sum by (job) (rate(corral_requests_total{outcome="ok"}[5m]))',
            "corral_requests_total is selected without job=corral",
        ),
        ('corral:slo_ttft_errors:ratio_rate7m{job="corral"} > 1', "no metric corral:slo_ttft_errors:ratio_rate7m"),
        ('corral_host_up{job="corral"} == 0', "names model, which its result does not have"),
    ],
)
def test_a_wrong_rule(expr: str, said: str) -> None:
    """It is told what is wrong, and of which rule."""
    rules = copy.deepcopy(groups())
    rule = next(rule for group in rules["groups"] for rule in group["rules"] if rule.get("alert") == "CorralSlowDecode")
    rule["expr"] = expr
    assert f"CorralSlowDecode: {said}" in mistakes([], rules, KNOWN())


def test_runbooks_elsewhere(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each alert's is where it is asked to be, and nothing else is otherwise."""
    monkeypatch.setattr("sys.argv", ["build", "--runbooks", "https://wiki.example.com/corral"])
    assert build.main() == 0
    written = capsys.readouterr().out
    assert written.count("runbook_url: https://wiki.example.com/corral#corral") == written.count("- alert: ") > 20
    assert written.replace("https://wiki.example.com/corral#", f"{RUNBOOKS}#") == (OUT / "rules.yml").read_text()


def test_every_alert_has_its_runbook() -> None:
    """A heading of its own in the page that it names; and no heading is left of one that is gone."""
    alerts = [rule for group in groups()["groups"] for rule in group["rules"] if "alert" in rule]
    text = (ROOT / RUNBOOKS).read_text(encoding="utf-8")
    assert set(re.findall(r"^### (Corral\w+)$", text, re.MULTILINE)) == {rule["alert"] for rule in alerts}
    for rule in alerts:
        notes = rule["annotations"]
        assert notes["runbook_url"] == f"{RUNBOOKS}#{rule['alert'].lower()}"
        assert notes["summary"]
        assert notes["description"]
        assert rule["labels"]["severity"] in ("page", "ticket", "info")


def test_what_is_worked_out_ahead_is_used() -> None:
    """By a panel or an alert."""
    given = list(expressions(boards().values(), groups()))
    for recorded in (each.where for each in given if each.kind == "record"):
        assert any(recorded in each.text for each in given if each.where != recorded)


def test_in_a_hurry() -> None:
    """Windows and waits shrink, thresholds and names do not."""
    rules = {
        "groups": [
            {"name": "g", "rules": [{"alert": "A", "expr": "rate(x_rate1h[1h]) > 60", "for": "2m", "labels": {}}]}
        ]
    }
    (hurried,) = shrunk(rules, 60)["groups"][0]["rules"]
    assert (hurried["expr"], hurried["for"]) == ("rate(x_rate1h[60000ms]) > 60", "2000ms")


def test_files_are_short() -> None:
    """As those of the gateway are."""
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in (ROOT / "grafana").rglob("*.py")}
    assert [path for path, length in lengths.items() if length > LONGEST_FILE] == []
    assert OUT.is_dir()
