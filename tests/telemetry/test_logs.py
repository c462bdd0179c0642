"""Log lines: one for each generation, as its record says; written beside the loop, and never a reason to stop."""

import asyncio
import contextlib
import json
import logging
import os
import re
import threading
from collections.abc import Callable, Iterator
from contextvars import copy_context
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.config import LogConfig
from gateway.fleet.progress import PartState
from gateway.record import CancelSource, Costs, GenerationRecord, Outcome, Trace
from gateway.telemetry import logs
from gateway.telemetry.context import current
from gateway.telemetry.lines import COSTS_LIMIT, Visit
from gateway.telemetry.logs import LogHandler, LogWriter
from tests.builders import TEXT
from tests.sockets import until
from tests.telemetry.builders import RECORD, ROUTE, cancelled, job, record, unserved


@contextlib.contextmanager
def writing(
    path: Path, format_: Any = "json", level: Any = "info", dropped: Callable[[], None] = lambda: None, **more: Any
) -> Iterator[LogWriter]:
    """A writer to a file, closed at the end."""
    writer = LogWriter(LogConfig(format_, level, str(path), **more), dropped)
    try:
        yield writer
    finally:
        writer.close()


def lines(path: Path) -> list[Any]:
    """The lines of a file as JSON."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the lines go."""
    return tmp_path / "corral.log"


# -- generations ----------------------------------------------------------------------------------------------------------------------


def test_a_generation_is_its_record(path: Path) -> None:
    """The line holds all of it, behind a time, a level and what it is."""
    with writing(path) as writer:
        writer.generation(RECORD)
    (line,) = lines(path)
    assert list(line)[:3] == ["ts", "level", "event"]
    assert (line.pop("ts"), line.pop("level"), line.pop("event")) == ("2026-11-22T13:35:17.250Z", "info", "generation")
    assert msgspec.convert(line, GenerationRecord) == RECORD


def test_a_job_is_what_became_of_it(path: Path) -> None:
    """As fields, and in words for people."""
    with writing(path) as writer:
        writer.job(job(gpu1=PartState.SUCCEEDED, gpu2=PartState.FAILED))
    (line,) = lines(path)
    assert len(line.pop("id")) == 24
    assert line == {
        "ts": "2026-11-22T13:35:17.250Z",
        "level": "warning",
        "event": "job",
        "message": "pull m: partial after 2.0 s (gpu1 succeeded, gpu2 failed)",
        "kind": "pull",
        "model": "m",
        "outcome": "partial",
        "reason": "",
        "started_at": 1_795_354_517.25,
        "duration_seconds": 2.0,
        "hosts": [
            {"host": "gpu1", "state": "succeeded", "completed_bytes": 10, "error": ""},
            {"host": "gpu2", "state": "failed", "completed_bytes": 10, "error": "disk full"},
        ],
        "left_out": {"gpu9": "draining"},
    }


def test_a_job_on_a_terminal(path: Path) -> None:
    """Its words, which command nothing; of those that went well nothing where only warnings are wanted."""
    with writing(path, "pretty", "warning") as writer:
        writer.job(job(gpu1=PartState.SUCCEEDED))
        writer.job(job(gpu1=PartState.STOPPED))
        writer.job(job(model="\x1b[2J\n", gpu1=PartState.FAILED))
    text = path.read_text(encoding="utf-8")
    assert text == "13:35:17.250 warning        pull \\x1b[2J\\n: failed after 2.0 s (gpu1 failed)\n"


@pytest.mark.parametrize(
    ("made", "level"),
    [
        pytest.param(RECORD, "info", id="ok"),
        pytest.param(cancelled(), "info", id="cancelled"),
        pytest.param(unserved(Outcome.CLIENT_ERROR, 404), "info", id="client_error"),
        pytest.param(unserved(Outcome.NO_HOST, 503), "warning", id="no_host"),
        pytest.param(unserved(Outcome.REJECTED, 503), "warning", id="rejected"),
        pytest.param(record(outcome=Outcome.UPSTREAM_ERROR), "warning", id="upstream_error"),
        pytest.param(cancelled(CancelSource.DEADLINE), "warning", id="timeout"),
        pytest.param(record(outcome=Outcome.GATEWAY_ERROR), "warning", id="gateway_error"),
    ],
)
def test_levels_of_generations(path: Path, made: GenerationRecord, level: str) -> None:
    """What somebody may have to look at is a warning."""
    with writing(path) as writer:
        writer.generation(made)
    assert lines(path)[0]["level"] == level


