"""The page of all sessions: its logic in Streamlit's tester, its main path in a browser."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import BrowserContext
from streamlit.testing.v1 import AppTest

from dashboard.gateway import Gateway
from dashboard.views import selected
from dashboard.views.sessions import PAGE
from tests.dashboard.patience import expect

Page = Callable[..., AppTest]


@pytest.fixture
def page(app: Page, gateway: Gateway) -> Page:
    """Where there are no sessions yet."""
    while rows := gateway.get("/api/sessions", limit=200)["sessions"]:
        gateway.each("DELETE", [f"/api/sessions/{row['id']}" for row in rows])
    for which in ({"archived": True}, {"deleted": True}):
        rows = gateway.get("/api/sessions", limit=200, **which)["sessions"]
        gateway.each("DELETE", [f"/api/sessions/{row['id']}" for row in rows])
    return app


def made(gateway: Gateway, *titles: str, **body: Any) -> list[str]:
    """Ids of new sessions."""
    return [gateway.post("/api/sessions", {"title": title} | body)["id"] for title in titles]


def titles(at: AppTest) -> list[str]:
    """As they are listed."""
    assert not at.exception
    return [button.label for button in at.button if str(button.key).startswith("open_")]


def chosen(at: AppTest, key: str, act: str) -> AppTest:
    """A row's menu."""
    menu = next(one for one in at.get("menu_button") if one.key == key)
    return menu.set_value(act).run()


def test_page_by_page(page: Page, gateway: Gateway) -> None:
    """There and back; what is asked for begins at the start."""
    made(gateway, *(f"s{number:02}" for number in range(PAGE + 2)), model="llama3.2:1b")
    at = page(page="sessions")
    first = [f"s{number:02}" for number in range(PAGE + 1, 1, -1)]
    assert titles(at) == first
    assert at.button(key="page_before").disabled
    at.button(key="page_after").click().run()
    assert titles(at) == ["s01", "s00"]
    assert at.button(key="page_after").disabled
    at.button(key="page_before").click().run()
    assert titles(at) == first
    at.button(key="page_after").click().run()
    at.selectbox(key="of_model").set_value("llama3.2:1b").run()
    assert titles(at) == first


def test_filters(page: Page, gateway: Gateway) -> None:
    """Each narrows the list; where nothing is left, it says so."""
    made(gateway, "Small talk", model="llama3.2:1b")
    (pinned,) = made(gateway, "Cheese", model="qwen3:4b", pinned=True)
    made(gateway, "Old", archived=True)
    at = page(page="sessions")
    assert titles(at) == ["Cheese", "Small talk"]
    at.toggle(key="only_pinned").set_value(True).run()
    assert titles(at) == ["Cheese"]
    at.selectbox(key="of_kind").set_value("conversation").run()
    assert titles(at) == []
    assert any(caption.value == "No session is like this." for caption in at.caption)
    at.selectbox(key="of_kind").set_value(None)
    at.toggle(key="only_pinned").set_value(False)
    at.segmented_control(key="where").set_value("archived").run()
    assert titles(at) == ["Old"]
    assert gateway.get(f"/api/sessions/{pinned}")["pinned"]


def test_search(page: Page, gateway: Gateway) -> None:
    """Titles, and what was said, with what stands around it; a hit is opened where it was said."""
    (sea,) = made(gateway, "Sea", model="llama3.2:1b")
    said = gateway.post(f"/api/sessions/{sea}/messages", {"content": "Is *cheese* blue?"})
    made(gateway, "Cheese :red[x]")
    at = page(page="sessions")
    at.text_input(key="find").set_value("cheese").run()
    assert titles(at) == [r"Cheese \:red\[x\]"]
    assert any(r"\*" in caption.value and "**cheese**" in caption.value for caption in at.caption)
    at.button(key=f"hit_{sea}_{said['seq']}").click().run()
    assert at.session_state["session"] == sea
    assert at.chat_message[0].markdown[0].value == "Is *cheese* blue?"
    at = page(page="sessions")
    at.text_input(key="find").set_value("nowhere").run()
    assert any(caption.value == "Nothing has these words." for caption in at.caption)
    at.text_input(key="find").set_value('"').run()
    assert any("at least one word" in caption.value for caption in at.caption)


def test_a_row(page: Page, gateway: Gateway) -> None:
    """Renamed, pinned, put into the archive, deleted and brought back."""
    (id_,) = made(gateway, "Cheese")
    at = page(page="sessions")
    chosen(at, f"act_{id_}", "rename")
    at.text_input(key=f"title_{id_}").set_value(" Brie ").run()
    assert titles(at) == ["Brie"]
    chosen(at, f"act_{id_}", "rename")
    at.button(key=f"keep_{id_}").click().run()
    assert titles(at) == ["Brie"]
    for act in ("pin", "archive"):
        chosen(at, f"act_{id_}", act)
    row = gateway.get(f"/api/sessions/{id_}")
    assert (row["title"], row["pinned"], row["archived"]) == ("Brie", True, True)
    assert titles(at) == []
    gateway.patch(f"/api/sessions/{id_}", {"archived": False})
    chosen(at.run(), f"act_{id_}", "delete")
    assert titles(at) == []
    assert any(caption.value == "Deleted: 1" for caption in at.caption)
    at.button(key="undo_deleted").click().run()
    assert titles(at) == ["Brie"]
    chosen(at, f"act_{id_}", "export")
    assert at.checkbox(key=f"pick_{id_}").value


