"""The explorer as a music lover uses it, in a real browser over a real service: by mouse, by keys,
by link.
"""

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Download, Page, Route, expect

from ponticello.library import Library
from ponticello.storage.schema import TRACK_ID
from tests.serve.browser import Seen, chromium, open_explorer, page_of, titles, until
from tests.serve.served import make_app, rename, running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def address(trained_root: Path) -> Iterator[str]:
    """Where the trained library of the tests is served."""
    with running(make_app(trained_root)) as address:
        yield address


@pytest.fixture
def seen_page(browser: Browser) -> Iterator[tuple[Page, Seen]]:
    with page_of(browser) as opened:
        yield opened


@pytest.fixture
def page(seen_page: tuple[Page, Seen]) -> Iterator[Page]:
    """A page on which no error may be reported, and that may ask nothing but this machine."""
    page, seen = seen_page
    yield page
    assert seen == Seen()


@pytest.fixture
def user(trained: Library) -> str:
    """The listener who likes most, first in the page's list."""
    return trained.listening.users[int(trained.listening.n_liked.argmax())]


def _saved(download: Download) -> str:
    return Path(download.path()).read_bytes().decode("utf-8")


def _wait_for_sound(page: Page) -> None:
    until(page, "() => document.getElementById('audio').currentTime > 0.05")


def _order_like(page: Page, address: str, name: str, blend: int) -> list[str]:
    """The songs like the one of this name at this end of the dial, once the page lists them: all
    its moves are over.
    """
    found = page.request.get(f"{address}/api/tracks", params={"text": name}).json()["tracks"]
    (track_id,) = (track["track_id"] for track in found if track["title"] == name)
    answer = page.request.get(
        f"{address}/api/tracks/{track_id}/similar", params={"k": 30, "blend": blend}
    ).json()
    order = [result["title"] for result in answer["results"]]
    until(
        page,
        """order => JSON.stringify(
            [...document.querySelectorAll('#list .title')].map(e => e.textContent)
        ) === order""",
        json.dumps(order, separators=(",", ":")),
    )
    return order


def test_words_to_a_playlist_by_mouse(page: Page, address: str) -> None:
    open_explorer(page, address)
    page.locator("#words").click()
    page.keyboard.type("slow dark")
    page.get_by_role("button", name="Search", exact=True).click()
    expect(page.locator("#chips .chip")).to_have_text(["+“slow dark”"])
    expect(page.locator("#list .song")).to_have_count(30)
    expect(page.locator("#list .song .bar").first).to_be_visible()

    first = page.locator("#list .song").first
    name = first.locator(".title").inner_text()
    first.get_by_role("button", name=f"Play {name}").click()
    _wait_for_sound(page)
    expect(page.locator("#now-title")).to_have_text(name)

    first.locator(".choose").click()
    first.get_by_role("button", name="Similar").click()
    expect(page.locator("#chips .chip")).to_have_text([f"+{name}"])
    expect(page.locator("#list .title").get_by_text(name, exact=True)).to_have_count(0)

    blend = page.locator("#blend")
    box = blend.bounding_box()
    assert box is not None
    middle = box["height"] / 2
    blend.click(position={"x": 2, "y": middle})  # waits until the page no longer moves
    expect(page.locator("#blend-value")).to_have_text("100 : 0")
    meaning = _order_like(page, address, name, 0)
    blend.drag_to(
        blend,
        source_position={"x": 12, "y": middle},
        target_position={"x": box["width"] - 2, "y": middle},
    )
    expect(page.locator("#blend-value")).to_have_text("0 : 100")
    taste = _order_like(page, address, name, 1)
    assert taste != meaning

    for place in range(3):
        page.locator("#list .song .like").nth(place).click()
    page.locator("#tabs").get_by_role("button", name="Playlist 3").click()
    expect(page.locator("#playlist-songs .title")).to_have_text(taste[:3])
    with page.expect_download() as saved:
        page.get_by_role("button", name="M3U8, for players").click()
    lines = _saved(saved.value).splitlines()
    assert saved.value.suggested_filename == "My playlist.m3u8"
    assert lines[:2] == ["#EXTM3U", "#PLAYLIST:My playlist"]
    assert [line.partition(" - ")[2] for line in lines if line.startswith("#EXTINF")] == taste[:3]


def _tab_to(page: Page, selector: str) -> None:
    """Presses Tab until `selector` holds the focus."""
    for _ in range(400):
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"{selector} cannot be reached by Tab")