def test_only_the_cheapest_hosts_are_written(path: Path) -> None:
    """A decision over a large fleet does not make a large line; the record itself keeps all."""
    costs = tuple(Costs(f"gpu{number}", float(number), 0.0, 0.0, 0.0, 0.0, 0.0) for number in range(9))
    made = record(route=msgspec.structs.replace(ROUTE, costs=costs))
    with writing(path) as writer:
        writer.generation(made)
    assert [cost["host"] for cost in lines(path)[0]["route"]["costs"]] == ["gpu0", "gpu1", "gpu2"][:COSTS_LIMIT]
    assert made.route is not None
    assert len(made.route.costs) == 9


@pytest.mark.parametrize(("level", "written"), [("debug", 1), ("info", 1), ("warning", 0), ("error", 0)])
def test_a_level_above_information(path: Path, level: str, written: int) -> None:
    """Writes no line for a generation."""
    with writing(path, level=level) as writer:
        writer.generation(RECORD)
    assert len(lines(path)) == written


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (
            RECORD,
            f"ok             {TEXT} -> gpu1 [loaded] queue 0.25s first 1.50s total 3.75s 25 tokens 0192f3a4b5c6",
        ),
        (
            unserved(Outcome.NO_HOST, 503, reason="no host can take it"),
            f"no_host        {TEXT} -> - [-] queue 0.25s total 3.75s 0 tokens 0192f3a4b5c6 (no host can take it)",
        ),
    ],
    ids=["served", "not served"],
)
def test_pretty(path: Path, made: GenerationRecord, expected: str) -> None:
    """For people: what it was, where it went, how long it took, and why it failed."""
    with writing(path, "pretty") as writer:
        writer.generation(made)
    assert path.read_text(encoding="utf-8") == f"13:35:17.250 {expected}\n"


FORGED = "a\n12:00:00.000 ok             forged -> gpu1 [loaded]\x1b[31m\x9b\u2028\r"


@pytest.mark.parametrize("field", ["model", "host", "reason", "id"])
def test_pretty_is_one_line_each(path: Path, field: str) -> None:
    """Whatever a caller or a host named, it ends no line and commands no terminal."""
    with writing(path, "pretty") as writer:
        writer.generation(record(**{field: FORGED}))
        writer.line({"ts": "2026-11-22T13:35:17.250Z", "level": "info", "message": FORGED})
    text = path.read_bytes().decode()
    assert (text.count("\n"), text.replace("\n", "").isprintable()) == (2, True)
    assert text.count(r"a\n12:00:00.000 ok             forged") == 2


def test_pretty_keeps_letters(path: Path) -> None:
    """Of every script; an exception keeps its lines."""
    with writing(path, "pretty") as writer:
        writer.generation(record(reason="größer als 模型"))
        writer.line({"ts": "2026-11-22T13:35:17.250Z", "level": "info", "message": "é", "exception": "a\n  b\n"})
    assert "(größer als 模型)\n" in path.read_text(encoding="utf-8")
    assert path.read_text(encoding="utf-8").endswith(" é\na\n  b\n")


@pytest.mark.parametrize("format_", ["json", "pretty"])
def test_half_a_character(path: Path, format_: str) -> None:
    """Costs neither its own line nor those of its neighbours."""
    message = {"ts": "2026-11-22T13:35:17.250Z", "level": "info", "message": "bad \ud800", "exception": "\ud800\n"}
    with writing(path, format_) as writer:
        writer.attach(lambda _seconds, _callback: None)  # so that all are written together
        for number in range(3):
            writer.generation(record(id=f"id{number}", reason="bad \ud800" if number == 1 else ""))
        writer.line(message)
    text = path.read_text(encoding="utf-8")
    assert [text.count(f"id{number}") for number in range(3)] == [1, 1, 1]
    assert text.count(r"bad \ud800") == 2
    assert "was lost" not in text


