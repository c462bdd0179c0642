"""What is read off an exposition."""

from gateway.app import running
from gateway.config import Config
from gateway.process import package_version
from gateway.top.scrape import scrape
from tests.contract.raw import ask


def test_families_are_summed() -> None:
    """By outcome, by host, by bound; what is about other things is passed over."""
    read = scrape(
        "\n".join(
            (
                "# HELP corral_requests_total x",
                'corral_requests_total{operation="chat",model="a",outcome="ok"} 3',
                'corral_requests_total{operation="chat",model="b",outcome="ok"} 4.0',
                'corral_requests_total{operation="chat",model="a",outcome="timeout"} 1',
                'corral_tokens_total{model="a",host="gpu1",type="output",accounting="reported"} 70',
                'corral_tokens_total{model="a",host="gpu1",type="output",accounting="counted"} 7',
                'corral_tokens_total{model="a",host="gpu1",type="input",accounting="reported"} 900',
                'corral_time_to_first_token_seconds_bucket{model="a",host="gpu1",le="0.1"} 2',
                'corral_time_to_first_token_seconds_bucket{model="b",host="gpu1",le="0.1"} 5',
                'corral_time_to_first_token_seconds_bucket{model="b",host="gpu1",le="+Inf"} 6',
                'corral_time_to_first_token_seconds_count{model="b",host="gpu1"} 6',
                'corral_build_info{version="1.2",build="compiled"} 1',
                "process_start_time_seconds 1.7e+09",
            )
        )
    )
    assert read.outcomes == {"ok": 7, "timeout": 1}
    assert read.output_tokens == {"gpu1": 77}
    assert read.first_token == {0.1: 7, float("inf"): 6}
    assert (read.version, read.build, read.started) == ("1.2", "compiled", 1.7e9)


def test_odd_samples() -> None:
    """Escapes are undone; what is no number counts as nothing."""
    read = scrape(
        'corral_tokens_total{model="a",host="g\\"1,\\\\n}",type="output"} 5\n'
        'corral_requests_total{outcome="ok"} NaN\ncorral_requests_total{outcome="ok"} many\n'
    )
    assert read.output_tokens == {'g"1,\\n}': 5}
    assert read.outcomes.total() == 0
    assert scrape("").version == ""


async def test_a_gateways_own() -> None:
    """A real exposition has all that is looked for."""
    async with running(Config(listen="127.0.0.1:0")) as gateway:
        read = scrape((await ask(gateway.url, "GET", "/metrics")).body.decode())
    assert read.version == package_version()
    assert read.started > 1.6e9
