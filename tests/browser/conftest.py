"""The pages of a whole server in Debian's chromium."""

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from docs.picture import Cast, chromium, log_in
from tests.server import Server


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Gone before the tests of other packages, whose thread its event loop would share."""
    try:
        with chromium() as browser:
            yield browser
    except FileNotFoundError as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def cast(server: Server) -> Cast:
    """The practice and an office, acting through the public interfaces."""
    return Cast(server.settings, server.credentials)


class Trouble(list[str]):
    """What went wrong on pages without anybody asking: errors in the console, addresses of others."""


@pytest.fixture
def trouble() -> Iterator[Trouble]:
    """No page may log an error (a blocked script or style is one), or fetch anything from elsewhere."""
    found = Trouble()
    yield found
    assert found == []


@pytest.fixture
def visit(browser: Browser, server: Server, trouble: Trouble) -> Iterator[Callable[..., Page]]:
    """A page of somebody who has logged in, by user name and path. more: of the browser context."""
    contexts: list[BrowserContext] = []

    def open_page(user: str, path: str = "/", **more: object) -> Page:
        context = browser.new_context(**more)
        context.set_default_timeout(15_000)
        contexts.append(context)
        page = context.new_page()
        log_in(page, server.settings.origin, user, server.credentials["users"][user])
        own = (f"{server.settings.origin}/", f"{server.settings.live_url}/")
        page.on("console", lambda message: trouble.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("request", lambda request: None if request.url.startswith(own) else trouble.append(request.url))
        page.goto(f"{server.settings.origin}{path}")
        return page

    yield open_page
    for context in contexts:
        context.close()
