"""The app where the gateway goes away, in a real browser; and that what the app sends may fetch nothing from elsewhere."""

from playwright.sync_api import Browser, BrowserContext

from tests.dashboard.conftest import Demo, opened
from tests.dashboard.patience import expect


def test_the_gateway_goes_and_comes_back(context: BrowserContext, demo: Demo) -> None:
    """The page says so, also one that is opened meanwhile, and both come back by themselves."""
    page = opened(context)
    demo.go()
    try:
        second = context.new_page()
        second.goto("/fleet")
        expect(second.get_by_role("heading", name="The gateway does not answer")).to_be_visible()
        expect(second.get_by_text("This page tries again by itself.")).to_be_visible()
        page.reload()
        expect(page.get_by_role("heading", name="The gateway does not answer")).to_be_visible()
    finally:
        demo.come()
    expect(page.get_by_test_id("stChatInputTextArea")).to_be_visible()
    expect(second.get_by_text("sim3", exact=True).first).to_be_visible()


def test_only_the_app_itself_is_fetched_from(chromium: Browser, site: str) -> None:
    """The browser is told so, and refuses all else."""
    page = chromium.new_page()
    answer = page.goto(site)
    assert answer is not None
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    refused = page.evaluate(
        """() => new Promise(done => {
          document.addEventListener("securitypolicyviolation", event => done(event.effectiveDirective), { once: true })
          new Image().src = "http://192.0.2.1/x.png"
        })"""
    )
    page.close()
    assert refused == "img-src"
