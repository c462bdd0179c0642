"""Parts of pages that fail: Streamlit's own box is never seen."""

import pytest
from streamlit.testing.v1 import AppTest

SCRIPT = """
import streamlit as st
from dashboard.edge import begin, fragment
if "begun" not in st.session_state:  # what runs then is like a part's own next run
    begin()
    st.session_state["begun"] = True
st.header("still there")
@fragment(every=0.05)
def part():
    if st.session_state.get("bad"):
        raise ValueError("what must never be")
    st.caption("all is well")
part()
"""


@pytest.mark.parametrize(
    ("language", "words", "again"),
    [
        ("en", "This part of the page has failed.", "Try again"),
        ("ru", "В этой части страницы произошёл сбой.", "Попробовать ещё раз"),
    ],
)
def test_a_part_that_fails(language: str, words: str, again: str, caplog: pytest.LogCaptureFixture) -> None:
    """The rest of the page is there; it is told and logged once, not at every tick, and tried again when somebody wants it."""
    at = AppTest.from_string(SCRIPT, default_timeout=20)
    at.session_state["language"] = language
    at.session_state["bad"] = True
    for _ in range(3):
        at.run()
        assert not at.exception
        assert at.header[0].value == "still there"
        assert at.caption[0].value.startswith(f":material/error: {words}")
    assert [record.message for record in caplog.records if record.name == "dashboard"] == ["a page failed"]
    caplog.clear()
    at.session_state["bad"] = False
    assert at.button[0].label == again
    at.button[0].click().run()
    assert [one.value for one in at.caption] == ["all is well"]
