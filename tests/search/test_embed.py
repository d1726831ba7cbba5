"""Vectors of a library: computed once, resumed, renewed when a mel changes, and never of another
model.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import soundfile
from safetensors.numpy import load_file, save_file

from ponticello.errors import CheckpointError, PonticelloError
from ponticello.features.prepare import prepare_features
from ponticello.features.store import MANIFEST_SCHEMA, FeatureStore, write_manifest
from ponticello.library import Library
from ponticello.model.htcl import HTCL
from ponticello.model.saving import CHECKSUMS, space_id
from ponticello.search.embed import embed_library
from ponticello.storage.schema import PATH, TRACK_ID
from ponticello.tracks.catalog import audio_files, audio_path
from tests.synthetic import SAMPLE_RATE, synthesize


@pytest.fixture
def run(trained_copy: Library) -> Path:
    """The stage-one run of a library that may be changed, without its vectors."""
    run = trained_copy.folder.run("semantic")
    shutil.rmtree(run / "vectors")
    return run


@pytest.fixture
def store(trained_copy: Library) -> FeatureStore:
    return FeatureStore(trained_copy.folder.mels)


def _no_model(*_: object) -> HTCL:
    raise AssertionError("nothing was to be computed")


def _change_weight(run: Path) -> None:
    """Nudges the weights, as training the run again would."""
    weights = load_file(run / "model.safetensors")
    weights["logit_scales.audio_text"] = np.asarray(
        weights["logit_scales.audio_text"] + np.float32(0.5)
    )
    save_file(weights, run / "model.safetensors", metadata={"format": "pt"})
    (run / CHECKSUMS).unlink(missing_ok=True)


def _change_setting(run: Path, part: str, name: str, value: Any) -> None:
    record = json.loads((run / "config.json").read_text(encoding="utf-8"))
    record["settings"][part][name] = value
    (run / "config.json").write_text(json.dumps(record), encoding="utf-8")
    (run / CHECKSUMS).unlink(missing_ok=True)


def test_vectors_are_what_the_model_says_of_each_mel_alone(run: Path, store: FeatureStore) -> None:
    vectors, n_new = embed_library(run, store)
    model = HTCL.from_pretrained(run)
    assert n_new == 60
    assert vectors.track_ids == store.track_ids
    assert vectors.space_id == space_id(run)
    assert vectors.matrix.dtype == np.float32
    for row in (0, 17, 59):
        alone = model.encode_features([store.read(vectors.track_ids[row])])[0]
        assert np.allclose(vectors.matrix[row], alone, atol=1e-5)
    assert np.allclose(np.linalg.norm(vectors.matrix, axis=1), 1, atol=1e-5)


def test_second_call_computes_nothing_and_gives_the_same(
    run: Path, store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = embed_library(run, store)
    monkeypatch.setattr("ponticello.search.embed.HTCL.from_pretrained", _no_model)
    again, n_new = embed_library(run, store)
    assert n_new == 0
    assert again.track_ids == first.track_ids
    assert np.array_equal(again.matrix, first.matrix)


def test_two_computations_give_the_same_bytes(run: Path, store: FeatureStore) -> None:
    first, _ = embed_library(run, store)
    shutil.rmtree(run / "vectors")
    second, _ = embed_library(run, store)
    assert np.array_equal(first.matrix, second.matrix)


@pytest.mark.parametrize("batch_size", [1, 7, 60])
def test_batch_size_changes_nothing(
    run: Path, store: FeatureStore, trained: Library, batch_size: int
) -> None:
    wanted, _ = embed_library(trained.folder.run("semantic"), store)
    found, n_new = embed_library(run, store, batch_size=batch_size)
    assert n_new == 60
    assert np.abs(found.matrix - wanted.matrix).max() < 1e-5


def test_interrupted_call_goes_on_with_what_was_written(
    run: Path, store: FeatureStore, trained: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts of 25 tracks: the first call ends after two, so ten tracks are left."""
    monkeypatch.setattr("ponticello.search.embed.PART_SIZE", 25)
    seen = []

    def stop_at_50(done: int, total: int) -> None:
        seen.append((done, total))
        if done == 50:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed_library(run, store, stop_at_50)
    vectors, n_new = embed_library(run, store, lambda done, total: seen.append((done, total)))
    assert seen == [(25, 60), (50, 60), (60, 60)]
    assert n_new == 10
    parts = sorted(path.name for path in (run / "vectors" / space_id(run)).iterdir())
    assert [name[:10] for name in parts] == ["part-00000", "part-00001", "part-00002"]
    wanted, _ = embed_library(trained.folder.run("semantic"), store)
    assert vectors.track_ids == wanted.track_ids
    assert np.abs(vectors.matrix - wanted.matrix).max() < 1e-5


