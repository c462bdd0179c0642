"""Facts about the tree that must hold: small files and functions, nothing silent, nothing hidden, everything tested."""

import ast
import functools
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.cli import parser

ROOT = Path(__file__).parent.parent
GATEWAY = sorted((ROOT / "gateway").rglob("*.py"))
MODULES = [path for path in GATEWAY if path.name != "__init__.py"]
LONGEST_FILE, LONGEST_FUNCTION = 400, 60
LAZY = (
    "gateway/cli.py",
)  # `corral status` in a script shall not load a database's code; import-linter sees these imports all the same

TESTED_ELSEWHERE = {
    "gateway/__main__.py": "tests/test_cli.py",
    "gateway/serve.py": "tests/test_cli.py",  # signals end processes
    "gateway/check.py": "tests/test_cli.py",
    "gateway/demo.py": "tests/test_cli.py",
    "gateway/top/asking.py": "tests/top/test_program.py",
    "gateway/top/look.py": "tests/test_status.py",  # values without behaviour
    "gateway/top/screen.py": "tests/top/test_program.py",
    "gateway/fleet/snapshot.py": "tests/fleet/test_host_state.py",
    "gateway/store/rows.py": "tests/store/test_turns.py",
    "gateway/store/none.py": "tests/store/test_sessions.py",
    "gateway/store/session_store.py": "tests/store/test_sessions.py",
    "gateway/store/schema.py": "tests/store/test_migrate.py",
    "gateway/store/connect.py": "tests/store/test_engine.py",
    "gateway/store/migrations/env.py": "tests/store/test_migrate.py",
    "gateway/store/migrations/versions/r0001_first.py": "tests/store/test_migrate.py",
    "gateway/store/migrations/versions/r0002_deleted.py": "tests/store/test_migrate.py",
    "gateway/store/migrations/versions/r0003_measured.py": "tests/store/test_migrate.py",
    "gateway/store/migrations/versions/r0004_keys.py": "tests/store/test_migrate.py",
    "gateway/store/migrations/versions/r0005_limits.py": "tests/store/test_migrate.py",
    "gateway/store/migrations/versions/r0006_priority.py": "tests/store/test_migrate.py",
    "gateway/store/migrations/versions/r0007_revoked.py": "tests/store/test_migrate.py",
    "gateway/live.py": "tests/flows/test_hosts.py",
    "gateway/keeping.py": "tests/flows/test_storage.py",
    "gateway/talking.py": "tests/turns/test_titles.py",
    "gateway/sharing.py": "tests/flows/test_replicas.py",
    "gateway/lookout.py": "tests/flows/test_hosts.py",
    "gateway/checked.py": "tests/test_config.py",
    "gateway/loader.py": "tests/test_config.py",
    "gateway/doc.py": "tests/api/test_openapi.py",
    "gateway/dialects/forms.py": "tests/hostile/test_rights.py",
    "gateway/dialects/ending.py": "tests/dialects/test_usage.py",  # values without behaviour
    "gateway/dialects/request.py": "tests/dialects/test_read.py",  # idem
    "gateway/fleet/host.py": "tests/fleet/test_registry.py",  # idem
    "gateway/fleet/room.py": "tests/routing/test_eviction.py",
    "gateway/warming.py": "tests/flows/test_warming.py",
    "gateway/remembered.py": "tests/fleet/test_memory.py",  # idem
    "gateway/telemetry/incidents.py": "tests/flows/test_incidents.py",
    "gateway/routing/averages.py": "tests/routing/test_scorers.py",
    "gateway/routing/waiting.py": "tests/routing/test_admission.py",
    "gateway/routing/ranks.py": "tests/routing/test_policy.py",
    "gateway/telemetry/catalogue.py": "tests/telemetry/test_metrics.py",
    "gateway/telemetry/gauges.py": "tests/telemetry/test_metrics.py",
    "gateway/telemetry/series.py": "tests/telemetry/test_metrics.py",
    "gateway/relay/connections.py": "tests/relay/test_upstream.py",
    "gateway/relay/failures.py": "tests/flows/test_failover.py",
    "gateway/relay/relay.py": "tests/flows/test_relay.py",
    "gateway/relay/overheard.py": "tests/flows/test_tracing.py",
    "gateway/loop.py": "tests/test_cli.py",
    "gateway/telemetry/lines.py": "tests/telemetry/test_logs.py",
    "gateway/telemetry/otlp.py": "tests/flows/test_tracing.py",
    "gateway/telemetry/spans.py": "tests/flows/test_tracing.py",
    "gateway/telemetry/tracing.py": "tests/flows/test_tracing.py",
    "gateway/observing.py": "tests/flows/test_tracing.py",
    "gateway/relay/tee.py": "tests/turns/test_recording.py",
    "gateway/relay/detached.py": "tests/flows/test_detached.py",
    "gateway/relay/exchange.py": "tests/flows/test_relay.py",
    "gateway/relay/chunks.py": "tests/relay/test_kept.py",
    "gateway/relay/feed.py": "tests/conversation/test_conversations.py",
    "gateway/relay/shelf.py": "tests/flows/test_detached.py",
    "gateway/turns/reading.py": "tests/turns/test_chats.py",
    "gateway/conversation/events.py": "tests/conversation/test_conversations.py",
    "gateway/conversation/rounds.py": "tests/conversation/test_conversations.py",
    **{
        f"gateway/api/{path.name}": "tests/flows/test_relay.py"
        for path in MODULES
        if path.parent.name == "api"  # answers are asked for over real sockets
        and not (ROOT / "tests" / "api" / f"test_{path.name}").exists()
    },
    "gateway/api/detaching.py": "tests/flows/test_detached.py",
    "gateway/api/door.py": "tests/hostile/test_slow.py",
    "gateway/api/framing.py": "tests/hostile/test_framing.py",
    "gateway/api/conversations.py": "tests/conversation/test_conversations.py",
    "gateway/api/following.py": "tests/flows/test_detached.py",
    "gateway/api/jobs.py": "tests/flows/test_managing.py",
    "gateway/api/messages.py": "tests/store/test_api.py",
    "gateway/api/sessions.py": "tests/store/test_api.py",
    "gateway/api/turns.py": "tests/turns/test_chats.py",
    "gateway/api/visits.py": "tests/flows/test_tracing.py",
    "gateway/api/audit.py": "tests/test_admitting.py",
    "gateway/api/keys.py": "tests/test_admitting.py",
    "gateway/api/requests.py": "tests/flows/test_history.py",
    "gateway/api/stats.py": "tests/flows/test_history.py",
    "gateway/api/breakdown.py": "tests/flows/test_history.py",
    "gateway/api/models.py": "tests/flows/test_managing.py",
}
"""Modules without a test file of their own, and the one that tests them."""

