"""What is asked follows the folder, and what cannot be read changes nothing."""

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ponticello.library import Library
from ponticello.search import service as service_module
from ponticello.search.service import SearchService, share_text_encoder
from ponticello.search.user_history import load_audience
from ponticello.serve.snapshot import LibraryWatcher
from ponticello.storage.layout import create_library
from tests.serve.served import client_of, make_app


def test_a_new_index_is_taken_up_and_models_are_kept(trained_copy: Library) -> None:
    swapped: list[str | None] = []
    live = LibraryWatcher(trained_copy.folder.root)
    live.on_swap.append(lambda snapshot: swapped.append(snapshot.generation))
    before = live.now()
    assert before.service.index.has_preference
    assert not live.refresh(), "nothing has changed"
    trained_copy.embed("semantic", with_preference=False)
    assert live.refresh()
    after = live.now()
    assert swapped == [after.generation] != [before.generation]
    assert not after.service.index.has_preference
    assert before.service.index.has_preference, "a request that began earlier keeps what it has"


def test_the_log_counts_as_soon_as_it_changes(trained_copy: Library) -> None:
    live = LibraryWatcher(trained_copy.folder.root)
    models = live.now().service.encoder.models
    trained_copy.folder.interactions.unlink()
    assert live.refresh()
    assert live.now().service.history.users == []
    assert live.now().service.encoder.models is models, "the same spaces need no other models"


def test_many_who_ask_at_once_load_the_models_and_profiles_once(
    trained: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = SearchService(trained.folder, trained.index, trained.tracks)
    calls: list[str] = []

    def slowly(run: Any) -> Any:
        def slow(*arguments: Any) -> Any:
            calls.append(run.__name__)
            time.sleep(0.1)
            return run(*arguments)

        return slow

    monkeypatch.setattr(service_module, "load_audience", slowly(load_audience))
    monkeypatch.setattr(service_module, "share_text_encoder", slowly(share_text_encoder))

    def load(number: int) -> object:
        return service.encoder.models if number % 2 else service.audience_profiles

    with ThreadPoolExecutor(8) as pool:
        loaded = list(pool.map(load, range(8)))
    assert sorted(calls) == ["load_audience", "share_text_encoder"]
    assert all(result is loaded[number % 2] for number, result in enumerate(loaded))


def test_a_damaged_index_leaves_the_last_one_in_use(trained_copy: Library) -> None:
    troubles: list[Exception] = []
    live = LibraryWatcher(trained_copy.folder.root)
    live.on_failure.append(troubles.append)
    generation = live.now().generation
    (trained_copy.folder.index / "CURRENT").write_text("0000000000000000\n")
    assert not live.refresh()
    assert not live.refresh()
    assert live.now().generation == generation
    assert live.trouble is not None
    assert "answers come from the last whole index" in live.trouble.message
    assert len(troubles) == 1, "it is told once"
    assert str(trained_copy.folder.root) not in live.trouble.message


def test_what_is_taken_back_is_no_trouble_any_more(trained_copy: Library) -> None:
    troubles: list[Exception] = []
    live = LibraryWatcher(trained_copy.folder.root)
    live.on_failure.append(troubles.append)
    current = trained_copy.folder.index / "CURRENT"
    good = current.read_text()
    for n in (1, 2):
        current.write_text("0000000000000000\n")
        assert not live.refresh()
        assert live.trouble is not None
        assert len(troubles) == n
        current.write_text(good)
        assert not live.refresh(), "it is in use already"
        assert live.trouble is None


def test_a_library_without_tracks_is_served_and_says_what_to_do(tmp_path: Path) -> None:
    folder = create_library(tmp_path / "library", "tiny")
    with client_of(make_app(folder.root)) as client:
        assert client.get("/healthz").json() == {"status": "ok"}
        assert client.get("/readyz").status_code == 503
        about = client.get("/api/library").json()
        assert (about["n_tracks"], about["n_indexed"]) == (0, 0)
        assert [each["code"] for each in about["problems"]] == ["no_index"]
        places = (
            "search?text=low",
            "tracks/a/similar",
            "recommend/a",
            "map",
            "path?from=a&to=b",
            "tracks/a/audience",
        )
        for place in places:
            answer = client.get(f"/api/{place}")
            assert answer.status_code == 503, place
            assert answer.json() == {
                "code": "not_ready",
                "message": "the library has no index yet; run: ponticello embed",
            }
        assert client.get("/api/tracks").json() == {"tracks": [], "n_total": 0}


def test_without_the_model_tracks_are_still_asked(trained_copy: Library) -> None:
    shutil.rmtree(trained_copy.folder.run("semantic"))
    with client_of(make_app(trained_copy.folder.root)) as client:
        about = client.get("/api/library").json()
        assert "model_missing" in [each["code"] for each in about["problems"]]
        assert not about["can_search_text"]
        answer = client.get("/api/search", params={"text": "low"})
        assert (answer.status_code, answer.json()["code"]) == (503, "model_missing")
        assert len(client.get("/api/tracks/track-0001/similar").json()["results"]) == 10


def test_moved_files_and_a_single_artist_are_told(trained_copy: Library) -> None:
    tracks = pl.read_parquet(trained_copy.folder.tracks)
    tracks.with_columns(path=pl.lit("gone.wav"), artist=pl.lit("One")).write_parquet(
        trained_copy.folder.tracks
    )
    with client_of(make_app(trained_copy.folder.root)) as client:
        codes = [each["code"] for each in client.get("/api/library").json()["problems"]]
    assert codes == ["one_artist", "files_moved"]


def test_without_a_log_there_are_recommendations_for_recent_tracks_only(
    trained_copy: Library,
) -> None:
    trained_copy.folder.interactions.unlink()
    with client_of(make_app(trained_copy.folder.root)) as client:
        assert [each["code"] for each in client.get("/api/library").json()["problems"]] == [
            "no_listeners"
        ]
        assert client.get("/api/recommend/somebody").json()["code"] == "not_found"
        assert client.get("/api/tracks/track-0001/audience").json()["listeners"] == []
        found = client.post("/api/recommend", json={"recent": ["track-0001"]}).json()["results"]
        assert {each["why"]["n_listeners"] for each in found} == {None}