class Unspeakable:
    """Something that cannot be put into words."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize("format_", ["json", "pretty"])
def test_a_line_without_words(path: Path, format_: str) -> None:
    """Its neighbours are written all the same, and that it was lost is said."""
    with writing(path, format_) as writer:
        writer.attach(lambda _seconds, _callback: None)
        for number in range(3):
            writer.generation(record(id=f"id{number}", reason=Unspeakable() if number == 1 else ""))
    text = path.read_text(encoding="utf-8")
    assert [text.count(f"id{number}") for number in range(3)] == [1, 0, 1]
    assert re.search(r"a line was lost: \w+Error\(", text)  # the compiled build finds another one wrong with it


def test_a_file_gets_json_unless_told_otherwise(path: Path) -> None:
    """Only a terminal is pretty by itself."""
    with writing(path, "auto") as writer:
        writer.generation(RECORD)
    assert lines(path)[0]["id"] == RECORD.id


def test_standard_output(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """Without a path lines go there, and it stays open."""
    for _ in range(2):
        writer = LogWriter(LogConfig("json"), lambda: None)
        writer.generation(RECORD)
        writer.close()
    assert capfdbinary.readouterr().out.count(b'"event":"generation"') == 2


# -- the writer -----------------------------------------------------------------------------------------------------------------------


def test_lines_are_added(path: Path) -> None:
    """What is in the file stays there."""
    path.write_text('{"id":"before"}\n', encoding="utf-8")
    with writing(path) as writer:
        writer.generation(RECORD)
    assert [line["id"] for line in lines(path)] == ["before", RECORD.id]


def test_lines_stay_in_order(path: Path) -> None:
    """However they are gathered."""
    with writing(path) as writer:
        timers: list[Callable[[], None]] = []
        writer.attach(lambda _seconds, callback: timers.append(callback))
        for number in range(100):
            writer.generation(record(id=str(number)))
            if number % 7 == 0 and timers:
                timers.pop()()
        assert len(timers) <= 1
    assert [line["id"] for line in lines(path)] == [str(number) for number in range(100)]


async def test_lines_are_written_by_themselves(path: Path) -> None:
    """Soon after they were made, by the loop's timer."""
    with writing(path) as writer:
        writer.attach(asyncio.get_running_loop().call_later)
        writer.generation(RECORD)
        await until(path.read_bytes)
        assert lines(path)[0]["id"] == RECORD.id


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_a_reader_that_does_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stops nobody: what cannot be held is dropped and counted, and what was held comes when it reads on."""
    monkeypatch.setattr(logs, "LINES_LIMIT", 10)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    dropped: list[int] = []
    got: list[bytes] = []
    with writing(pipe, dropped=lambda: dropped.append(1)) as writer:
        writer.attach(lambda _seconds, _callback: None)
        count = 0
        while len(dropped) < 5:
            writer.generation(record(id=str(count), reason="x" * 10_000))
            writer.flush()
            count += 1
            assert count < 10_000
        os.set_blocking(reader, True)
        thread = threading.Thread(target=lambda: got.extend(iter(lambda: os.read(reader, 2**20), b"")))
        thread.start()
    thread.join(5.0)
    os.close(reader)
    numbers = [int(json.loads(line)["id"]) for line in b"".join(got).splitlines()]
    assert numbers == list(range(count - 5))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full disk here")
def test_a_full_disk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Loses lines, counts them, says so where it can; and once there is room, in the log."""
    path, dropped = tmp_path / "corral.log", threading.Semaphore(0)
    path.symlink_to("/dev/full")
    with writing(path, dropped=dropped.release) as writer:
        for _ in range(3):
            writer.generation(RECORD)
            assert dropped.acquire(timeout=5)
        path.unlink()
        writer.generation(RECORD)
    first, second = lines(path)
    assert (first["id"], second["level"]) == (RECORD.id, "error")
    assert "3 lines lost" in second["message"]
    assert capsys.readouterr().err.count("the log cannot be written: [Errno 28]") == 1


