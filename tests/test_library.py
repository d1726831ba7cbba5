"""The library as users ask it: search, similar, recommend and embed, on a small trained one."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import soundfile

import ponticello
from ponticello.errors import ConfigError, DataError, LibraryError
from ponticello.features.prepare import prepare_features
from ponticello.library import Library
from ponticello.listening.log import merge_interactions, read_interactions
from ponticello.listening.pseudonyms import pseudonym
from ponticello.model.saving import space_id
from ponticello.search.results import Result
from ponticello.search.service import sound_query
from ponticello.storage.schema import PATH, TRACK_ID, USER_ID
from ponticello.tracks.catalog import audio_files, audio_path, merge_tracks, read_tracks


def _ids(results: Sequence[Result]) -> list[str]:
    return [result.track_id for result in results]


def _audio(library: Library, track_id: str) -> Path:
    (path,) = library.tracks.filter(pl.col(TRACK_ID) == track_id)[PATH]
    return audio_path(library.folder, path)


@pytest.fixture
def user(trained: Library) -> str:
    """The listener with the longest log."""
    counts = (
        read_interactions(trained.folder)
        .group_by(USER_ID)
        .len()
        .sort("len", USER_ID, descending=[True, False])
    )
    found: str = counts[USER_ID][0]
    return found


@pytest.mark.parametrize("blend", [0.0, 0.3, 1.0])
def test_search_ranks_all_tracks_by_the_blend_of_both_models(
    trained: Library, blend: float
) -> None:
    """Both models asked directly; each cosine calibrated as the index says."""
    text = "low dark slow"
    wanted = np.zeros(60)
    for weight, space, columns in zip(
        (1 - blend, blend), trained.index.spaces, (slice(0, 64), slice(64, 128)), strict=True
    ):
        model = ponticello.HTCL.from_pretrained(trained.folder.run(space.run))
        cosines = trained.index.vectors[:, columns] @ model.encode_text([text])[0]
        wanted += weight * (cosines - space.text.mean) / space.text.std
    found = trained.search(text, k=60, blend=blend)
    assert [result.rank for result in found] == list(range(1, 61))
    assert [result.score for result in found] == pytest.approx(
        sorted(wanted, reverse=True), abs=1e-3
    )
    by_id = dict(zip(trained.index.track_ids, wanted, strict=True))
    for result in found:
        assert result.score == pytest.approx(by_id[result.track_id], abs=1e-3)
        assert result.semantic + result.preference == pytest.approx(result.score, abs=1e-9)


def test_first_of_a_short_answer_are_the_first_of_a_long_one(trained: Library) -> None:
    assert _ids(trained.search("bright fast", k=5)) == _ids(trained.search("bright fast", k=40))[:5]


def test_similar_leaves_the_track_itself_out(trained: Library) -> None:
    found = trained.similar("track-0007", k=100, blend=0.5)
    assert len(found) == 59
    assert "track-0007" not in _ids(found)


def test_similar_to_a_tracks_own_file_gives_the_track_first(trained: Library) -> None:
    """The file is heard anew, so the rest of the list is the one its id gives."""
    found = trained.similar(_audio(trained, "track-0007"), k=10, blend=0.0)
    by_id = trained.similar("track-0007", k=9, blend=0.0)
    assert found[0].track_id == "track-0007"
    assert [r.score for r in found[1:]] == pytest.approx([r.score for r in by_id], abs=1e-3)


def test_similar_of_meaning_ranks_by_cosine(trained: Library) -> None:
    vectors = trained.index.vectors[:, :64]
    order = [trained.index.track_ids[row] for row in np.argsort(-(vectors @ vectors[7]))]
    order.remove("track-0007")
    assert _ids(trained.similar("track-0007", k=10, blend=0.0)) == order[:10]


def test_recommendations_are_tracks_the_listener_never_met(trained: Library) -> None:
    log = read_interactions(trained.folder)
    for user in log[USER_ID].unique().sort()[:20]:
        met = set(log.filter(pl.col(USER_ID) == user)[TRACK_ID])
        found = _ids(trained.recommend(user, k=100))
        assert set(found) == set(trained.index.track_ids) - met


@pytest.mark.parametrize("hub_correction", [0.0, 0.5])
def test_recommendations_are_the_regression_of_the_latest_seeds(
    trained: Library, user: str, hub_correction: float
) -> None:
    """By meaning alone: which line over all tracks is high at the listener's hundred latest liked
    ones.

    A track's score is divided by that power of its spread over the listeners of every single track.
    """
    log = read_interactions(trained.folder)
    liked = log.filter(
        (pl.col(USER_ID) == user) & pl.col("event").is_in(["complete", "like", "playlist"])
    )
    newest: list[str] = []
    for track_id in liked.sort("played_at", TRACK_ID, descending=[True, False])[TRACK_ID]:
        if track_id not in newest:
            newest.append(track_id)
    met = set(log.filter(pl.col(USER_ID) == user)[TRACK_ID])
    vectors = trained.index.vectors[:, :64].astype(np.float64)
    seeds = vectors[[trained.index.rows[track_id] for track_id in newest[:100]]]
    centred = vectors - vectors.mean(axis=0)
    covariance = centred.T @ centred / len(vectors)
    ridge = 0.03 * np.trace(covariance) * np.eye(64)
    line = np.linalg.solve(covariance + ridge, seeds.mean(axis=0) - vectors.mean(axis=0))
    alone = np.linalg.solve(covariance + ridge, centred.T)  # (64, 60)
    spread = np.sqrt((((centred @ alone) / (centred @ alone).std(axis=0)) ** 2).mean(axis=1))
    order = [
        trained.index.track_ids[row]
        for row in np.argsort(-(centred @ line) / spread**hub_correction)
    ]
    library = Library.open(trained.folder.root, [f"search.hub_correction={hub_correction}"])
    assert _ids(library.recommend(user, k=5, blend=0.0)) == [i for i in order if i not in met][:5]


def test_filters_k_and_artists_hold_for_every_question(trained: Library, user: str) -> None:
    artists = dict(trained.tracks.select(TRACK_ID, "artist").iter_rows())
    tags = dict(trained.tracks.select(TRACK_ID, "tags").iter_rows())
    options = {"k": 4, "per_artist": 1, "where": ["tags=low"]}
    for found in (
        trained.search("low", **options),  # type: ignore[arg-type]
        trained.similar("track-0001", **options),  # type: ignore[arg-type]
        trained.recommend(user, **options),  # type: ignore[arg-type]
    ):
        assert 0 < len(found) <= 4
        assert all("low" in tags[result.track_id] for result in found)
        assert len({artists[result.track_id] for result in found}) == len(found)
        assert [result.artist for result in found] == [artists[result.track_id] for result in found]


def test_filter_nothing_passes_gives_an_empty_list(trained: Library, user: str) -> None:
    where = ["artist=nobody"]
    assert list(trained.search("low", where=where)) == []
    assert list(trained.similar("track-0001", where=where)) == []
    assert list(trained.recommend(user, where=where)) == []


def test_blend_of_none_is_the_librarys_own(trained_root: Path) -> None:
    for blend in (0.0, 0.8):
        library = Library.open(trained_root, [f"search.blend={blend}"])
        assert library.search("low", k=60) == library.search("low", k=60, blend=blend)
    assert Library.open(trained_root).search("low", k=60) == Library.open(trained_root).search(
        "low", k=60, blend=0.5
    )


@pytest.mark.parametrize("text", ["", "  \n"])
def test_empty_text_is_refused(trained: Library, text: str) -> None:
    with pytest.raises(
        DataError, match="the search text is empty; say what the music should be like"
    ):
        trained.search(text)


def test_counts_below_one_are_refused(trained: Library, user: str) -> None:
    with pytest.raises(DataError, match="k 0 and per_artist None must be at least 1"):
        trained.search("low", k=0)
    with pytest.raises(DataError, match="k -1 and per_artist None must be at least 1"):
        trained.recommend(user, k=-1)
    with pytest.raises(DataError, match="k 10 and per_artist 0 must be at least 1"):
        trained.similar("track-0001", per_artist=0)


@pytest.mark.parametrize("track", ["nope", "nope.mp3", "."])
def test_neither_track_nor_file_is_refused(trained: Library, track: str) -> None:
    with pytest.raises(
        DataError, match=f"'{track}' is neither a track of the index nor an audio file"
    ):
        trained.similar(track)


def test_unknown_listener_is_refused(trained: Library) -> None:
    with pytest.raises(DataError, match="listener 'nobody' is not in the log"):
        trained.recommend("nobody")


def test_listener_that_was_hashed_is_found_by_name(trained_copy: Library, user: str) -> None:
    wanted = _ids(trained_copy.recommend(user, k=5))
    log = read_interactions(trained_copy.folder)
    hidden = pseudonym(trained_copy.folder, user)
    log.with_columns(pl.col("user_id").replace({user: hidden})).write_parquet(
        trained_copy.folder.interactions
    )
    assert _ids(trained_copy.recommend(user, k=5)) == wanted
    assert _ids(trained_copy.recommend(hidden, k=5)) == wanted


def test_blend_outside_its_range_is_refused(trained: Library) -> None:
    with pytest.raises(DataError, match="blend 2 must lie between 0"):
        trained.search("low", blend=2)


def test_library_without_an_index_or_a_log_says_what_to_run(
    trained_copy: Library, user: str
) -> None:
    trained_copy.folder.interactions.unlink()
    with pytest.raises(
        LibraryError,
        match="has no listening history; run: ponticello import-history FILE",
    ):
        trained_copy.recommend(user)
    (trained_copy.folder.index / "CURRENT").unlink()
    with pytest.raises(LibraryError, match="the library has no index yet; run: ponticello embed"):
        trained_copy.search("low")


def test_embedding_again_computes_nothing_and_names_the_same_generation(
    trained_copy: Library,
) -> None:
    before = trained_copy.index.vectors.copy()
    calls: list[tuple[str, int, int]] = []
    done = trained_copy.embed(
        "semantic", "preference", on_progress=lambda *call: calls.append(call)
    )
    assert (done.n_tracks, done.n_new, calls) == (60, 0, [])
    assert done.generation.name == (trained_copy.folder.index / "CURRENT").read_text().strip()
    assert np.array_equal(trained_copy.index.vectors, before)
    assert [space.space_id for space in trained_copy.index.spaces] == [
        space_id(trained_copy.folder.run(run)) for run in ("semantic", "preference")
    ]


def test_answers_hold_a_recording_once_unless_asked_for_copies(
    trained_copy: Library, user: str
) -> None:
    """A tune of 12 s and its Vorbis copy, of which the listener has met one."""
    folder, root = trained_copy.folder, trained_copy.folder.root
    generator, notes = np.random.default_rng(0), []
    for length in generator.integers(2000, 6000, 48):
        time = np.arange(length) / 16_000
        notes.append(
            0.3 * np.sin(2 * np.pi * 110 * 2 ** generator.uniform(0, 3) * time) * np.exp(-3 * time)
        )
    sound = np.concatenate(notes)
    soundfile.write(root / "tune.wav", sound, 16_000)
    soundfile.write(root / "copy.ogg", 0.5 * sound, 16_000)
    rows = {
        "track_id": ["copy", "tune"],
        "path": ["copy.ogg", "tune.wav"],
        "title": ["the tune"] * 2,
    }
    merge_tracks(folder, pl.DataFrame(rows), "two more")
    log = read_interactions(folder).filter(pl.col(USER_ID) == user).head(1)
    merge_interactions(folder, log.with_columns(pl.lit("tune").alias(TRACK_ID)), "one more")
    prepare_features(folder, audio_files(folder))
    trained_copy.embed("semantic", "preference")
    once, every = Library.open(root), Library.open(root, ["search.deduplicate_recordings=false"])
    both, all_tracks = {"copy", "tune"}, set(once.index.track_ids)
    assert [once.index.recordings[once.index.rows[track_id]] for track_id in ("copy", "tune")] == [
        "copy",
        "copy",
    ]
    for found in (once.search("low dark", k=100), every.search("low dark", k=100)):
        assert all(
            result.semantic + result.preference == pytest.approx(result.score) for result in found
        )
    shown = _ids(once.search("low dark", k=100))
    first = next(track_id for track_id in _ids(every.search("low dark", k=100)) if track_id in both)
    assert set(shown) == all_tracks - (both - {first})
    assert [i for i in _ids(every.search("low dark", k=100)) if i not in both - {first}] == shown
    assert set(_ids(every.similar("tune", k=100))) == all_tracks - {"tune"}
    assert set(_ids(once.similar("tune", k=100))) == all_tracks - both
    assert "copy" in _ids(every.recommend(user, k=100))
    assert not both & set(_ids(once.recommend(user, k=100)))


def test_progress_names_the_run(trained_copy: Library) -> None:
    for run in ("semantic", "preference"):
        shutil.rmtree(trained_copy.folder.run(run) / "vectors")
    calls: list[tuple[str, int, int]] = []
    done = trained_copy.embed(
        "semantic", "preference", on_progress=lambda *call: calls.append(call)
    )
    assert calls == [("embedding by semantic", 60, 60), ("embedding by preference", 60, 60)]
    assert (done.n_tracks, done.n_new) == (60, 120)


def test_index_before_stage_two_answers_by_meaning_alone(trained_copy: Library) -> None:
    wanted = _ids(trained_copy.search("low dark", k=60, blend=0.0))
    trained_copy.embed("semantic", with_preference=False)
    library = Library.open(trained_copy.folder.root)
    found = library.search("low dark", k=60)
    assert _ids(found) == wanted
    assert {result.preference for result in found} == {0.0}
    with pytest.raises(LibraryError, match="blend must be 0: there is one space and no blend"):
        library.search("low dark", blend=0.5)


def test_embedding_takes_up_a_catalogue_that_grew(trained_copy: Library) -> None:
    """As when another process imports while a notebook keeps its library."""
    folder = trained_copy.folder
    tracks = read_tracks(folder)
    tracks.head(30).write_parquet(folder.tracks)
    early = Library.open(folder.root)
    assert len(early.search("slow", k=100)) == 30
    tracks.write_parquet(folder.tracks)
    early.embed("semantic", "preference")
    assert len(early.search("slow", k=100)) == 60


def test_embedding_with_another_run_asks_its_model_from_then_on(trained_copy: Library) -> None:
    trained_copy.embed("semantic", with_preference=False)
    trained_copy.search("low dark")
    trained_copy.embed("semantic", "preference")
    wanted = Library.open(trained_copy.folder.root).search("low dark", k=60, blend=1.0)
    assert trained_copy.search("low dark", k=60, blend=1.0) == wanted


def test_creating_and_opening_by_the_public_names(tmp_path: Path) -> None:
    made = ponticello.Library.create(tmp_path / "lib", "tiny")
    assert ponticello.Library.open(tmp_path / "lib").folder == made.folder
    opened = ponticello.Library.open(str(tmp_path / "lib"), ["search.blend=0.2"])
    assert opened.folder.config.search.blend == 0.2
    with pytest.raises(ConfigError, match=r"setting 'search\.blend'"):
        ponticello.Library.open(tmp_path / "lib", ["search.blend=2"])


def test_vectors_of_a_track_rank_as_the_track_does(trained: Library) -> None:
    query = trained.index.track_query(["track-0007"])
    results = trained.search_vectors(query, k=20, blend=0.4, exclude=["track-0007"])
    assert _ids(results) == _ids(trained.similar("track-0007", k=20, blend=0.4))


def test_a_sound_is_heard_once_by_models_that_read_the_same(
    trained: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the query is what each model alone makes of the file."""
    heard: list[object] = []
    frames = ponticello.HTCL.extract_features

    def counted(model: ponticello.HTCL, item: str | Path | np.ndarray) -> np.ndarray:
        heard.append(item)
        return frames(model, item)

    path = _audio(trained, "track-0007")
    alone = [model.encode_audio([path]) for model in trained.models]
    monkeypatch.setattr(ponticello.HTCL, "extract_features", counted)
    query = sound_query(trained.models, path)
    assert heard == [path]
    np.testing.assert_array_equal(query.vectors[0], alone[0])
    np.testing.assert_array_equal(query.vectors[1], alone[1])
