"""A real browser for the tests of the explorer: Chromium without a screen, kept to this machine,
and what it said.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright

CHROMIUM = Path("/usr/bin/chromium")
SWITCHES = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
)
WAIT_MS = 20_000  # for a machine that does much else
# Axe's rules for WCAG 2.0 to 2.2, A and AA.
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
# What script in a tag would leave behind, and what the page's own policy had to stop.
_WATCH = """
window.ran = [];
window.stopped = [];
document.addEventListener('securitypolicyviolation', (event) => {
  window.stopped.push(event.violatedDirective);
});
"""


@dataclass
class Seen:
    """What the page said and asked for. expected: parts of messages that a test provokes."""

    errors: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's Chromium; the test is skipped where there is none."""
    if not CHROMIUM.exists():
        pytest.skip("Chromium is not installed: apt-get install chromium")
    with sync_playwright() as playwright:
        expect.set_options(timeout=WAIT_MS)
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=list(SWITCHES))
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def page_of(browser: Browser, **options: Any) -> Iterator[tuple[Page, Seen]]:
    """A fresh page that may ask nothing but this machine, and what it reported."""
    seen = Seen()
    options = {"viewport": {"width": 1440, "height": 900}, "accept_downloads": True, **options}
    context = browser.new_context(**options)
    context.set_default_timeout(WAIT_MS)
    context.add_init_script(_WATCH)

    def kept_here(route: Route) -> None:
        if urlsplit(route.request.url).hostname == "127.0.0.1":
            route.continue_()
        else:
            seen.elsewhere.append(route.request.url)
            route.abort()

    context.route("**/*", kept_here)
    page = context.new_page()
    page.on(
        "console",
        lambda message: seen.errors.append(message.text) if message.type == "error" else None,
    )
    page.on("pageerror", lambda error: seen.errors.append(str(error)))
    try:
        yield page, seen
    finally:
        context.close()


def open_explorer(page: Page, address: str, state: str = "") -> None:
    """Opens the page and waits for its first answer."""
    page.goto(f"{address}/#{state}")
    until(
        page,
        "() => document.querySelectorAll('#list .song').length"
        " || !document.getElementById('songs-empty').hidden",
    )


def until(page: Page, condition: str, argument: Any = None) -> None:
    """Waits until a JavaScript function is true. Playwright's own way runs text as code, which the
    page forbids.
    """
    end = time.monotonic() + WAIT_MS / 1000
    while not page.evaluate(condition, argument):
        assert time.monotonic() < end, f"never true: {condition}"
        page.wait_for_timeout(20)


def titles(page: Page) -> list[str]:
    """The songs on the list, in order."""
    return page.locator("#list .song .title").all_inner_texts()


def axe_violations(page: Page, part: str = "body") -> list[str]:
    """What axe-core finds that is serious or critical in a part of the page, one line each."""
    source = (files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")
    if not page.evaluate("() => 'axe' in window"):
        page.evaluate(source)
    options = {"runOnly": {"type": "tag", "values": RULES}, "resultTypes": ["violations"]}
    found: Mapping[str, Any] = page.evaluate(
        "([part, options]) => axe.run(part, options)", [part, options]
    )
    return [
        f"{each['id']}: {each['help']} at {node['target']}"
        for each in found["violations"]
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"]
    ]
