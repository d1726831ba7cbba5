"""Small manners of the explorer: the skip link, names that come late, and no more questions than are meant."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import chromium, open_explorer, page_of
from playwright.sync_api import Browser, expect
from served import make_app, running

from ponticello.api import Library


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def address(trained_root: Path) -> Iterator[str]:
    with running(make_app(trained_root)) as address:
        yield address


def test_the_skip_link_leads_to_the_songs_and_keeps_the_question(browser: Browser, address: str) -> None:
    with page_of(browser, viewport={"width": 420, "height": 800}) as (page, seen):
        open_explorer(page, address, "ask=1~text~slow&view=path")
        page.locator(".skip").focus()
        page.keyboard.press("Enter")
        expect(page.locator("#songs")).to_be_focused()
        expect(page.locator("#songs")).to_be_visible()
        expect(page.locator("#chips")).to_contain_text("slow")
        assert "ask=1" in page.url
        assert seen.errors == []


def test_a_name_that_comes_late_is_shown_wherever_its_song_is(browser: Browser, address: str, trained: Library) -> None:
    """A track whose title stands in no answer: at the end of a path, chosen, and in the question."""
    ids = trained.index.track_ids
    with page_of(browser, viewport={"width": 1440, "height": 900}) as (page, seen):
        open_explorer(page, address, f"ask=1~track~{ids[3]}&song={ids[3]}&from={ids[3]}&to={ids[7]}&view=path")
        expect(page.locator("#chips")).not_to_contain_text(ids[3])
        for end in page.locator(".pathend strong").all():
            expect(end).to_contain_text("Piece")
        assert seen.errors == []


def test_who_walks_down_the_list_asks_for_the_moments_of_the_last_song_alone(browser: Browser, address: str) -> None:
    with page_of(browser, viewport={"width": 1440, "height": 900}) as (page, seen):
        open_explorer(page, address, "ask=1~text~slow")
        expect(page.locator("#list .bar").first).to_be_visible()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.post_data or "") if "explain" in request.url else None)
        last = page.locator("#list .song").nth(5).get_attribute("data-id")
        page.locator("#songs").focus()
        for _ in range(6):
            page.keyboard.press("j")
        expect(page.locator("#list .song.is-selected .why")).to_contain_text("Best match from")
        assert len(asked) == 1
        assert str(last) in asked[0]
        assert seen.errors == []
