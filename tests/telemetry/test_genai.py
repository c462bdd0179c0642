"""The same generations under OpenTelemetry's names, only where they are asked for."""

from prometheus_client.parser import text_string_to_metric_families

from gateway.record import Accounting, Outcome, Usage
from gateway.telemetry.metrics import Metrics
from tests.builders import TEXT
from tests.telemetry.builders import RECORD, cancelled, live, record, unserved

NAMES = {
    "gen_ai_server_request_duration_seconds",
    "gen_ai_server_time_to_first_token_seconds",
    "gen_ai_server_time_per_output_token_seconds",
    "gen_ai_client_token_usage",
}


def families(metrics: Metrics) -> dict[str, dict[tuple[str, ...], float]]:
    """Counts and sums by name and label values, of what begins with gen_ai."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(metrics.render().decode()):
        for sample in family.samples:
            if family.name.startswith("gen_ai_") and "le" not in sample.labels:
                found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return found


def test_nothing_by_itself() -> None:
    """They are there twice, so only for who wants them."""
    metrics = Metrics(live, lambda _: True)
    metrics.observe(RECORD)
    assert families(metrics) == {}


def test_the_names() -> None:
    """Are the conventions', as Prometheus spells them: dashboards of others know no others."""
    metrics = Metrics(live, lambda _: True, genai_semconv=True)
    assert {family.name for family in metrics.declared() if family.name.startswith("gen_ai_")} == NAMES
    metrics.observe(RECORD)
    (line,) = [line for line in metrics.render().decode().splitlines() if "gen_ai_client_token_usage_sum" in line][:1]
    labels = 'gen_ai_operation_name="text_completion",gen_ai_provider_name="ollama",gen_ai_request_model="smollm2:135m"'
    assert line == f'gen_ai_client_token_usage_sum{{{labels},gen_ai_token_type="input"}} 14.0'


def test_generations() -> None:
    """Good ones with all they have, others with how long they took and how they ended."""
    metrics = Metrics(live, lambda _: True, genai_semconv=True)
    for made in (
        RECORD,
        record(stream=False, usage=Usage(3, 4, Accounting.REPORTED)),
        cancelled(),
        unserved(Outcome.NO_HOST, 503),
    ):
        metrics.observe(made)
    found, kind = families(metrics), ("text_completion", "ollama", TEXT)
    assert found["gen_ai_server_request_duration_seconds_count"] == {
        (*kind, ""): 2,
        (*kind, "cancelled"): 1,
        (*kind, "no_host"): 1,
    }
    assert found["gen_ai_server_time_to_first_token_seconds_sum"] == {kind: 1.5}
    assert found["gen_ai_server_time_per_output_token_seconds_sum"] == {kind: 2.25 / 24}
    assert found["gen_ai_client_token_usage_sum"] == {(*kind, "input"): 17, (*kind, "output"): 29}
    assert found["gen_ai_client_token_usage_count"] == {(*kind, "input"): 2, (*kind, "output"): 2}