def test_words_to_a_playlist_by_keys_alone(page: Page, address: str) -> None:
    open_explorer(page, address)
    page.keyboard.press("/")
    page.keyboard.type("high bright")
    page.keyboard.press("Enter")
    expect(page.locator("#chips .chip")).to_have_text(["+“high bright”"])
    expect(page.locator("#list .song")).to_have_count(30)
    expect(page.locator("#list .song .bar").first).to_be_visible()
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    page.keyboard.press("j")
    name = titles(page)[1]
    expect(page.locator("#list .song.is-selected .title")).to_have_text(name)
    page.keyboard.press(" ")
    _wait_for_sound(page)
    expect(page.locator("#now-title")).to_have_text(name)
    page.keyboard.press(" ")
    until(page, "() => document.getElementById('audio').paused")

    page.keyboard.press("s")
    expect(page.locator("#chips .chip")).to_have_text([f"+{name}"])
    _tab_to(page, "#blend")
    page.keyboard.press("Home")
    expect(page.locator("#blend-value")).to_have_text("100 : 0")
    meaning = _order_like(page, address, name, 0)
    page.keyboard.press("End")
    expect(page.locator("#blend-value")).to_have_text("0 : 100")
    taste = _order_like(page, address, name, 1)
    assert taste != meaning

    page.keyboard.press("j")
    page.keyboard.press("l")
    page.keyboard.press("j")
    page.keyboard.press("l")
    expect(page.locator("#playlist-count")).to_have_text("2")
    listed = page.locator("#list .song:has(.like[aria-pressed=true]) .title").all_inner_texts()
    assert len(listed) == 2
    assert set(listed) <= set(taste)
    _tab_to(page, "#tabs [data-tab=playlist]")
    page.keyboard.press("Enter")
    _tab_to(page, "#panel-playlist [data-format=jspf]")
    with page.expect_download() as saved:
        page.keyboard.press("Enter")
    playlist = json.loads(_saved(saved.value))["playlist"]
    assert [track["title"] for track in playlist["track"]] == listed


def test_the_dial_gives_the_services_answer_at_every_position(
    page: Page, address: str, trained: Library
) -> None:
    track = trained.index.track_ids[7]
    for blend in (0.0, 0.37, 1.0):
        page.goto("about:blank")
        open_explorer(page, address, f"ask=1~track~{track}&blend={blend}")
        expected = [each.title for each in trained.similar(track, k=30, blend=blend)]
        expect(page.locator("#list .title")).to_have_text([title or "" for title in expected])


def test_back_and_forward_walk_through_the_questions(page: Page, address: str) -> None:
    open_explorer(page, address)
    chips = page.locator("#chips .chip > span")
    for words in ("slow dark", "fast"):
        page.locator("#words").fill(words)
        page.keyboard.press("Enter")
        expect(chips).to_have_text([f"“{words}”"])
    page.locator("#words").fill("bright")
    page.get_by_role("button", name="− but not").click()
    expect(chips).to_have_text(["“fast”", "“bright”"])
    expect(page.locator("#chips .away")).to_have_count(1)
    page.locator("#tabs").get_by_role("button", name="Path").click()
    page.go_back()
    expect(page.locator("#panel-maps")).to_be_visible()
    page.go_back()
    expect(chips).to_have_text(["“fast”"])
    page.go_back()
    expect(chips).to_have_text(["“slow dark”"])
    page.go_forward()
    expect(chips).to_have_text(["“fast”"])
    page.reload()
    expect(chips).to_have_text(["“fast”"])
    expect(page.locator("#list .bar").first).to_be_visible()


def test_seeds_can_be_turned_and_removed_and_songs_dragged_to_the_question(
    page: Page, address: str
) -> None:
    open_explorer(page, address, "ask=1~text~slow")
    expect(page.locator("#list .bar").first).to_be_visible()
    song = page.locator("#list .song").nth(2)
    name = song.locator(".title").inner_text()
    song.drag_to(page.locator("#ask .blend"))
    chips = page.locator("#chips .chip")
    expect(chips).to_have_text(["+“slow”", f"+{name}"])
    page.get_by_role("button", name=f"{name}: towards it").click()
    expect(chips).to_have_text(["+“slow”", f"−{name}"])
    page.get_by_role("button", name="Remove “slow”").click()
    expect(chips).to_have_text([f"−{name}"])
    page.get_by_role("button", name=f"Remove {name}").click()
    expect(chips).to_have_count(0)
    expect(page.locator("#songs-title")).to_have_text("All songs")