def _sources(library: Library) -> dict[str, Path]:
    return {
        row[TRACK_ID]: audio_path(library.folder, row[PATH])
        for row in library.tracks.iter_rows(named=True)
    }


def test_only_a_changed_mel_is_embedded_again(trained_copy: Library, tmp_path: Path) -> None:
    run = trained_copy.folder.run("semantic")
    before, n_new = embed_library(run, FeatureStore(trained_copy.folder.mels))
    assert n_new == 0
    sound = synthesize(np.array([1.0, 1.0, 1.0, -1.0, 0.0]), 3.0, np.random.default_rng(1))
    soundfile.write(tmp_path / "new.wav", sound, SAMPLE_RATE)
    prepared = prepare_features(
        trained_copy.folder, {**_sources(trained_copy), "track-0003": tmp_path / "new.wav"}
    )
    assert prepared.n_new == 1
    store = FeatureStore(trained_copy.folder.mels)
    after, n_new = embed_library(run, store)
    assert n_new == 1
    changed = np.abs(after.matrix - before.matrix).max(axis=1) > 0
    assert [
        track_id for track_id, is_new in zip(after.track_ids, changed, strict=True) if is_new
    ] == ["track-0003"]
    assert np.allclose(
        after.matrix[3],
        HTCL.from_pretrained(run).encode_features([store.read("track-0003")])[0],
        atol=1e-5,
    )


def test_track_without_a_mel_has_no_vector(trained_copy: Library) -> None:
    sources = _sources(trained_copy)
    del sources["track-0003"]
    assert prepare_features(trained_copy.folder, sources).n_removed == 1
    vectors, n_new = embed_library(
        trained_copy.folder.run("semantic"), FeatureStore(trained_copy.folder.mels)
    )
    assert n_new == 0
    assert vectors.track_ids == sorted(sources)


def test_space_changes_with_weights_and_with_what_happens_to_the_input(run: Path) -> None:
    first = space_id(run)
    assert len(first) == 12
    assert space_id(run) == first
    _change_setting(run, "mel", "top_db", 60.0)
    second = space_id(run)
    _change_weight(run)
    assert len({first, second, space_id(run)}) == 3


def test_tracks_longer_than_a_crop_are_heard_alike_from_their_files_and_in_the_library(
    trained_copy: Library,
) -> None:
    """Tracks of 4 s by a tower that hears 2 s: `embed` reads the length from the model's own
    config.json.
    """
    run, store = trained_copy.folder.run("semantic"), FeatureStore(trained_copy.folder.mels)
    whole, _ = embed_library(run, store)
    _change_setting(run, "audio", "crop_seconds", 2.0)
    in_parts, n_new = embed_library(run, store)
    assert n_new == len(store)
    files = audio_files(trained_copy.folder)
    heard = HTCL.from_pretrained(run).encode_audio(
        [files[track_id] for track_id in in_parts.track_ids]
    )
    np.testing.assert_allclose(heard, in_parts.matrix, atol=1e-5)
    assert np.abs(whole.matrix - in_parts.matrix).max() > 1e-3


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("semantic", "epochs", 99.0),
        ("preference", "seed", 1),
        ("search", "blend", 0.1),
        ("splits", "seed", 4),
    ],
)
def test_space_does_not_change_with_how_it_was_trained_or_asked(
    run: Path, part: str, name: str, value: Any
) -> None:
    first = space_id(run)
    _change_setting(run, part, name, value)
    assert space_id(run) == first


