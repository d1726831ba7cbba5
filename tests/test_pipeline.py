"""The whole pipeline with `Library` alone: from a folder of sounds to recommendations."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

import ponticello
from ponticello.config import SimulationConfig
from ponticello.datasets.simulated import simulate_listeners
from ponticello.library import Library
from tests.conftest import settings_toml
from tests.synthetic import SyntheticCatalogue

USER = "simulated-0001"


def _write_metadata(table: Path, library: Library, file: Path) -> list[str]:
    """Writes the rows of `table` under the ids that the scan gave; returns the ids in order."""
    tracks = pl.read_csv(table)
    scanned = library.tracks.select("path", "track_id").iter_rows()
    ids_by_name = {Path(path).name: track_id for path, track_id in scanned}
    track_ids = [ids_by_name[name] for name in tracks["path"]]
    tracks.drop("path").with_columns(track_id=pl.Series(track_ids)).write_csv(file)
    return track_ids


def test_library_goes_from_files_to_recommendations_without_the_command(
    tmp_path: Path, text_encoder_folder: Path, catalogue: SyntheticCatalogue
) -> None:
    root = tmp_path / "library"
    table = catalogue.write(tmp_path / "music")
    library = ponticello.Library.create(root, "tiny")
    assert (len(library), repr(library)) == (
        0,
        f"Library('{root}': 0 tracks, 0 events, spaces none)",
    )
    (root / "ponticello.toml").write_text(settings_toml(text_encoder_folder), encoding="utf-8")
    library = ponticello.Library.open(root)
    steps: list[tuple[str, int, int]] = []

    scanned = library.scan(tmp_path / "music", n_workers=1, on_progress=lambda *s: steps.append(s))
    assert (scanned.n_new, len(library), steps[-1]) == (60, 60, ("reading files", 60, 60))
    ids = _write_metadata(table, library, tmp_path / "metadata.csv")
    assert library.import_tracks(tmp_path / "metadata.csv").n_updated == 60
    log = simulate_listeners(ids, catalogue.traits, SimulationConfig(n_listeners=80))
    log.write_csv(tmp_path / "history.csv")
    imported = library.import_history(tmp_path / "history.csv", pseudonyms=False)
    assert (imported.n_new, imported.n_matched) == (log.height, log.height)

    assert library.prepare(n_workers=1).n_new == 60
    assert library.mine_pairs().n_pairs > 0
    semantic = library.train_semantic(on_progress=lambda *step: steps.append(step))
    assert (semantic.stage, semantic.folder) == ("semantic", root / "runs" / "semantic")
    assert steps[-1][0].startswith("stage semantic  loss ")
    assert steps[-1][1:] == (semantic.n_steps, semantic.n_steps)
    assert library.train_preference().stage == "preference"
    embedded = library.embed()
    assert (embedded.n_tracks, embedded.n_new) == (60, 120)
    assert (embedded.semantic_run, embedded.preference_run) == ("semantic", "preference")
    assert repr(library) == (
        f"Library('{root}': 60 tracks, {log.height:,} events, spaces semantic, preference)"
    )

    track_id = library.search("low dark slow", k=3)[0].track_id
    assert track_id in library
    assert library[track_id]["title"]
    assert track_id not in [result.track_id for result in library.similar(track_id, k=5)]
    played = set(log.filter(pl.col("user_id") == USER)["track_id"])
    recommended = {result.track_id for result in library.recommend(USER, k=10)}
    assert len(recommended) == 10
    assert not recommended & played
    assert len(library.audience(track_id, k=3)) == 3
    evaluation = library.evaluate(labels=["tags"], on_progress=lambda *step: steps.append(step))
    assert evaluation.page.is_file()
    assert evaluation.summary.figures
    assert steps[-1][1:] == (0, 0)
    assert library.export_vectors(tmp_path / "tracks.parquet").height == 60


def test_row_of_an_unknown_track_is_a_key_error(trained: Library) -> None:
    assert trained["track-0007"]["track_id"] == "track-0007"
    assert len(list(trained)) == len(trained) == 60
    assert "nope" not in trained
    with pytest.raises(KeyError, match="track 'nope' is not in "):
        _ = trained["nope"]


TRAIN = """
import sys
from ponticello.library import Library

def wait(*step):
    print("training", flush=True)
    sys.stdin.readline()

Library.open(sys.argv[1]).train_semantic(on_progress=wait)
"""


def test_two_trainings_of_one_library_are_refused(
    make_library: Callable[[Path], Library], tmp_path: Path
) -> None:
    library = make_library(tmp_path / "library")
    with subprocess.Popen(
        [sys.executable, "-c", TRAIN, library.folder.root],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "training\n"
        holder = rf"\(training run 'semantic', process {child.pid} on .+\)"
        for method in (
            library.train_semantic,
            library.train_preference,
            library.mine_pairs,
            library.prepare,
            library.embed,
        ):
            with pytest.raises(ponticello.LibraryError, match=holder):
                method()
        with pytest.raises(ponticello.LibraryError, match=holder):
            library.forget_user("simulated-0001")
        child.kill()
    with library.folder.lock():
        assert not (library.folder.run("semantic") / "run.json").exists()
