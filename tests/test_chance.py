import pytest

from gateway.chance import Unguessable


@pytest.mark.parametrize("bits", [1, 52, 64, 65, 200])
def test_as_many_bits_as_asked_for_all_of_them_by_chance(bits: int) -> None:
    """None is always the same."""
    chance = Unguessable()
    drawn = [chance.getrandbits(bits) for _ in range(600)]
    assert max(number.bit_length() for number in drawn) == bits
    assert all(any(number >> bit & 1 for number in drawn) for bit in range(bits))


def test_no_word_is_given_twice_and_no_two_of_them_draw_the_same() -> None:
    """Nor does another draw it."""
    one, other = Unguessable(), Unguessable()
    drawn = [chance.getrandbits(52) for _ in range(1000) for chance in (one, other)]
    assert len(set(drawn)) == 2000


def test_what_others_draw_from_it_is_chance_too() -> None:
    """By the bits that it gives."""
    chance = Unguessable()
    assert {chance.randrange(3) for _ in range(200)} == {0, 1, 2}


def test_less_than_no_bits_are_refused() -> None:
    """As Python's own refuses them."""
    with pytest.raises(ValueError, match="non-negative"):
        Unguessable().getrandbits(-1)
