"""A simulated host answers every recorded request as the real one did."""

import pytest

from tests.contract.cases import CASES, Case, answer_differences, prepare, recorded_host, send

CANNOT_BE_SIMULATED: dict[str, str] = {}


@pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in CASES.items()])
async def test_replay(case: Case) -> None:
    """Status, headers, framing, keys, types and error texts are those of the recording."""
    if case.name in CANNOT_BE_SIMULATED:
        pytest.skip(CANNOT_BE_SIMULATED[case.name])
    async with recorded_host() as host:
        await prepare(case, host, host.url)
        answer = await send(case, host.url)
    assert answer_differences(case, answer) == []