def test_what_commands_a_terminal(path: Path) -> None:
    """Is escaped, and still the same to who reads JSON."""
    reason = "caf\u00e9 \u009b31m \u202e \u2028 \u0416"
    with writing(path) as writer:
        writer.generation(record(reason=reason))
    said = path.read_text(encoding="utf-8")
    assert not set(said) & set("\u009b\u202e\u2028")
    assert "caf\u00e9" in said
    assert json.loads(said)["reason"] == reason


def test_one_line_that_cannot_be_written(path: Path) -> None:
    """Takes no other with it."""
    with writing(path) as writer:
        writer.attach(lambda _seconds, _callback: None)
        for id_, reason in (("1", ""), ("2", "half a character \ud800"), ("3", "")):
            writer.generation(record(id=id_, reason=reason))
    assert [line["id"] for line in lines(path) if line["id"] != "2"] == ["1", "3"]


def test_closing_writes_what_is_left(path: Path) -> None:
    """Also what no timer has taken yet."""
    with writing(path) as writer:
        writer.attach(lambda _seconds, _callback: None)
        writer.generation(RECORD)
        assert path.read_bytes() == b""
    assert len(lines(path)) == 1


# -- the program's own messages -------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def logging_to(writer: LogWriter, call_soon: Callable[..., object] | None = None) -> Iterator[logging.Logger]:
    """A logger whose messages the writer gets."""
    logger = logging.getLogger("tests.telemetry")
    handler = LogHandler(writer, call_soon or (lambda function, *args: function(*args)))
    logger.addHandler(handler)
    logger.propagate = False
    logger.setLevel(logging.DEBUG)
    try:
        yield logger
    finally:
        logger.removeHandler(handler)


def test_messages(path: Path) -> None:
    """Are lines like any other, with their logger."""
    with writing(path) as writer, logging_to(writer) as logger:
        logger.warning("host %s is %s", "gpu1", "gone")
    (line,) = lines(path)
    assert line.pop("ts").endswith("Z")
    assert line == {
        "level": "warning",
        "event": "message",
        "logger": "tests.telemetry",
        "message": "host gpu1 is gone",
    }


def test_exceptions(path: Path) -> None:
    """Come with their traceback, in one line."""
    with writing(path) as writer, logging_to(writer) as logger:
        try:
            raise ZeroDivisionError("by nobody")  # noqa: TRY301 - it is what is logged
        except ZeroDivisionError:
            logger.exception("failed")
    (line,) = lines(path)
    assert line["message"] == "failed"
    assert line["exception"].endswith("ZeroDivisionError: by nobody\n")


def test_pretty_messages(path: Path) -> None:
    """Are short, and their traceback follows."""
    with writing(path, "pretty") as writer, logging_to(writer) as logger:
        logger.error("failed", exc_info=ZeroDivisionError("by nobody"))
    first, *rest = path.read_text(encoding="utf-8").splitlines()
    assert first[12:] == " error          failed"
    assert "ZeroDivisionError: by nobody" in rest


def test_messages_of_other_threads(path: Path) -> None:
    """Go through the loop."""
    soon: list[tuple[Any, ...]] = []
    with writing(path) as writer, logging_to(writer, lambda *call: soon.append(call)) as logger:
        thread = threading.Thread(target=logger.info, args=("from afar",))
        thread.start()
        thread.join()
        assert len(soon) == 1
        soon[0][0](*soon[0][1:])
    assert lines(path)[0]["message"] == "from afar"


def test_messages_after_the_loop(path: Path) -> None:
    """The last words of a process are written too."""
    loop = asyncio.new_event_loop()
    loop.close()
    with writing(path) as writer, logging_to(writer, loop.call_soon_threadsafe) as logger:
        logger.info("good bye")
    assert lines(path)[0]["message"] == "good bye"


def test_a_message_that_does_not_fit_its_arguments(path: Path) -> None:
    """Is its author's mistake, and not the end of what they were doing."""
    with writing(path) as writer:
        handler = LogHandler(writer, lambda function, *args: function(*args))
        for message in ("%d hosts", "and on with %s"):
            handler.handle(logging.LogRecord("tests", logging.INFO, "here.py", 1, message, ("three",), None))
    assert lines(path)[-1]["message"] == "and on with three"


