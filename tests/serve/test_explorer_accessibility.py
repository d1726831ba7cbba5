"""What the explorer must never do, and what it says when something is missing: access, hostile
tags, failures.
"""

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.request import urlopen

import polars as pl
import pytest
from playwright.sync_api import Browser, expect

from ponticello.library import Library
from ponticello.serve.app import EXPLORER
from tests.serve.browser import Seen, axe_violations, chromium, open_explorer, page_of, until
from tests.serve.served import TOKEN, make_app, running

VIEWS = ("songs", "maps", "playlist", "audience", "path", "rediscover")
PAYLOADS = (
    "<script>window.ran.push('script')</script>",
    "<img src=x onerror=\"window.ran.push('img')\">",
    "\"'><svg onload=window.ran.push('svg')>",
    "javascript:window.ran.push('url')",
    "' onmouseover='window.ran.push(1)' x='",
    "{{constructor.constructor('window.ran.push(2)')()}}",
    '=HYPERLINK("http://example.org")\x1b[31mred',
    "a\u0000b\u202ec",
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def address(trained_root: Path) -> Iterator[str]:
    with running(make_app(trained_root)) as address:
        yield address


@pytest.mark.parametrize("width", [360, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_in_any_view(
    browser: Browser, address: str, width: int, scheme: str
) -> None:
    found = []
    with page_of(browser, viewport={"width": width, "height": 900}, color_scheme=scheme) as (
        page,
        seen,
    ):
        open_explorer(page, address, "ask=1~text~slow&ask=-1~text~fast")
        expect(page.locator("#list .bar").first).to_be_visible()
        page.locator("#list .choose").first.click()
        page.locator("#filter-panel summary").click()
        page.locator("#list .like").first.click()
        page.locator("#list .song").first.get_by_role("button", name="Path from here").click()
        for view in VIEWS:
            button = page.locator(f"#tabs [data-tab={view}]")
            if button.is_visible():
                button.click()
            if view == "maps":
                expect(page.locator("#map-status")).to_contain_text("Piece", timeout=60_000)
                page.locator("#maptable summary").click()
            if view in ("audience", "rediscover"):
                expect(page.locator(f"#panel-{view} li").first).to_be_visible()
            part = "body" if view == "songs" else f"#panel-{view}"
            found += [f"{view}: {violation}" for violation in axe_violations(page, part)]
        page.locator("#help-open").click()
        found += [f"help: {violation}" for violation in axe_violations(page, "#help")]
        assert seen == Seen()
    assert found == []


def test_axe_would_find_what_is_wrong(browser: Browser) -> None:
    with page_of(browser) as (page, _):
        page.set_content("<main><input><p style='color: #bbb; background: #fff'>faint</p></main>")
        assert sorted(line.partition(":")[0] for line in axe_violations(page)) == [
            "color-contrast",
            "label",
        ]


def test_nothing_is_wider_than_a_narrow_screen(browser: Browser, address: str) -> None:
    with page_of(browser, viewport={"width": 320, "height": 640}) as (page, _):
        open_explorer(page, address, "ask=1~text~slow")
        for view in VIEWS:
            page.locator(f"#tabs [data-tab={view}]").click()
            if view == "maps":
                page.locator("#maptable summary").click()
                expect(page.locator("#maptable tbody tr").first).to_be_visible()
            width = page.evaluate("() => document.documentElement.scrollWidth")
            assert width <= 320, view


@pytest.mark.parametrize("width", [390, 820, 1440])
def test_hearts_stand_at_the_right_end_of_every_row(
    browser: Browser, address: str, width: int
) -> None:
    """Also of the rows of all songs, which have no score."""
    with page_of(browser, viewport={"width": width, "height": 900}) as (page, _):
        for state in ("", "ask=1~text~slow"):
            page.goto("about:blank")
            open_explorer(page, address, state)
            row = page.locator("#list .song").first.bounding_box()
            heart = page.locator("#list .song .like").first.bounding_box()
            assert row is not None
            assert heart is not None
            assert row["x"] + row["width"] - heart["x"] - heart["width"] < 12


def test_less_motion_means_none(browser: Browser, address: str) -> None:
    for motion, expected in (("no-preference", True), ("reduce", False)):
        with page_of(browser, reduced_motion=motion) as (page, _):
            open_explorer(page, address, "ask=1~text~slow&blend=0")
            expect(page.locator("#list .bar").first).to_be_visible()
            page.evaluate(
                """() => {
                    window.most = 0;
                    const look = () => {
                        window.most = Math.max(window.most, document.getAnimations().length);
                        requestAnimationFrame(look);
                    };
                    look();
                }"""
            )
            page.locator("#blend").focus()
            page.keyboard.press("End")
            expect(page.locator("#blend-value")).to_have_text("0 : 100")
            expect(page.locator("#list")).to_have_attribute("aria-busy", "false")
            until(page, "() => document.getAnimations().length === 0")
            assert page.evaluate("() => window.most > 0") is expected


def _change_tracks(library: Library, change: Callable[[pl.DataFrame], pl.DataFrame]) -> Path:
    """Rewrites a copy's catalogue; gives its folder."""
    path = library.folder.root / "tracks.parquet"
    change(pl.read_parquet(path)).write_parquet(path)
    return library.folder.root


def test_markup_and_control_characters_in_tags_run_nowhere(
    browser: Browser, trained_copy: Library
) -> None:
    def spoil(tracks: pl.DataFrame) -> pl.DataFrame:
        n = tracks.height
        texts = pl.Series([f"{PAYLOADS[row % len(PAYLOADS)]} {row}" for row in range(n)])
        lists = pl.Series([[PAYLOADS[row % len(PAYLOADS)], PAYLOADS[0]] for row in range(n)])
        spoiled = dict.fromkeys(("title", "artist", "album", "language"), texts)
        return tracks.with_columns(**spoiled, genres=lists, tags=lists, machine_tags=lists)

    root = _change_tracks(trained_copy, spoil)
    with running(make_app(root)) as address, page_of(browser) as (page, seen):
        open_explorer(page, address, "ask=1~text~<img src=x onerror=window.ran.push(3)>")
        expect(page.locator("#list .bar").first).to_be_visible()
        assert "<script>" in page.locator("#list").inner_text()
        page.locator("#words").fill("<script>")
        expect(page.locator("#named button").first).to_be_visible()
        page.locator("#filter-panel summary").click()
        for column in page.locator("#filter-column option").all_inner_texts():
            page.locator("#filter-column").select_option(label=column)
        page.locator("#list .song .choose").first.click()
        expect(page.locator("#list .parts")).to_be_visible()
        page.locator("#list .song .like").first.click()
        page.get_by_role("button", name="Path from here").click()
        page.locator("#list .song .choose").nth(4).click()
        page.get_by_role("button", name="Path to here").click()
        expect(page.locator("#path-body .title")).to_have_count(8)
        page.locator("#list").get_by_role("button", name="+ more like it").click()
        for view in VIEWS[1:]:
            page.locator(f"#tabs [data-tab={view}]").click()
        page.locator("#tabs [data-tab=maps]").click()
        expect(page.locator("#map-status")).not_to_have_text("", timeout=60_000)
        page.locator("#maptable summary").click()
        expect(page.locator("#maptable-body tr").first).to_be_visible()
        page.mouse.move(700, 400)
        assert page.evaluate("() => [window.ran, window.stopped]") == [[], []]
        assert page.locator("main script, main img, main svg[onload]").count() == 0
        assert seen == Seen()


def test_the_files_of_the_page_hold_no_way_to_run_text() -> None:
    place = Path(str(EXPLORER))
    page = (place / "index.html").read_text(encoding="utf-8")
    assert re.findall(r"<script(?![^>]*\bsrc=)|\bstyle=|\bon\w+=|<style|https?://", page) == []
    scripts = sorted(place.glob("*.js"))
    assert len(scripts) > 20
    for script in scripts:
        source = script.read_text(encoding="utf-8")
        forbidden = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|setAttribute\(\"style\"|https?://(?!www\.w3\.org/2000/svg)"
        assert re.findall(forbidden, source) == [], script.name
        assert len(source.splitlines()) <= 300, script.name


def test_files_of_the_page_are_asked_for_again_after_an_upgrade(address: str) -> None:
    for file in ("", "static/app.js", "static/style.css"):
        with urlopen(f"{address}/{file}") as answer:
            assert answer.headers["Cache-Control"] == "no-cache"


def test_without_an_index_the_catalogue_can_be_read_and_the_page_says_what_to_do(
    browser: Browser, trained_copy: Library
) -> None:
    shutil.rmtree(trained_copy.folder.index)
    with running(make_app(trained_copy.folder.root)) as address, page_of(browser) as (page, _):
        open_explorer(page, address)
        expect(page.locator("#notices")).to_contain_text("ponticello embed")
        expect(page.locator("#list .song")).to_have_count(30)
        page.locator("#words").fill("slow")
        page.keyboard.press("Enter")
        expect(page.locator("#songs-empty h3")).to_have_text("This library cannot be asked yet")
        expect(page.locator("#maps-empty h3")).to_have_text("No maps")


def test_an_empty_library_says_how_to_bring_music(browser: Browser, tmp_path: Path) -> None:
    Library.create(tmp_path / "new", "tiny")
    with running(make_app(tmp_path / "new")) as address, page_of(browser) as (page, _):
        open_explorer(page, address)
        expect(page.locator("#songs-empty")).to_contain_text("ponticello scan")
        for view in VIEWS[1:]:
            page.locator(f"#tabs [data-tab={view}]").click()
            expect(page.locator(f"#panel-{view} .empty:visible").first).to_be_visible()


def test_without_listeners_the_views_about_them_say_so(
    browser: Browser, trained_copy: Library
) -> None:
    (trained_copy.folder.root / "interactions.parquet").unlink()
    with running(make_app(trained_copy.folder.root)) as address, page_of(browser) as (page, seen):
        open_explorer(page, address, "ask=1~text~slow")
        expect(page.locator("#facts")).to_contain_text("no listeners")
        for view in ("audience", "rediscover"):
            page.locator(f"#tabs [data-tab={view}]").click()
            expect(page.locator(f"#{view}-body h3")).to_have_text("No listeners")
        page.locator("#list .choose").first.click()
        expect(page.locator("#list .explanation")).not_to_contain_text("listeners")
        assert seen == Seen()


def test_before_stage_two_there_is_no_blend_and_one_map(
    browser: Browser, trained_copy: Library
) -> None:
    trained_copy.embed("semantic", with_preference=False)
    shutil.rmtree(trained_copy.folder.run("preference"))
    with running(make_app(trained_copy.folder.root)) as address, page_of(browser) as (page, seen):
        open_explorer(page, address, "ask=1~text~slow")
        expect(page.locator("#blend")).to_be_hidden()
        expect(page.locator("#blend-note")).to_contain_text("train preference")
        expect(page.locator("#list .bar").first).to_be_visible()
        expect(page.locator("#map-status")).to_contain_text("60 songs", timeout=60_000)
        expect(page.locator("#movers")).to_be_hidden()
        assert axe_violations(page) == []
        assert seen == Seen()


def test_one_artist_is_noticed_and_a_limit_an_artist_still_answers(
    browser: Browser, trained_copy: Library
) -> None:
    root = _change_tracks(
        trained_copy, lambda tracks: tracks.with_columns(artist=pl.lit("Only One"))
    )
    with running(make_app(root)) as address, page_of(browser) as (page, seen):
        open_explorer(page, address, "ask=1~text~slow&per_artist=1")
        expect(page.locator("#notices")).to_contain_text("one artist")
        expect(page.locator("#list .song")).to_have_count(1)
        assert seen == Seen()


def test_a_missing_model_still_lets_songs_find_songs(
    browser: Browser, trained_copy: Library
) -> None:
    for run in ("semantic", "preference"):
        shutil.rmtree(trained_copy.folder.run(run))
    with running(make_app(trained_copy.folder.root)) as address, page_of(browser) as (page, _):
        open_explorer(page, address, "ask=1~text~slow")
        expect(page.locator("#songs-empty h3")).to_have_text("The model is missing")
        expect(page.locator("#words-note")).to_be_visible()
        expect(page.locator("#upload")).to_be_disabled()
        page.get_by_role("button", name="Take the words out").click()
        page.locator("#list .choose").first.click()
        page.locator("#list").get_by_role("button", name="Similar").click()
        expect(page.locator("#list .bar").first).to_be_visible()


def test_a_changed_model_says_what_to_do_and_lets_the_words_go(
    browser: Browser, address: str
) -> None:
    told = {
        "code": "model_changed",
        "message": "words and sounds need the model: it is now space 2",
    }
    with page_of(browser) as (page, _):
        page.route("**/api/search", lambda route: route.fulfill(status=503, json=told))
        open_explorer(page, address, "ask=1~text~slow")
        expect(page.locator("#songs-empty")).to_contain_text("ponticello embed")
        page.get_by_role("button", name="Take the words out").click()
        expect(page.locator("#chips .chip")).to_have_count(0)
        expect(page.locator("#songs-title")).to_have_text("All songs")


def test_a_single_song_is_counted_as_one(browser: Browser, trained_copy: Library) -> None:
    root = _change_tracks(trained_copy, lambda tracks: tracks.head(1))
    with running(make_app(root)) as address, page_of(browser) as (page, _):
        open_explorer(page, address, "ask=1~text~slow")
        expect(page.locator("#facts span").first).to_have_text("1 song")
        expect(page.locator("#songs-status")).to_have_text(re.compile(r"^1 song, closest"))


def test_what_is_dragged_away_again_leaves_the_question_as_it_was(
    browser: Browser, address: str
) -> None:
    with page_of(browser) as (page, seen):
        open_explorer(page, address)
        drag = """kind => {
            const data = new DataTransfer();
            data.items.add(new File(['x'], 'mine.wav', { type: 'audio/wav' }));
            document.body.dispatchEvent(new DragEvent(kind, { dataTransfer: data, bubbles: true }));
        }"""
        page.evaluate(drag, "dragenter")
        expect(page.locator("#ask")).to_have_class(re.compile("is-target"))
        page.evaluate(drag, "dragleave")
        expect(page.locator("#ask")).not_to_have_class(re.compile("is-target"))
        assert seen == Seen()


def test_what_is_noticed_is_read_out(browser: Browser, address: str) -> None:
    with page_of(browser) as (page, _):
        open_explorer(page, address)
        expect(page.locator("#notices")).to_have_attribute("aria-live", "polite")


def test_a_moved_file_is_named_when_it_is_played(browser: Browser, trained_copy: Library) -> None:
    root = _change_tracks(
        trained_copy,
        lambda tracks: tracks.with_columns(path=pl.lit("/nowhere/") + pl.col("track_id")),
    )
    with running(make_app(root)) as address, page_of(browser) as (page, _):
        open_explorer(page, address)
        expect(page.locator("#notices")).to_contain_text("not where they were")
        name = page.locator("#list .title").first.inner_text()
        page.locator("#list .play").first.click()
        expect(page.locator("#notices .bad")).to_contain_text(name)


def test_a_file_that_is_no_sound_is_refused_with_a_reason(
    browser: Browser, address: str, tmp_path: Path
) -> None:
    fake = tmp_path / "song.mp3"
    fake.write_text("#EXTM3U\nnothing to hear\n")
    with page_of(browser) as (page, _):
        open_explorer(page, address)
        page.locator("#file").set_input_files(fake)
        expect(page.locator("#notices .bad")).not_to_be_empty()
        expect(page.locator("#chips .chip")).to_have_count(0)


def test_an_upload_that_is_gone_can_be_taken_out_of_the_question(
    browser: Browser, address: str
) -> None:
    with page_of(browser) as (page, _):
        open_explorer(page, address, "ask=1~upload~gone~mine.wav&ask=1~text~slow")
        expect(page.locator("#songs-empty h3")).to_have_text("The file you gave is gone")
        page.get_by_role("button", name="Take it out of the question").click()
        expect(page.locator("#chips .chip > span")).to_have_text(["“slow”"])
        expect(page.locator("#list .bar").first).to_be_visible()


def test_a_dropped_sound_becomes_the_question(
    browser: Browser, address: str, trained: Library
) -> None:
    sound = trained.tracks["path"][0]
    place = Path(sound) if Path(sound).is_absolute() else trained.folder.root / sound
    data = list(place.read_bytes())
    with page_of(browser) as (page, seen):
        open_explorer(page, address)
        page.evaluate(
            """bytes => {
                const data = new DataTransfer();
                const file = new File([new Uint8Array(bytes)], 'mine.wav', { type: 'audio/wav' });
                data.items.add(file);
                const options = { dataTransfer: data, bubbles: true, cancelable: true };
                document.body.dispatchEvent(new DragEvent('drop', options));
            }""",
            data,
        )
        expect(page.locator("#chips .chip > span")).to_have_text(["mine.wav"])
        expect(page.locator("#list .bar").first).to_be_visible()
        assert seen == Seen()


def test_the_page_says_when_the_service_is_gone_and_goes_on_when_it_is_back(
    browser: Browser, address: str
) -> None:
    with page_of(browser) as (page, _):
        open_explorer(page, address, "ask=1~text~slow")
        expect(page.locator("#list .bar").first).to_be_visible()
        page.locator("#list .like").first.click()
        page.context.set_offline(True)
        page.locator("#words").fill("fast")
        page.keyboard.press("Enter")
        expect(page.locator("#notices .bad")).to_contain_text("does not answer")
        page.context.set_offline(False)
        page.get_by_role("button", name="Try now").click()
        expect(page.locator("#notices .bad")).to_have_count(0)
        expect(page.locator("#list .bar").first).to_be_visible()
        expect(page.locator("#chips .chip > span")).to_have_text(["“fast”"])
        expect(page.locator("#playlist-count")).to_have_text("1")


def test_a_token_in_the_address_opens_the_page_and_leaves_the_address(
    browser: Browser, trained_root: Path
) -> None:
    with running(make_app(trained_root, TOKEN)) as address, page_of(browser) as (page, _):
        page.goto(f"{address}/")
        expect(page.get_by_role("button", name="Open")).to_be_visible()
        page.get_by_label("Token").fill(TOKEN)
        page.get_by_role("button", name="Open").click()
        expect(page.locator("#list .song").first).to_be_visible()
        assert TOKEN not in page.url
        page.context.clear_cookies()
        page.locator("#words").fill("slow")
        page.keyboard.press("Enter")
        expect(page.locator("#notices .bad")).to_contain_text("reload the page and sign in")
        page.get_by_role("button", name="Reload").click()
        expect(page.get_by_label("Token")).to_be_visible()