def test_many(page: Page, gateway: Gateway) -> None:
    """All that are chosen; what is deleted can be restored from its list, or erased once that was asked."""
    ids = made(gateway, "a", "b", "c")
    at = page(page="sessions")
    at.checkbox(key="pick_all").check().run()
    assert any(caption.value == "Chosen: 3" for caption in at.caption)
    at.checkbox(key=f"pick_{ids[0]}").uncheck().run()
    assert not at.checkbox(key="pick_all").value
    at.checkbox(key=f"pick_{ids[0]}").check().run()
    assert at.checkbox(key="pick_all").value
    at.button(key="all_pin").click().run()
    assert [row["pinned"] for row in gateway.get("/api/sessions")["sessions"]] == [True] * 3
    assert not any(at.checkbox(key=f"pick_{id_}").value for id_ in ids)
    for id_ in ids[:2]:
        at.checkbox(key=f"pick_{id_}").check()
    at.run().button(key="all_delete").click().run()
    assert titles(at) == ["c"]
    at.segmented_control(key="where").set_value("deleted").run()
    assert titles(at) == ["b", "a"]
    assert any("restorable for 60 min" in caption.value for caption in at.caption)
    chosen(at, f"act_{ids[0]}", "restore")
    chosen(at, f"act_{ids[1]}", "erase")
    assert gateway.get("/api/sessions", deleted=True)["sessions"]
    at.button(key="all_erase").click().run()
    assert titles(at) == []
    assert [row["id"] for row in gateway.get("/api/sessions")["sessions"]] == [ids[2], ids[0]]


def test_what_is_gone_meanwhile(page: Page, gateway: Gateway) -> None:
    """The others are dealt with all the same, and the reader is told."""
    ids = made(gateway, "a", "b")
    at = page(page="sessions")
    at.checkbox(key="pick_all").check().run()
    gateway.delete(f"/api/sessions/{ids[1]}")
    at.button(key="all_archive").click().run()
    assert gateway.get(f"/api/sessions/{ids[0]}")["archived"]
    assert "no session" in at.toast[0].value


@pytest.mark.parametrize("count", [1, 2])
def test_there_and_back(page: Page, gateway: Gateway, tmp_path: Path, count: int) -> None:
    """What is exported can be imported; broken files are told, and the others come in."""
    ids = made(gateway, *("Cheese", "Wine")[:count], model="llama3.2:1b")
    gateway.post(f"/api/sessions/{ids[0]}/messages", {"content": "Is it a dessert?"})
    exported = selected._json(gateway, ids)
    assert b"Is it a dessert?" in selected._markdown(gateway, ids[:1])
    assert selected._markdown(gateway, ids)[:2] == (b"# " if count == 1 else b"PK")
    at = page(page="sessions")
    (tmp_path / "broken.json").write_text("{")
    uploader = at.get("file_uploader")[0]
    uploader.set_value(
        [("sessions.json", exported, "application/json"), ("broken.json", b"{", "application/json")]
    ).run()
    assert sorted(titles(at)) == sorted(2 * ["Cheese", "Wine"][:count])
    assert any(toast.value == f"Sessions imported: {count}" for toast in at.toast)
    assert json.loads(exported)


def test_nothing_yet(page: Page) -> None:
    """In words of its own, in either language."""
    at = page("ru", page="sessions")
    assert any(caption.value == "Сессий пока нет." for caption in at.caption)


def test_in_a_browser(context: BrowserContext, gateway: Gateway) -> None:
    """Found, deleted, brought back, opened."""
    made(gateway, "Cheddar", "Wine", model="llama3.2:1b")
    page = context.new_page()
    page.goto("/sessions")
    row = page.get_by_role("button", name="Cheddar")
    page.get_by_role("searchbox").fill("cheddar")
    expect(row).to_have_count(1)
    expect(page.get_by_test_id("stMenuButton")).to_have_count(1)  # no other row is left from before
    page.get_by_test_id("stCheckbox").last.locator("label").click()
    page.get_by_test_id("stBottom").get_by_role("button", name="Delete").click()
    expect(row).to_have_count(0)
    page.get_by_test_id("stBottom").get_by_role("button", name="Undo").click()
    row.click()
    expect(page.get_by_test_id("stChatInputTextArea")).to_be_visible()
    expect(page).to_have_url(re.compile(r"/(chat)?$"))
