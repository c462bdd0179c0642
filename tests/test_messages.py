"""What may stand where a text may not be just anything."""

import re

from hypothesis import example, given
from hypothesis import strategies as st

from gateway.messages import PLAIN
from tests.profiles import PROPERTY


@PROPERTY
@given(st.text(st.sampled_from("ab :\n\t\x00\x1f\x7f\u00a0\u2028é"), max_size=12))
@example("a\n")
@example("\u2028")
@example("a\u2028b")
def test_plain(text: str) -> None:
    """No control character, and something to be seen; nothing else is asked, and the end is the end."""
    controls = [char for char in text if char < " " or char == "\x7f"]
    assert bool(re.search(PLAIN, text)) is (not controls and bool(text.strip()))