HOME_OF_SOMEBODY = re.compile(r"(?<![\w.])/(?:root|work|home/[a-z][\w-]*|Users/[A-Za-z][\w-]*)/[\w.]")


def named(paths: list[Path]) -> list[object]:
    """Each path with a readable id."""
    return [pytest.param(path, id=str(path.relative_to(ROOT))) for path in paths]


@functools.cache
def tree_of(path: Path) -> ast.Module:
    """The syntax of a file."""
    return ast.parse(path.read_text(encoding="utf-8"))


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function of a file, inner ones and methods included."""
    return (node for node in ast.walk(tree_of(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def tracked() -> list[Path]:
    """Every file that belongs to the project, whether committed or about to be."""
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, capture_output=True, check=True, text=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):  # no git here, as in a source archive
        listed = [
            str(path.relative_to(ROOT))
            for folder in ("gateway", "simulator", "tests")
            for path in (ROOT / folder).rglob("*.py")
        ]
    return [ROOT / name for name in listed if (ROOT / name).is_file()]


def test_nothing_compiled_lies_beside_the_sources() -> None:
    """It would win over them, however old it is (docs/decisions/0007)."""
    assert list((ROOT / "gateway").rglob("*.so")) == []


@pytest.mark.parametrize("path", named(GATEWAY))
def test_files_are_short(path: Path) -> None:
    """A file is one room: over so many lines it is two."""
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST_FILE


@pytest.mark.parametrize("path", named(MODULES))
def test_functions_are_short(path: Path) -> None:
    """A function can be seen at once; one that only lays out a table or a class's values counts too."""
    lengths = [(function.name, (function.end_lineno or 0) - function.lineno + 1) for function in functions(path)]
    assert [(name, length) for name, length in lengths if length > LONGEST_FUNCTION] == []


