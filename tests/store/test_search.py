"""Search on both kinds of database: the same words find the same things, whatever is typed."""

import pytest

from gateway.errors import BadRequest
from gateway.messages import Ending, MessageState, SessionChanges
from gateway.store.engine import Database
from gateway.store.session_store import SessionStore
from tests.store.builders import ME, begun, new_session, store_of, turn

SAID = [
    ("Why is the sky blue?", "Because of Rayleigh scattering: short waves are scattered most."),
    ("Почему НЕБО голубое?", "Из-за рассеяния света в атмосфере."),
    ("What is in `my_file.tar.gz`?", "See https://example.com/a/b?c=d, section 4.2 of RFC-1952."),
]


@pytest.fixture
async def store(database: Database) -> SessionStore:
    """Three turns in a session each."""
    made = store_of(database)
    for question, answer in SAID:
        session = await new_session(made, question)
        await turn(made, session.id, question, answer)
    return made


async def said(store: SessionStore, query: str) -> list[int]:
    """Which of SAID's texts are found, in this order."""
    texts = [text for pair in SAID for text in pair]
    hits, more = await store.search.messages(ME, query, None, 50)
    assert more is None
    return [
        next(
            n
            for n, text in enumerate(texts)
            if text[-20:] == f"{hit.excerpt.before}{hit.excerpt.hit}{hit.excerpt.after}"[-20:]
        )
        for hit in hits
    ]


FINDS = {
    "sky": [0],
    "SKY blue": [0],
    "blue sky": [0],
    "sk": [0],
    "sk blue": [],
    "scatter": [1],
    "sky scattering": [],
    "небо": [2],
    "НЕБ": [2],
    "рассеян": [3],
    "голубое небо": [2],
    "file": [4],
    "my_file.tar": [4],
    "example.com": [5],
    "4.2": [5],
    "rfc 1952": [5],
    "is": [4, 0],
    "violet": [],
}

SIGNS = (
    *('"sky', "sky AND", "NOT sky", "sky*", "^sky", "NEAR(sky blue)", "content:sky", "sky & ", "sky | !blue", "sky:*"),
    *("'sky", "sky\\", "(sky", "sky <-> blue", "%sky_", "-sky", "sky\x00", "{sky}", "²", "sky\ud800", "🦜 sky"),
)

TITLES = {"sky": [0], "sky bl": [0], "bl sky": [], "небо": [1], "ГОЛУБ": [1], "violet": [], "is": [2, 0]}


async def test_words_find(store: SessionStore) -> None:
    """All words, whole ones but for the last, in any order and case; the newest first."""
    assert {query: await said(store, query) for query in FINDS} == FINDS


async def test_nothing_is_a_syntax_error(store: SessionStore) -> None:
    """Neither in FTS5 nor in a tsquery nor in LIKE: signs only part words."""
    for query in SIGNS:
        assert set(await said(store, query)) <= {0}
        assert len(await store.search.titles(ME, query, 9)) <= 1


async def test_without_words(store: SessionStore) -> None:
    """There is nothing to search for."""
    with pytest.raises(BadRequest, match="at least one word"):
        await store.search.messages(ME, "?!", None, 9)


async def test_titles(store: SessionStore) -> None:
    """The same with titles, also after they were changed."""

    async def found(query: str) -> list[str]:
        return [session.title for session in await store.search.titles(ME, query, 9)]

    assert {query: await found(query) for query in TITLES} == {
        query: [SAID[number][0] for number in numbers] for query, numbers in TITLES.items()
    }
    for session in await store.search.titles(ME, "is", 9):
        await store.sessions.change(ME, session.id, SessionChanges(title="Violet"))
    assert (await found("violet"), await found("sky")) == (["Violet"] * 2, [])


async def test_an_excerpt(store: SessionStore) -> None:
    """Where it was found."""
    (hit,), _ = await store.search.messages(ME, "rayl", None, 9)
    assert (hit.excerpt.before, hit.excerpt.hit) == ("Because of ", "Rayleigh")
    assert (hit.role, hit.seq, hit.title, hit.kind) == ("assistant", 1, SAID[0][0], "chat")


async def test_page_by_page(database: Database) -> None:
    """Each once, the newest first."""
    store = store_of(database)
    id_ = (await new_session(store)).id
    for number in range(5):
        await turn(store, id_, f"sky {number}", "-")
    found: list[int] = []
    before = None
    while True:
        hits, before = await store.search.messages(ME, "sky", before, 2)
        found += [hit.seq for hit in hits]
        if before is None:
            break
    assert found == [8, 6, 4, 2, 0]


async def test_an_answer_is_found_when_it_has_ended(database: Database) -> None:
    """Not while it is written, which is many times."""
    store = store_of(database)
    id_ = (await new_session(store)).id
    await begun(store, id_, "q")
    await store.turns.checkpoint(ME, id_, 1, "g1", content="violet")
    assert await store.search.messages(ME, "violet", None, 9) == ([], None)
    await store.turns.finish_turn(ME, id_, 1, "g1", Ending(state=MessageState.STOPPED, content="violets are"))
    assert len((await store.search.messages(ME, "viol", None, 9))[0]) == 1
    assert await store.search.messages("them", "viol", None, 9) == ([], None)


async def test_the_longest_message(database: Database) -> None:
    """Every word of it another one: it is kept, and found by what stands in its first part."""
    store = store_of(database)
    id_ = (await new_session(store)).id
    await turn(store, id_, "q", " ".join(f"ж{number:x}" for number in range(150_000)))
    assert len((await store.search.messages(ME, "жff", None, 9))[0]) == 1
