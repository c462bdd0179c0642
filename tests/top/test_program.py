"""``corral top`` on a real terminal, before a real gateway with simulated hosts; and where there is no terminal."""

import re
from pathlib import Path

import pytest

from tests.builders import TEXT, call, simulated
from tests.conftest import Corral
from tests.processes import corral as process
from tests.processes import python
from tests.sockets import nobody
from tests.tls import Authority
from tests.top.terminal import MAIN_SCREEN
from tests.top.terminal import corral as terminal

UP, DOWN, TAB, CTRL_C = "\x1b[A", "\x1bOB", "\t", "\x03"
COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-8]|9[0-7])[;m]")


def top(url: str, interval: float = 0.1) -> tuple[str, ...]:
    """The command."""
    return ("top", "--gateway", url, "--interval", str(interval))


async def test_watching_and_acting(corral: Corral) -> None:
    """It shows hosts, models and what is in flight; a generation is cancelled and a host drained by key."""
    one, two = simulated("gpu1"), simulated("gpu2")
    stage = await corral(one, two, poll={"interval_seconds": 0.05})
    for host in (one, two):
        host.faults.set("hang_mid_stream", after_chunks=2, times=1)
    async with (
        stage.begun(call("/api/chat", tokens=50), "first"),
        stage.begun(call("/api/chat", tokens=50), "second"),
        terminal(*top(stage.url)) as screen,
    ):
        await stage.row("second", "streaming")
        await screen.shows(rf"Corral [\d.]+.*{stage.url}  ready")
        await screen.shows(r"in flight 2  queued 0 +[\d.]+ tok/s")
        await screen.shows(r"▸ gpu1 +healthy +[\d.]+ +\d+ ms +1/1")
        await screen.shows(rf"{TEXT} +gpu2 .*100 %")
        rows = await stage.in_flight()
        await screen.shows(rf"{rows[1]['id'][-6:]} +gpu\d +streaming")

        screen.press(TAB, DOWN, "c")
        await screen.shows(rf"Cancel {rows[1]['id'][-6:]} \({TEXT} on {rows[1]['host']}\)\? y yes")
        screen.press("n")
        await screen.shows("q quit")
        screen.press("cy")
        await screen.shows(r": stopped")
        await screen.shows("in flight 1 ")
        (record,) = await stage.records.until(1)
        assert (record.id, record.cancelled_by) == (rows[1]["id"], "api")

        screen.press(UP, UP, "d")
        await screen.shows(r"Drain gpu1\?")
        screen.press("y")
        await screen.shows(r"▸ gpu1 +draining")
        assert [host["draining"] for host in (await stage.get("/api/fleet"))["hosts"]] == [True, False]
        screen.press("d")
        await screen.shows(r"▸ gpu1 +healthy")
        assert [host["draining"] for host in (await stage.get("/api/fleet"))["hosts"]] == [False, False]
        screen.press("q")
        assert await screen.ended() == 0
        assert MAIN_SCREEN in screen.output
        assert COLOUR.search(screen.output)
        assert "Traceback" not in screen.output
    one.faults.clear()
    two.faults.clear()


async def test_a_gateway_that_goes_and_comes_back(tmp_path: Path) -> None:
    """It says so, keeps what it saw, and goes on by itself."""
    async with simulated() as host:
        serve = ("serve", "--host", f"gpu1={host.url}", "--listen")
        async with process(tmp_path, *serve, "127.0.0.1:0") as first:
            url = await first.listens()
            async with terminal(*top(url)) as shown:
                await shown.shows("gpu1 +healthy")
                first.signal()
                assert (await first.ended())[0] == 0
                await shown.shows(
                    r"no answer: Connection refused; trying again. What follows is [\d.]+s old.(?s:.*)gpu1 "
                )
                async with process(tmp_path, *serve, url.removeprefix("http://")) as second:
                    await second.listens()
                    await shown.shows("in flight 0(?s:.*)gpu1 +healthy")
                    shown.press("q")
                    assert await shown.ended() == 0


@pytest.mark.parametrize("how", ["ctrl-c", "hang up"])
async def test_other_ways_to_end(how: str) -> None:
    """Ctrl-C is a way to quit; a lost connection leaves nothing running. Neither waits for a gateway."""
    with nobody() as url:
        async with terminal(*top(url)) as screen:
            await screen.shows("no answer: Connection refused; trying again.")
            if how == "ctrl-c":
                screen.press(CTRL_C)
                assert await screen.ended() == 0
            else:
                screen.hang_up()
                await screen.ended()  # with whichever code: nobody is there to see it