def test_a_message_of_anything(path: Path) -> None:
    """What is logged need not be text."""
    with writing(path) as writer, logging_to(writer) as logger:
        logger.info({"a": object})
        logger.info("%s %r", b"\xff", "\x00\n\u2028")
    assert [line["message"] for line in lines(path)] == [str({"a": object}), "b'\\xff' '\\x00\\n\\u2028'"]


# -- sampling, other requests, and whose line it is -------------------------------------------------------------------------------------

VISIT = Visit(1_795_354_517.25, 0.0125, "DELETE", "/api/delete", "/api/delete", 200, "10.0.0.9")


def test_sampling(path: Path) -> None:
    """Takes a share of what went well, by its id; what failed, and what has a trace, is always there."""
    ids = [f"{number * 2654435761 % 16**8:024x}" for number in range(2000)]
    with writing(path, sample=0.25) as writer:
        for id_ in ids:
            writer.generation(record(id=id_))
        writer.generation(record(id="f" * 24, trace_kept=True))
        writer.generation(record(id="f" * 24, outcome=Outcome.UPSTREAM_ERROR))
    *well, traced, failed = lines(path)
    assert 400 < len(well) < 600
    assert traced["trace_kept"] is True
    assert failed["outcome"] == "upstream_error"
    again = path.with_name("again")
    with writing(again, sample=0.25) as writer:
        for id_ in ids:
            writer.generation(record(id=id_))
    assert lines(again) == well


def test_no_sample(path: Path) -> None:
    """Leaves what failed."""
    with writing(path, sample=0.0) as writer:
        writer.generation(record(id="0" * 24))
        writer.generation(record(id="0" * 24, outcome=Outcome.NO_HOST))
    assert [line["outcome"] for line in lines(path)] == ["no_host"]


def test_other_requests(path: Path) -> None:
    """Have a line each if that is asked for."""
    with writing(path, access=True) as writer:
        assert writer.visited is not None
        writer.visited(VISIT)
        writer.visited(VISIT._replace(status=500, path="/" + "x" * 5000))
    one, other = lines(path)
    assert one == {
        "ts": "2026-11-22T13:35:17.250Z",
        "level": "info",
        "event": "access",
        "message": "DELETE /api/delete: 200 after 0.013 s",
        "method": "DELETE",
        "path": "/api/delete",
        "route": "/api/delete",
        "status": 200,
        "duration_seconds": 0.0125,
        "client": "10.0.0.9",
    }
    assert (other["level"], len(other["path"])) == ("warning", 200)


@pytest.mark.parametrize(("changes", "number"), [({}, 0), ({"access": True, "level": "warning"}, 1)])
def test_other_requests_by_level(path: Path, changes: dict[str, Any], number: int) -> None:
    """None by default; above information only those that failed."""
    with writing(path, **changes) as writer:
        for status in (200, 499, 503):
            if writer.visited is not None:
                writer.visited(VISIT._replace(status=status))
    assert len(lines(path)) == number


def test_on_whose_behalf(path: Path) -> None:
    """Messages, jobs and other requests have the ids of the request in whose course they are told, also of its threads' messages."""
    ids = {"request_id": "mine", "trace_id": "ab" * 16, "span_id": "cd" * 8}
    with writing(path, access=True) as writer, logging_to(writer) as logger:
        current.set(Trace("ab" * 16, "cd" * 8, request_id="mine"))
        logger.info("said")
        writer.job(job(gpu1=PartState.SUCCEEDED))
        assert writer.visited is not None
        writer.visited(VISIT)
        thread = threading.Thread(target=copy_context().run, args=(logger.info, "from afar"))
        thread.start()
        thread.join()
        current.set(None)
        logger.info("for nobody")
    *whose, nobodys = lines(path)
    assert [{name: line[name] for name in ids} for line in whose] == [ids] * 4
    assert not set(ids) & set(nobodys)