def test_an_address_that_anybody_may_have_written_asks_what_can_be_read(
    page: Page, address: str
) -> None:
    odd = (
        "ask=zzz&ask=0~text~x&ask=1~part~9~3~t&ask=99~text~y&ask=2~text~slow~er"
        "&blend=7&per_artist=-1&view=nope"
    )
    open_explorer(page, address, f"{odd}&where=tags%3Dslow")
    expect(page.locator("#chips .chip > span")).to_have_text(["“slow~er”"])
    expect(page.locator("#filters .chip")).to_have_text(["tags=slow"])
    expect(page.locator("#list .bar").first).to_be_visible()
    expect(page.locator("#panel-maps")).to_be_visible()
    expect(page.locator("#per-artist")).to_have_value("")


def test_a_song_is_found_by_its_name(page: Page, address: str) -> None:
    open_explorer(page, address)
    page.locator("#words").fill("piece 17")
    page.locator("#named").get_by_role("button", name="Piece 17, Artist").click()
    expect(page.locator("#chips .chip > span")).to_have_text(["Piece 17"])


def test_filters_and_songs_an_artist_narrow_the_list(
    page: Page, address: str, trained: Library
) -> None:
    open_explorer(page, address, "ask=1~text~slow")
    page.locator("#filter-panel summary").click()
    page.locator("#filter-column").select_option("tags")
    page.locator("#filter-value").fill("slow")
    page.get_by_role("button", name="Add filter").click()
    expect(page.locator("#filters .chip")).to_have_text(["tags=slow"])
    expected = [each.title for each in trained.search("slow", k=30, where=["tags=slow"])]
    expect(page.locator("#list .title")).to_have_text([title or "" for title in expected])
    page.locator("#per-artist").select_option("1")
    expected = [
        each.title for each in trained.search("slow", k=30, where=["tags=slow"], per_artist=1)
    ]
    expect(page.locator("#list .title")).to_have_text([title or "" for title in expected])
    page.get_by_role("button", name="Remove the filter tags=slow").click()
    expect(page.locator("#filter-count")).to_have_text("(1)")


def test_why_adds_up_on_the_screen(page: Page, address: str) -> None:
    open_explorer(page, address, "ask=1~text~slow&ask=-0.5~text~bright&blend=0.4")
    page.locator("#list .song .choose").nth(4).click()
    table = page.locator("#list .parts")
    rows = [line.split("\t") for line in table.inner_text().replace("−", "-").splitlines()]
    parts, total = [row[-2:] for row in rows[1:-1]], rows[-1]
    assert [row[0] for row in rows[1:-1]] == ["“slow”", "- “bright”"]
    for side in (0, 1):
        assert sum(Decimal(part[side]) for part in parts) == Decimal(total[side + 1])
    shown = page.locator("#list .song .sum").nth(4).inner_text().replace("−", "-")
    score = Decimal(shown.partition("=")[0].strip())
    assert score == Decimal(total[1]) + Decimal(total[2])


def test_parts_of_any_total_add_up_as_printed(page: Page, address: str) -> None:
    """Each stays within a hundredth of its value."""
    open_explorer(page, address)
    generator = np.random.default_rng(0)
    for n in (1, 2, 3, 7, 20):
        parts = generator.normal(0, 1.5, n).tolist()
        shown = page.evaluate(
            "async ([parts, total]) => (await import('./static/bars.js')).hundredths(parts, total)",
            [parts, sum(parts)],
        )
        assert sum(shown) == round(100 * sum(parts))
        assert np.abs(np.array(shown) - 100 * np.array(parts)).max() < 1


def test_walking_through_the_list_asks_why_only_where_it_stops(page: Page, address: str) -> None:
    asked: list[str] = []
    page.on(
        "request",
        lambda request: asked.append(request.url) if request.url.endswith("/api/explain") else None,
    )
    open_explorer(page, address, "ask=1~text~slow")
    expect(page.locator("#list .bar").first).to_be_visible()
    page.evaluate(
        """() => {
            const j = () => new KeyboardEvent('keydown', { key: 'j', bubbles: true });
            for (let n = 0; n < 6; n++) document.body.dispatchEvent(j());
        }"""
    )
    expect(page.locator("#list .explanation button")).to_contain_text("Best match from")
    assert len(asked) == 1