async def test_no_colours_and_another_size(corral: Corral) -> None:
    """NO_COLOR is obeyed, OLLAMA_HOST is where it looks, and a resized window is filled at once."""
    stage = await corral(simulated())
    async with terminal(
        "top", columns=60, lines=20, NO_COLOR="1", OLLAMA_HOST=stage.url.removeprefix("http://")
    ) as screen:
        await screen.shows("▸ gpu1")
        lines = screen.screen.splitlines()
        assert len(lines) <= 20
        assert max(map(len, lines)) <= 60
        screen.resize(120, 30)
        await screen.shows("CLIENT")
        assert max(map(len, screen.screen.splitlines())) <= 120
        screen.press("q")
        assert await screen.ended() == 0
        assert not COLOUR.search(screen.output)


async def test_without_a_terminal(corral: Corral, tmp_path: Path) -> None:
    """One picture, plain, and the end."""
    stage = await corral(simulated())
    async with process(tmp_path, *top(stage.url)) as once:
        assert await once.ended() == (0, "")
    text = "\n".join(line.rstrip() for line in once.lines)
    assert "\x1b" not in text
    assert "tok/s" in text
    assert re.search(r"^  gpu1 +healthy", text, re.MULTILINE)


@pytest.mark.parametrize("environ", [{"TERM": "dumb"}, {"TTY_COMPATIBLE": "0"}])
async def test_a_terminal_that_can_do_nothing(corral: Corral, environ: dict[str, str]) -> None:
    """Gets one picture as well: nothing could be drawn anew there."""
    stage = await corral(simulated())
    async with terminal(*top(stage.url), **environ) as screen:
        assert await screen.ended() == 0
        await screen.shows("gpu1 +healthy")
        assert "\x1b" not in screen.output


async def test_where_there_is_no_gateway(tmp_path: Path) -> None:
    """Exit code 2 and why, in words: nobody, or an Ollama."""
    with nobody() as url:
        async with process(tmp_path, *top(url)) as none, process(tmp_path, *top("localhost:x")) as odd:
            assert await none.ended() == (2, f"corral: {url}: Connection refused\n")
            assert await odd.ended() == (
                1,
                "corral: 'localhost:x' is no address of a gateway, like http://127.0.0.1:11434\n",
            )
    async with simulated() as host, process(tmp_path, *top(host.url)) as ollama:
        assert await ollama.ended() == (
            2,
            f"corral: {host.url}: no Corral answers there: GET /api/fleet is a 404\n",
        )


@pytest.mark.parametrize("command", [("top", "--interval", "0.1"), ("status",)])
async def test_a_gateway_by_tls(corral: Corral, tmp_path: Path, command: tuple[str, ...]) -> None:
    """It is trusted by the CA that an option or the environment names, and is shown a certificate where it wants one; else the reason is told in words."""
    authority = Authority(tmp_path)
    own, ours = authority.pair("own"), authority.pair("ours", "ann@example.com")
    stage = await corral(simulated(), tls={"cert": own.cert, "key": own.key, "client_ca": authority.ca})
    stage.tls = authority.client(ours)
    asked = (*command, "--gateway", stage.url)
    shown = ("--cert", ours.cert, "--cert-key", ours.key)
    environ = {"CORRAL_CA": authority.ca, "CORRAL_CERT": ours.cert, "CORRAL_CERT_KEY": ours.key}
    async with (
        process(tmp_path, *asked, "--ca", authority.ca, *shown) as told,
        process(tmp_path, *asked, **environ) as set_,
        process(tmp_path, *asked) as stranger,
        process(tmp_path, *asked, "--ca", "away.pem") as away,
    ):
        for good in (told, set_):
            assert await good.ended() == (0, "")
            assert any("gpu1" in line for line in good.lines)
        code, said = await stranger.ended()
        assert code == 2
        assert "its certificate is not trusted: self-signed certificate in certificate chain" in "".join(
            (*stranger.lines, said)
        )
        code = 2 if "status" in command else 1  # to whoever asks for the status, 1 says that it is degraded
        assert await away.ended() == (code, "corral: ca = 'away.pem': No such file or directory\n")


async def test_files_of_no_use(tmp_path: Path) -> None:
    """Are refused: somebody thinks that they count."""
    with nobody() as url:
        async with (
            process(tmp_path, "status", "--gateway", url, "--ca", "ca.pem") as plain,
            process(tmp_path, "status", "--gateway", url.replace("http", "https"), "--cert-key", "k.pem") as lone,
            process(tmp_path, "status", "--gateway", url, CORRAL_CA="ca.pem") as other,
        ):
            assert await plain.ended() == (2, f"corral: --ca is for a gateway by TLS, and its address is {url}\n")
            assert await lone.ended() == (
                2,
                "corral: --cert-key is the key of a certificate: name its file, too (--cert)\n",
            )
            assert (await other.ended())[0] == 2


async def test_who_does_not_watch_does_not_pay(tmp_path: Path) -> None:
    """What draws is loaded by this command alone."""
    seen = "import sys, gateway.cli; print(sorted(name for name in sys.modules if name.partition('.')[0] == 'rich'))"
    async with python(tmp_path, "-c", seen) as other:
        assert await other.ended() == (0, "")
    assert other.lines == ["[]"]
