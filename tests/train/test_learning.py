"""Planted taste is found by stage two on tracks nobody has played, and shuffled listeners teach
nothing.
"""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ponticello.config import SimulationConfig
from ponticello.datasets.simulated import simulate_listeners
from ponticello.evaluate.retrieval import retrieval_figures
from ponticello.evaluate.tasks import next_tracks, rank_task, score_by_profile
from ponticello.features.prepare import prepare_features
from ponticello.features.store import FeatureStore
from ponticello.library import Library
from ponticello.listening.importers.run import import_history
from ponticello.listening.log import read_interactions
from ponticello.metrics.bootstrap import bootstrap_mean
from ponticello.pairs.mine import mine_library
from ponticello.search.embed import embed_library
from ponticello.splits.splits import load_splits
from ponticello.storage.schema import PATH, PLAYED_AT, TRACK_ID
from ponticello.tracks.catalog import audio_path, import_tracks, read_tracks
from ponticello.train.preference import train_preference
from ponticello.train.semantic import train_semantic
from tests.logmel import toml, with_changes
from tests.synthetic import make_catalogue

SEEDS = (0, 1, 2)
CATALOGUE = make_catalogue(n_tracks=200, n_artists=100, seconds=4.0, seed=5)


def build(root: Path, text_encoder: Path) -> Library:
    """200 tracks; texts tell three of the five traits that listeners care about, so taste can add
    to meaning.
    """
    Library.create(root, "tiny")
    (root / "ponticello.toml").write_text(
        toml(with_changes(text={"name": text_encoder.as_posix()})), "utf-8"
    )
    folder = Library.open(root).folder
    import_tracks(folder, CATALOGUE.write(root / "sounds"))
    ids = CATALOGUE.tracks[TRACK_ID].to_list()
    simulate_listeners(ids, CATALOGUE.traits, SimulationConfig(n_listeners=300)).write_csv(
        root / "log.csv"
    )
    import_history(folder, root / "log.csv", pseudonyms=False)
    places = {
        row[TRACK_ID]: audio_path(folder, row[PATH])
        for row in read_tracks(folder).iter_rows(named=True)
    }
    with folder.lock():
        prepare_features(folder, places)
        mine_library(folder)
    return Library(folder)


def shuffle_listeners(library: Library) -> None:
    """Deals the training window's tracks to its events at random: popularity stays, taste is gone;
    mines again.
    """
    folder = library.folder
    log, splits = read_interactions(folder), load_splits(folder)
    assert splits is not None
    early = log[PLAYED_AT] < splits.validation_until
    dealt = log.filter(early)[TRACK_ID].sample(fraction=1.0, shuffle=True, seed=0)
    shuffled = pl.concat(
        [log.filter(early).with_columns(dealt.alias(TRACK_ID)), log.filter(~early)]
    )
    shuffled.write_parquet(folder.interactions)
    with folder.lock():
        mine_library(folder)
    log.write_parquet(folder.interactions)


def cold_ndcg(library: Library, run: str) -> np.ndarray:
    """NDCG@10 of each listener over the cold tracks."""
    folder = library.folder
    store, splits = FeatureStore(folder.mels), load_splits(folder)
    assert splits is not None
    vectors, _ = embed_library(folder.run(run), store)
    _, cold = next_tracks(read_interactions(folder), splits, set(vectors.track_ids), folder.config)
    by_id = dict(zip(vectors.track_ids, vectors.matrix, strict=True))
    scorer = score_by_profile(cold, [(1.0, by_id)], folder.config.search)
    return rank_task(cold, scorer, 10).metrics["NDCG@10"]


def gain(root: Path, run: str) -> np.ndarray:
    """Stage two minus stage one, a listener, as the mean over the seeds."""
    gains = []
    for seed in SEEDS:
        library = Library.open(root, [f"semantic.seed={seed}", f"preference.seed={seed}"])
        one = train_semantic(library.folder, f"semantic-{seed}", retrieval_figures)
        two = train_preference(library.folder, f"{run}-{seed}", one.folder.name, retrieval_figures)
        gains.append(cold_ndcg(library, two.folder.name) - cold_ndcg(library, one.folder.name))
    mean: np.ndarray = np.mean(gains, axis=0)
    return mean


@pytest.mark.long
def test_stage_two_finds_planted_taste_in_cold_tracks_and_none_in_shuffled_listeners(
    tmp_path: Path, text_encoder_folder: Path
) -> None:
    """The 95 % interval of the gain over listeners lies above zero; trained on shuffled ones it
    does not.
    """
    library = build(tmp_path / "library", text_encoder_folder)
    found = gain(library.folder.root, "taste")
    interval = bootstrap_mean(found, None, 1000, 0)
    assert interval.low > 0, interval
    shuffle_listeners(library)
    found = gain(library.folder.root, "shuffled")
    shuffled = bootstrap_mean(found, None, 1000, 0)
    assert shuffled.low <= 0, shuffled