def test_a_chosen_song_stays_as_it_is_while_the_next_answer_is_on_its_way(
    page: Page, address: str
) -> None:
    open_explorer(page, address, "ask=1~text~slow")
    expect(page.locator("#list .bar").first).to_be_visible()
    page.locator("#list .choose").first.click()
    page.evaluate("() => { document.querySelector('#list .explanation').dataset.before = 'yes'; }")
    held: list[Route] = []
    page.route("**/api/search", lambda route: held.append(route))
    page.locator("#per-artist").evaluate(
        "select => { select.value = '3'; select.dispatchEvent(new Event('change')); }"
    )
    expect(page.locator("#list")).to_have_attribute("aria-busy", "true")
    assert page.locator("#list .explanation[data-before]").count() == 1
    page.wait_for_timeout(50)
    held[0].continue_()
    expect(page.locator("#list")).to_have_attribute("aria-busy", "false")
    expect(page.locator("#list .explanation[data-before]")).to_have_count(0)


def test_the_skip_link_keeps_the_question(page: Page, address: str) -> None:
    for width in (1440, 400):
        page.set_viewport_size({"width": width, "height": 900})
        page.goto("about:blank")
        open_explorer(page, address, "ask=1~text~slow&view=path")
        expect(page.locator("#list .bar")).to_have_count(30)
        page.locator(".skip").focus()
        page.keyboard.press("Enter")
        expect(page.locator("#songs")).to_be_focused()
        expect(page.locator("#songs")).to_be_visible()
        expect(page.locator("#chips .chip > span")).to_have_text(["“slow”"])
        assert "ask=1" in page.url


def test_names_that_only_the_address_knows_appear_where_they_are_shown(
    page: Page, address: str
) -> None:
    open_explorer(page, address, "view=path&from=track-0044&song=track-0051")
    expect(page.locator("#path-ends strong").first).to_have_text("Piece 44")
    expect(page.locator("#details button").first).to_have_count(1)


def test_an_id_with_a_slash_is_a_song_like_any_other(page: Page, trained_copy: Library) -> None:
    rename(trained_copy, TRACK_ID, "track-0044", "Disc 1/44?.flac")
    with running(make_app(trained_copy.folder.root)) as address:
        open_explorer(
            page, address, "ask=1~track~Disc 1/44?.flac&song=Disc 1/44?.flac&view=audience"
        )
        expect(page.locator("#chips .chip > span")).to_have_text(["Piece 44"])
        expect(page.locator("#list .bar").first).to_be_visible()
        expect(page.locator("#audience-body strong")).to_have_text("Piece 44")
        page.locator("#play").click()
        _wait_for_sound(page)


def test_rediscovery_is_what_the_listener_never_played(
    page: Page, address: str, trained: Library, user: str
) -> None:
    open_explorer(page, address)
    page.locator("#tabs").get_by_role("button", name="Rediscover").click()
    expect(page.locator("#rediscover-body .simulated")).to_contain_text("simulated")
    page.get_by_role("button", name=user, exact=True).click()
    expect(page.locator("#songs-title")).to_have_text(f"For listener {user}")
    expected = [each.title for each in trained.recommend(user, k=30)]
    expect(page.locator("#list .title")).to_have_text([title or "" for title in expected])


def test_a_recommendation_is_explained_at_the_dial_that_is_shown(
    page: Page, address: str, user: str
) -> None:
    open_explorer(page, address, f"for={user}&blend=0.9")
    expect(page.locator("#list .bar").first).to_be_visible()
    with page.expect_request("**/api/explain") as asked:
        page.locator("#list .choose").first.click()
    body: Any = asked.value.post_data_json
    assert (body["user_id"], body["blend"]) == (user, 0.9)


def test_the_audience_of_the_chosen_song(page: Page, address: str, trained: Library) -> None:
    open_explorer(page, address, "ask=1~text~slow")
    expect(page.locator("#list .bar").first).to_be_visible()
    page.keyboard.press("j")
    page.keyboard.press("a")
    rows = page.locator("#audience-body li")
    expect(rows).to_have_count(20)
    chosen = page.locator("#list .is-selected").get_attribute("data-id")
    assert chosen is not None
    expected = [each.user_id for each in trained.audience(chosen, k=20)]
    expect(page.locator("#audience-body li .choose")).to_have_text(expected)
    expect(page.locator("#audience-body .simulated")).to_contain_text("simulated")
    page.locator("#audience-new").check()
    listeners = trained.audience(chosen, k=100)
    fresh = [listener.user_id for listener in listeners if not listener.already_played][:20]
    assert fresh != expected
    expect(page.locator("#audience-body li .choose")).to_have_text(fresh)


