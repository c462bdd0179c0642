"""Names for what begins here."""

import random

from gateway.ids import new_id


def test_an_id() -> None:
    """24 hex digits, in the order of time, and no two alike."""
    chance = random.Random(1)
    ids = [new_id(1_795_354_500.0 + number / 1000, chance.getrandbits(52)) for number in range(1000)]
    assert ids == sorted(ids)
    assert len(set(ids)) == len(ids)
    assert {len(one) for one in ids} == {24}
    assert [int(one[:11], 16) for one in ids[:2]] == [1_795_354_500_000, 1_795_354_500_001]
    assert len({new_id(5.0, chance.getrandbits(52)) for _ in range(1000)}) == 1000
