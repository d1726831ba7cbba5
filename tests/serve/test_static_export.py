"""The explorer as a folder of files: the same answers as the service's, from any file server."""

import functools
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, expect
from typer.testing import CliRunner

from ponticello.cli.main import app
from ponticello.errors import LibraryError
from ponticello.library import Library
from ponticello.serve.static_export import (
    BLENDS,
    NEAREST,
    TRACKS_A_FILE,
    export_explorer,
    nearest_at_any,
)
from tests.serve.browser import Seen, axe_violations, chromium, open_explorer, page_of, titles


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def exported(trained_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("page") / "explorer"
    done = export_explorer(Library.open(trained_root), target)
    assert (done.n_tracks, done.n_indexed) == (60, 60)
    assert done.n_bytes == sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    return target


@pytest.fixture(scope="module")
def address(exported: Path) -> Iterator[str]:
    """The folder in Python's own file server."""
    handler = functools.partial(_Quiet, directory=str(exported))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


def _data(folder: Path, name: str) -> Any:
    return json.loads((folder / "data" / f"{name}.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("blend", BLENDS)
def test_the_nearest_kept_are_those_of_the_library_with_both_parts(
    exported: Path, trained: Library, blend: float
) -> None:
    tracks = _data(exported, "tracks")["tracks"]
    rows = {track["track_id"]: row for row, track in enumerate(tracks)}
    for track_id in trained.index.track_ids[::7]:
        row = rows[track_id]
        near = _data(exported, f"near-{row // TRACKS_A_FILE}")[str(row)]
        sums = {tracks[other]["track_id"]: (1 - blend) * s + blend * p for other, s, p in near}
        expected = trained.similar(track_id, k=NEAREST, blend=blend)
        best = sorted(sums.values(), reverse=True)[: len(expected)]
        np.testing.assert_allclose(best, [each.score for each in expected], atol=2e-5)
        for each in expected:
            assert sums[each.track_id] == pytest.approx(each.score, abs=2e-5)
            _, s, p = next(one for one in near if tracks[one[0]]["track_id"] == each.track_id)
            np.testing.assert_allclose(
                [(1 - blend) * s, blend * p], [each.semantic, each.preference], atol=2e-5
            )


def test_nothing_of_listeners_and_no_place_of_a_file_is_written(
    exported: Path, trained: Library
) -> None:
    written = "".join(path.read_text(encoding="utf-8") for path in (exported / "data").iterdir())
    assert not [user for user in trained.listening.users if user in written]
    assert not [path for path in trained.tracks["path"].drop_nulls() if Path(path).name in written]
    assert str(trained.folder.root.parent) not in written


def test_similar_dial_maps_list_and_export_work_without_the_service(
    browser: Browser, address: str, trained: Library
) -> None:
    with page_of(browser) as (page, seen):
        open_explorer(page, address)
        expect(page.locator("#notices")).to_contain_text("A copy without its service")
        page.locator("#list .song .choose").nth(3).click()
        page.locator("#list").get_by_role("button", name="Similar").click()
        expect(page.locator("#list .bar").first).to_be_visible()
        track = trained.index.track_ids[3]
        page.locator("#blend").focus()
        for key, blend in (("Home", 0.0), ("End", 1.0), ("PageDown", None)):
            page.keyboard.press(key)
            if blend is None:
                blend = float(page.locator("#blend").input_value())
                assert 0.5 < blend < 1  # between two of the positions whose nearest are kept
            expected = [each.title or "" for each in trained.similar(track, k=10, blend=blend)]
            expect(page.locator("#list .title").nth(9)).to_have_text(expected[9])
            assert titles(page)[:10] == expected
        expect(page.locator("#map-status")).not_to_be_empty()
        page.locator("#list .like").first.click()
        name = titles(page)[0]
        page.locator("#tabs [data-tab=playlist]").click()
        expect(page.locator("[data-format=m3u8]")).to_be_disabled()
        with page.expect_download() as saved:
            page.locator("[data-format=csv]").click()
        lines = Path(saved.value.path()).read_text(encoding="utf-8").splitlines()
        assert lines[0].startswith("position,track_id,title,artist")
        assert lines[1].split(",")[2] == name
        assert axe_violations(page) == []
        assert page.evaluate("() => window.stopped") == []
        assert seen == Seen()


def test_what_needs_the_service_says_so(browser: Browser, address: str) -> None:
    with page_of(browser) as (page, seen):
        open_explorer(page, address, "ask=1~text~slow")
        expect(page.locator("#songs-empty")).to_contain_text("searching by words needs")
        expect(page.locator("#words-note")).to_contain_text("needs the service")
        expect(page.locator("#play")).to_be_disabled()
        expect(page.locator("#upload")).to_be_disabled()
        page.get_by_role("button", name="Remove “slow”").click()
        page.locator("#list .choose").first.click()
        page.locator("#tabs [data-tab=audience]").click()
        expect(page.locator("#audience-body")).to_contain_text("ponticello serve")
        page.locator("#tabs [data-tab=rediscover]").click()
        expect(page.locator("#rediscover-body")).to_contain_text("ponticello serve")
        page.get_by_role("button", name="Path from here").click()
        page.locator("#list .choose").nth(1).click()
        page.get_by_role("button", name="Path to here").click()
        expect(page.locator("#path-body")).to_contain_text("ponticello serve")
        assert seen == Seen()


def test_the_command_writes_it_and_again_over_itself(trained_root: Path, tmp_path: Path) -> None:
    target = tmp_path / "page"
    for _ in range(2):
        done = CliRunner().invoke(
            app, ["export-explorer", str(target), "-L", str(trained_root), "--json"]
        )
        assert done.exit_code == 0, done.output
        assert json.loads(done.stdout)["n_tracks"] == 60
    assert (target / "index.html").is_file()


def test_a_folder_with_other_files_is_left_alone(trained: Library, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(LibraryError, match="holds other files"):
        export_explorer(trained, tmp_path)
    with pytest.raises(LibraryError, match="is a file"):
        export_explorer(trained, tmp_path / "letter.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_without_an_index_there_is_nothing_to_export(tmp_path: Path) -> None:
    Library.create(tmp_path / "new", "tiny")
    with pytest.raises(LibraryError, match="embed"):
        export_explorer(Library.open(tmp_path / "new"), tmp_path / "page")
    assert not (tmp_path / "page").exists()


def test_before_stage_two_only_meaning_is_kept(trained_copy: Library, tmp_path: Path) -> None:
    trained_copy.embed("semantic", with_preference=False)
    export_explorer(trained_copy, tmp_path / "page")
    assert _data(tmp_path / "page", "library")["has_preference"] is False
    near = _data(tmp_path / "page", "near-0")
    assert {len(each) for each in near.values()} == {NEAREST}
    assert {pair[2] for each in near.values() for pair in each} == {0.0}


def test_copies_of_a_recording_stand_once_in_an_answer() -> None:
    """Rows 1, 2, 3 are one recording; row 2 is its best by meaning, row 3 by taste, and both are
    kept for the dial.
    """
    meaning = np.array([0.0, 1.5, 3.0, 1.0, 0.5])
    taste = np.array([0.0, 1.5, 1.0, 3.0, 0.5])
    recordings = np.array([0, 1, 1, 1, 2])
    allowed = np.array([False, True, True, True, True])
    assert nearest_at_any(meaning, taste, allowed, recordings) == [2, 3, 4]
    assert nearest_at_any(meaning, None, allowed, recordings) == [2, 4]
    assert nearest_at_any(meaning, taste, allowed, np.arange(5)) == [1, 2, 3, 4]