def test_a_path_leads_from_one_song_to_the_other(page: Page, address: str) -> None:
    open_explorer(page, address, "ask=1~text~slow")
    expect(page.locator("#list .bar").first).to_be_visible()
    names = titles(page)
    for place, button in ((0, "Path from here"), (12, "Path to here")):
        page.locator("#list .song .choose").nth(place).click()
        page.get_by_role("button", name=button).click()
    expect(page.locator("#path-body .title")).to_have_count(8)
    steps = page.locator("#path-body .title").all_inner_texts()
    assert (steps[0], steps[-1]) == (names[0], names[12])
    near = page.locator("#path-body .near")
    expect(near).to_have_count(7)
    shown = [float(text.partition(" ")[0]) for text in near.all_inner_texts()]
    widths = page.locator("#path-body .nearness span").evaluate_all(
        "bars => bars.map((bar) => bar.style.width)"
    )
    assert [float(width.rstrip("%")) for width in widths] == shown
    assert len(set(shown)) > 1
    page.get_by_role("button", name="All into the playlist").click()
    expect(page.locator("#playlist-count")).to_have_text("8")


def test_the_next_song_is_the_nearest_not_yet_played(
    page: Page, address: str, trained: Library
) -> None:
    first = trained.index.track_ids[5]
    open_explorer(page, address, f"ask=1~track~{first}&blend=0.2&song={first}")
    expect(page.locator("#list .bar").first).to_be_visible()
    page.locator("#play").click()
    _wait_for_sound(page)
    played, expected = [first], []
    for _ in range(3):
        near = trained.similar(played[-1], k=40, blend=0.2)
        nearest = next(each for each in near if each.track_id not in played)
        played.append(nearest.track_id)
        expected.append(nearest.title or "")
        page.locator("#next").click()
        expect(page.locator("#now-title")).to_have_text(expected[-1])
    page.locator("#waveform").focus()
    page.keyboard.press("End")  # to the song's end, after which the next begins by itself
    near = trained.similar(played[-1], k=40, blend=0.2)
    following = next(each.title or "" for each in near if each.track_id not in played)
    expect(page.locator("#now-title")).to_have_text(following)


def test_the_waveform_is_a_slider_and_a_moment_of_a_song_a_question(
    page: Page, address: str
) -> None:
    open_explorer(page, address)
    page.locator("#list .play").first.click()
    _wait_for_sound(page)
    page.keyboard.press("Escape")
    page.locator("#play").click()
    wave = page.locator("#waveform")
    expect(wave).to_have_attribute("aria-valuemax", "4")
    wave.focus()
    page.keyboard.press("Home")
    expect(wave).to_have_attribute("aria-valuetext", "0:00 of 0:04")
    box = wave.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + 0.6 * box["width"], box["y"] + 10)
    expect(wave).to_have_attribute("aria-valuenow", "2")
    painted = """() => document.getElementById('waveform').getContext('2d')
        .getImageData(0, 0, 300, 40).data.some(v => v)"""
    assert page.evaluate(painted)
    name = page.locator("#now-title").inner_text()
    page.get_by_role("button", name="Like this moment").click()
    expect(page.locator("#chips .chip > span")).to_have_text([f"{name}, 0:00 to 0:04"])
    expect(page.locator("#list .bar").first).to_be_visible()


def test_single_keys_can_be_switched_off(page: Page, address: str) -> None:
    open_explorer(page, address)
    page.keyboard.press("?")
    expect(page.locator("#help")).to_be_visible()
    page.get_by_label("Single keys are on").uncheck()
    page.keyboard.press("Escape")
    expect(page.locator("#help")).to_be_hidden()
    page.keyboard.press("j")
    expect(page.locator("#list .is-selected")).to_have_count(0)
    page.reload()
    expect(page.locator("#list .song").first).to_be_visible()
    page.keyboard.press("j")
    expect(page.locator("#list .is-selected")).to_have_count(0)
    page.locator("#help-open").click()
    page.get_by_label("Single keys are on").check()
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    expect(page.locator("#list .is-selected")).to_have_count(1)


def test_the_list_goes_on_page_after_page(page: Page, address: str, trained: Library) -> None:
    open_explorer(page, address, "ask=1~text~slow")
    expect(page.locator("#list .bar").first).to_be_visible()
    expect(page.locator("#list .song")).to_have_count(30)
    page.locator("#list .choose").nth(29).click()
    page.keyboard.press("j")  # past the last one
    expect(page.locator("#list .song")).to_have_count(60)
    expected = [each.title or "" for each in trained.search("slow", k=60)]
    expect(page.locator("#list .title")).to_have_text(expected)
    expect(page.locator("#list .is-selected .title")).to_have_text(expected[30])
    expect(page.locator("#more")).to_be_hidden()
