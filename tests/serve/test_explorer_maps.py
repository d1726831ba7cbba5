"""The two maps of the explorer: the same songs on both, chosen by mouse and keys, taken by lasso,
told as a table.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from ponticello.library import Library
from tests.serve.browser import Seen, chromium, open_explorer, page_of, until
from tests.serve.served import make_app, running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def address(trained_root: Path) -> Iterator[str]:
    with running(make_app(trained_root)) as address:
        yield address


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """The explorer with both maps drawn; no error may be reported."""
    with page_of(browser) as (page, seen):
        open_explorer(page, address, "ask=1~text~slow")
        expect(page.locator("#map-status")).to_contain_text("60 songs", timeout=60_000)
        yield page
        assert seen == Seen()


def _maps(page: Page) -> Any:
    """What the maps show, from the module itself."""
    return page.evaluate(
        """async () => {
            const { maps } = await import('/static/map-state.js');
            return { ids: maps.ids, ranks: [...maps.ranks], active: maps.active,
                selection: [...maps.selection], selected: maps.ids[maps.selected] ?? null,
                panes: maps.panes.map((pane) => ({
                    name: pane.name, zoom: pane.zoom, x: pane.x, y: pane.y,
                    left: pane.left, top: pane.top, width: pane.width, height: pane.height,
                    places: maps.ids.map((_, row) => pane.at(row)) })) };
        }"""
    )


def _stage(page: Page) -> tuple[float, float]:
    box = page.locator("#overlay").bounding_box()
    assert box is not None
    return box["x"], box["y"]


def _lonely(places: list[list[float]]) -> int:
    """Returns the row that is furthest from its nearest neighbour, to be clicked without doubt."""

    def room(row: int) -> float:
        x, y = places[row]
        return min(
            (x - a) ** 2 + (y - b) ** 2 for other, (a, b) in enumerate(places) if other != row
        )

    return max(range(len(places)), key=room)


def test_a_song_clicked_on_one_map_is_chosen_on_the_list_and_the_other_map(page: Page) -> None:
    maps = _maps(page)
    for pane in maps["panes"]:
        row = _lonely(pane["places"])
        x, y = pane["places"][row]
        left, top = _stage(page)
        page.mouse.move(left + x + 2, top + y + 1)
        page.mouse.down()
        page.mouse.up()
        assert _maps(page)["selected"] == maps["ids"][row]
        selected = page.locator(f"#list .song[data-id='{maps['ids'][row]}'].is-selected")
        expect(selected).to_have_count(1 if row in dict(maps["ranks"]) else 0)


def test_the_songs_of_the_list_are_marked_in_its_order_and_follow_the_dial(page: Page) -> None:
    def marked() -> list[str]:
        maps = _maps(page)
        return [maps["ids"][row] for row, _ in sorted(maps["ranks"], key=lambda pair: int(pair[1]))]

    def listed() -> list[str]:
        return [
            each or ""
            for each in page.locator("#list .song").evaluate_all(
                "songs => songs.map(s => s.dataset.id)"
            )
        ]

    before = listed()
    assert marked() == before
    page.locator("#blend").focus()
    page.keyboard.press("Home")
    ids = "[...document.querySelectorAll('#list .song')].map((song) => song.dataset.id)"
    until(page, f"before => JSON.stringify({ids}) !== JSON.stringify(before)", before)
    assert marked() == listed() != before


def test_wheel_drag_and_keys_move_and_zoom_one_map(page: Page) -> None:
    left, top = _stage(page)
    one = _maps(page)["panes"][0]
    x, y = left + one["width"] / 3, top + one["height"] / 2
    page.mouse.move(x, y)
    page.mouse.wheel(0, -400)
    zoomed = _maps(page)["panes"]
    assert zoomed[0]["zoom"] == pytest.approx(2.718281828**0.6, rel=1e-3)
    assert zoomed[1]["zoom"] == 1
    page.mouse.down()
    page.mouse.move(x + 50, y + 30, steps=5)
    page.mouse.up()
    moved = _maps(page)["panes"][0]
    for row, (before, after) in enumerate(zip(zoomed[0]["places"], moved["places"], strict=True)):
        assert after == pytest.approx([before[0] + 50, before[1] + 30], abs=1), row
    page.locator("#overlay").focus()
    page.keyboard.press("0")
    assert _maps(page)["panes"][0]["zoom"] == 1
    page.keyboard.press("ArrowRight")
    page.keyboard.press("+")
    page.keyboard.press("m")
    page.keyboard.press("Enter")
    maps = _maps(page)
    assert maps["active"] == 1
    assert maps["panes"][0]["zoom"] == pytest.approx(1.4)
    assert maps["panes"][0]["x"] > 0.5
    assert maps["selected"] is not None


def test_two_fingers_zoom_the_map_under_them(browser: Browser, address: str) -> None:
    with page_of(browser, has_touch=True, viewport={"width": 360, "height": 800}) as (page, seen):
        open_explorer(page, address, "ask=1~text~slow&view=maps")
        expect(page.locator("#map-status")).to_contain_text("60 songs", timeout=60_000)
        page.locator("#overlay").scroll_into_view_if_needed()
        left, top = _stage(page)
        x, y = left + 160, top + 120
        session = page.context.new_cdp_session(page)

        def touch(kind: str, spread: float) -> None:
            points = (
                [{"x": x - spread, "y": y, "id": 1}, {"x": x + spread, "y": y, "id": 2}]
                if spread
                else []
            )
            session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

        touch("touchStart", 30)
        for spread in (40, 60, 80, 90):
            touch("touchMove", spread)
        touch("touchEnd", 0)
        assert _maps(page)["panes"][0]["zoom"] == pytest.approx(3, rel=0.1)
        assert seen == Seen()


def test_a_lasso_goes_into_the_playlist(page: Page) -> None:
    left, top = _stage(page)
    pane = _maps(page)["panes"][1]
    page.get_by_role("button", name="Lasso").click()
    x0, y0 = pane["left"] + 6, pane["top"] + 6
    x1, y1 = pane["left"] + pane["width"] / 2, pane["top"] + pane["height"] - 6
    page.mouse.move(left + x0, top + y0)
    page.mouse.down()
    for x, y in ((x1, y0), (x1, y1), (x0, y1)):
        page.mouse.move(left + x, top + y, steps=4)
    page.mouse.up()
    inside = {row for row, (x, y) in enumerate(pane["places"]) if x0 < x < x1 and y0 < y < y1}
    maps = _maps(page)
    assert set(maps["selection"]) == inside
    assert 0 < len(inside) < 60
    expect(page.locator("#selection")).to_contain_text(f"{len(inside)} song")
    page.locator("#selection").get_by_role("button", name="Into the playlist").click()
    expect(page.locator("#playlist-count")).to_have_text(str(len(inside)))


def test_songs_in_view_can_be_taken_without_drawing(page: Page) -> None:
    page.get_by_role("button", name="Take the songs in view").click()
    expect(page.locator("#selection")).to_contain_text("60 songs taken")
    page.get_by_role("button", name="Songs like 8 of them").click()
    expect(page.locator("#chips .chip")).to_have_count(8)


def test_another_index_forgets_what_was_marked_on_the_maps_before(
    browser: Browser, trained_copy: Library
) -> None:
    app = make_app(trained_copy.folder.root)
    with running(app) as address, page_of(browser) as (page, seen):
        open_explorer(page, address, "ask=1~text~slow")
        expect(page.locator("#map-status")).to_contain_text("60 songs", timeout=60_000)
        page.locator("#overlay").focus()
        page.keyboard.press("m")
        page.get_by_role("button", name="Take the songs in view").click()
        expect(page.locator("#selection")).to_contain_text("60 songs taken")
        trained_copy.embed("semantic", with_preference=False)  # a map less
        app.state.live.refresh()
        page.locator("#words").fill("fast")
        page.keyboard.press("Enter")
        until(page, "async () => (await import('/static/map-state.js')).maps.panes.length === 1")
        expect(page.locator("#selection")).to_be_hidden()
        assert (_maps(page)["active"], _maps(page)["selection"]) == (0, [])
        page.get_by_role("button", name="Take the songs in view").click()
        expect(page.locator("#selection")).to_contain_text("60 songs taken")
        assert seen == Seen()


def test_the_table_tells_what_the_maps_show_and_chooses_like_them(page: Page) -> None:
    page.locator("#maptable summary").click()
    expect(page.locator("#maptable-caption")).to_contain_text("60 songs in view on the meaning map")
    first = page.locator("#maptable-body tr").first
    expect(first.locator("td").nth(1)).to_have_text("1")
    expect(first.locator("th")).to_have_text(page.locator("#list .title").first.inner_text())
    row = page.locator("#maptable-body tr").nth(5)
    name = row.locator("th").inner_text()
    row.get_by_role("button").click()
    expect(page.locator("#maptable-body tr.is-selected th")).to_have_text(name)
    maps = _maps(page)
    assert maps["selected"] == page.locator("#list .song.is-selected").get_attribute("data-id")
    for _ in range(7):
        page.get_by_role("button", name="Zoom in").click()
    pane = _maps(page)["panes"][0]
    right, bottom = pane["left"] + pane["width"], pane["top"] + pane["height"]
    shown = sum(pane["left"] <= x < right and pane["top"] <= y < bottom for x, y in pane["places"])
    assert shown < 60
    expect(page.locator("#maptable-caption")).to_contain_text(
        f"{shown} song{'' if shown == 1 else 's'} in view"
    )


def test_lines_join_the_movers_until_they_are_switched_off(page: Page) -> None:
    count = """() => {
        const canvas = document.getElementById('overlay');
        const context = canvas.getContext('2d');
        const gap = context.getImageData(canvas.width / 2 - 3, 0, 6, canvas.height).data;
        return gap.filter((value, at) => at % 4 === 3 && value > 0).length;
    }"""
    assert page.evaluate(count) > 0
    page.get_by_role("button", name="Moved most").click()
    until(page, f"() => ({count})() === 0")