def test_spaces_of_two_runs_differ(trained: Library) -> None:
    assert space_id(trained.folder.run("semantic")) != space_id(trained.folder.run("preference"))


@pytest.mark.parametrize("missing", ["model.safetensors", "config.json", ""])
def test_missing_model_says_what_to_run(run: Path, store: FeatureStore, missing: str) -> None:
    if missing:
        (run / missing).unlink()
    else:
        shutil.rmtree(run)
    with pytest.raises(
        CheckpointError, match="semantic holds no model; train it with: ponticello train"
    ):
        embed_library(run, store)


def test_new_weights_start_a_new_folder_of_vectors(run: Path, store: FeatureStore) -> None:
    embed_library(run, store)
    _change_weight(run)
    _, n_new = embed_library(run, store)
    assert n_new == 60
    assert len(list((run / "vectors").iterdir())) == 2


def test_text_search_refuses_a_run_trained_since_and_names_both_spaces(
    trained_copy: Library,
) -> None:
    run = trained_copy.folder.run("preference")
    held = space_id(run)
    _change_weight(run)
    wanted = (
        f"run 'preference' is now space {space_id(run)}, the index holds {held}; "
        "run: ponticello embed"
    )
    with pytest.raises(CheckpointError, match=wanted):
        trained_copy.search("low dark slow")
    assert len(trained_copy.similar("track-0000", k=3)) == 3  # needs no model
    trained_copy.embed("semantic", "preference")
    assert len(trained_copy.search("low dark slow", k=3)) == 3


def test_mels_of_other_settings_than_the_models_are_refused(trained_copy: Library) -> None:
    root = trained_copy.folder.root
    library = Library.open(root, ["mel.hop_length=768"])
    sources = dict(list(_sources(library).items())[:4])
    assert prepare_features(library.folder, sources).n_new == 4
    with pytest.raises(PonticelloError, match="mel"):
        embed_library(library.folder.run("semantic"), FeatureStore(library.folder.mels))


def test_store_without_any_mel_is_refused(run: Path, tmp_path: Path) -> None:
    (tmp_path / "mels").mkdir()
    write_manifest(tmp_path / "mels", pl.DataFrame(schema=MANIFEST_SCHEMA))
    with pytest.raises(PonticelloError, match="ponticello prepare"):
        embed_library(run, FeatureStore(tmp_path / "mels"))


def test_truncated_part_is_refused_or_computed_again(run: Path, store: FeatureStore) -> None:
    wanted, _ = embed_library(run, store)
    (part,) = (run / "vectors").rglob("part-*.parquet")
    part.write_bytes(part.read_bytes()[:100])
    try:
        found, n_new = embed_library(run, store)
    except CheckpointError:
        return
    assert n_new == 60
    assert np.array_equal(found.matrix, wanted.matrix)


def test_flipped_bit_in_a_part_is_refused_or_computed_again(run: Path, store: FeatureStore) -> None:
    wanted, _ = embed_library(run, store)
    (part,) = (run / "vectors").rglob("part-*.parquet")
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 0x10
    part.write_bytes(content)
    try:
        found, _ = embed_library(run, store)
    except CheckpointError:
        return
    assert np.abs(found.matrix - wanted.matrix).max() < 1e-5


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model.safetensors", "abc"),
        ("config.json", "{"),
        ("config.json", "{}"),
        ("config.json", "[" * 100_000),
    ],
)
def test_damaged_model_is_refused(run: Path, store: FeatureStore, name: str, content: str) -> None:
    (run / name).write_text(content, encoding="utf-8")
    with pytest.raises(CheckpointError):
        embed_library(run, store)