@pytest.mark.parametrize("path", named(MODULES))
def test_modules_say_what_they_are(path: Path) -> None:
    """In their first line."""
    assert ast.get_docstring(tree_of(path))


@pytest.mark.parametrize("path", named(MODULES))
def test_nothing_fails_silently(path: Path) -> None:
    """No exception is caught for nothing, and none is caught bare."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"line {node.lineno}: a bare except"
            only = node.body[0] if len(node.body) == 1 else None
            silent = isinstance(only, ast.Pass) or (isinstance(only, ast.Expr) and isinstance(only.value, ast.Constant))
            assert not silent, f"line {node.lineno}: an exception is swallowed"


@pytest.mark.parametrize("path", named(MODULES))
def test_imports_stand_at_the_top(path: Path) -> None:
    """None hides in a function, but for the command line's, whose commands load what they need; and all are absolute."""
    tree = tree_of(path)
    inner = [
        node
        for function in functions(path)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    assert path.relative_to(ROOT).as_posix() in LAZY or [node.lineno for node in inner] == []
    assert [node.lineno for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level] == []


@pytest.mark.parametrize("path", named([path for path in GATEWAY if path.name == "__init__.py"]))
def test_packages_are_only_folders(path: Path) -> None:
    """Nothing happens when one is imported."""
    assert path.read_text(encoding="utf-8") == ""


@pytest.mark.parametrize("path", named(MODULES))
def test_every_module_is_tested(path: Path) -> None:
    """By a file of the same name at the same place, or by one that is named here."""
    name = path.relative_to(ROOT)
    mirror = ROOT / "tests" / Path(*name.parts[1:-1]) / f"test_{name.name}"
    elsewhere = TESTED_ELSEWHERE.get(name.as_posix())
    assert mirror.exists() is (elsewhere is None), "either mirrored, or excused, not both"
    assert elsewhere is None or (ROOT / elsewhere).exists()


def test_nobody_is_excused_who_is_not_there() -> None:
    """The list of excuses is of modules that exist."""
    assert [name for name in TESTED_ELSEWHERE if not (ROOT / name).exists()] == []


def test_every_test_says_what_it_holds() -> None:
    """In a sentence."""
    silent = [
        f"{path.name}: {function.name}"
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        for function in functions(path)
        if function.name.startswith("test_") and not (ast.get_docstring(function) or "").endswith((".", "?"))
    ]
    assert silent == []


def test_no_path_of_anybodys_machine() -> None:
    """What is written works elsewhere too."""
    found = []
    for path in tracked():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(ROOT)}: {match[0]}" for match in HOME_OF_SOMEBODY.finditer(text)]
    assert found == []


def test_no_environment_but_the_configurations() -> None:
    """Only loader.py names variables, and only the command line hands the environment in."""
    readers = [path.name for path in MODULES if re.search(r"\benviron\b|\bgetenv\b", path.read_text(encoding="utf-8"))]
    assert sorted(readers) == ["cli.py", "loader.py"]


def test_every_command_is_documented() -> None:
    """Somewhere in what people read."""
    documents = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    text = "\n".join(path.read_text(encoding="utf-8") for path in documents)
    commands = re.findall(r"^    (\w+) ", parser().format_help(), re.MULTILINE)
    assert {"serve", "check", "demo", "simulate"} <= set(commands)
    assert [name for name in commands if f"corral {name}" not in text] == []
