"""Where the departure from a frozen front end begins: each of its numbers changed, on validation tracks and listeners.

    python bench/departure.py PATH/TO/freemusic --work WORK_FOLDER --seeds 5

Worlds as in `ablate.py`; nothing is trained: a model that has only been fitted to its front end, and then set to the
regression (`train/departure.py`). Asked are listeners of the validation window for validation tracks that nobody has
played, never test. The row "regression to ALS factors" reads the same vectors and tunes itself on the same listeners.
Prints Markdown: the table of `docs/benchmarks.md`. SIMULATED listeners.
"""

import argparse
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from freemusic import prepared, world
from measured import Measured, table
from ponticello.config import Config
from ponticello.data.catalog import read_tracks
from ponticello.data.columns import TRACK_ID
from ponticello.data.dataset import pair_dataset
from ponticello.data.interactions import read_interactions
from ponticello.data.pairs import read_pairs
from ponticello.data.splits import before_test, load_splits, one_window_earlier
from ponticello.data.store import FrameStore
from ponticello.data.text import fused_texts
from ponticello.evaluate.contenders import Contenders
from ponticello.evaluate.ranking import Scorer, rank_task
from ponticello.evaluate.scorers import by_profile
from ponticello.evaluate.tasks import COLD, next_tracks
from ponticello.library import Folder
from ponticello.model.frame_encoder import AnchoredHead, FrameEncoder, fit_front_end
from ponticello.model.htcl import HTCL
from ponticello.model.musicnn_frames import BLOCKS
from ponticello.train import departure
from ponticello.train.departure import begin_departure, listening_factors
from ponticello.train.inputs import likes_to_learn, text_states_of

METRICS = ("NDCG@10", "AUC")
DEFAULT = "as it is, fused"
SPECTRA = (0.0, 0.35, 1.0)  # shares of the front end's spectrum instead of its 0.7
# Constants of train/departure.py, or settings, that a row changes.
CONSTANTS: dict[str, Mapping[str, float]] = {
    "SHRINKAGE 0": {"SHRINKAGE": 0.0},
    "SHRINKAGE 1": {"SHRINKAGE": 1.0},
    "RIDGE 0.3": {"RIDGE": 0.3},
    "RIDGE 3": {"RIDGE": 3.0},
    "LENGTH 1": {"LENGTH": 1.0},
    "LENGTH 4": {"LENGTH": 4.0},
    "ROOM 1 (lengths lost)": {"ROOM": 1e-6},
    "ROOM 4": {"ROOM": 4.0},
}
SETTINGS: dict[str, dict[str, Any]] = {
    "taste_dim 8": {"heads": {"taste_dim": 8}},
    "taste_dim 32": {"heads": {"taste_dim": 32}},
}


@contextmanager
def changed(constants: Mapping[str, float]) -> Iterator[None]:
    """`train/departure.py` with other constants."""
    before = {name: getattr(departure, name) for name in constants}
    for name, value in constants.items():
        setattr(departure, name, value)
    yield
    for name, value in before.items():
        setattr(departure, name, value)


class Begun:
    """One library: a model fitted to its front end, and what its validation listeners make of a beginning."""

    def __init__(self, folder: Folder) -> None:
        tracks, splits = read_tracks(folder).sort(TRACK_ID), load_splits(folder)
        assert splits is not None
        self.folder, self.tracks, self.ids = folder, tracks, tracks[TRACK_ID].to_list()
        self.store, self.splits, self.log = FrameStore(folder.frames), splits, read_interactions(folder)
        past = before_test(splits, self.log)
        _, self.cold = next_tracks(
            past, one_window_earlier(splits), set(self.ids), folder.config, cold_role="validation"
        )
        means = {track_id: self.store.read(track_id).mean(axis=0, dtype=np.float64) for track_id in self.ids}
        self.training = np.array([means[track_id] for track_id in self.ids if splits.roles[track_id] == "train"])

    def vectors(
        self, constants: Mapping[str, float], with_names: bool = False, spectrum: float = BLOCKS[-1][1]
    ) -> dict[str, np.ndarray]:
        """(n, d) unit vectors before and after the departure has begun: "heard", "audio" and "fused".

        spectrum: how much of a track's vector the front end's last block is, beside its taggers' 1 each.
        """
        config = self.folder.config
        model = HTCL.from_settings(config)
        assert isinstance(model.audio_encoder, FrameEncoder)
        assert isinstance(model.audio_head, AnchoredHead)
        fit_front_end(model.audio_encoder, model.audio_head, self.training, (*BLOCKS[:-1], (BLOCKS[-1][0], spectrum)))
        texts = fused_texts(self.tracks, "logmel" if with_names else config.front_end)
        frames = [self.store.read(track_id) for track_id in self.ids]
        heard = model.encode_mels(frames)
        dataset = pair_dataset(self.store, texts, read_pairs(self.folder))
        with changed(constants):
            likes = likes_to_learn(self.folder, self.splits)
            factors = listening_factors(dataset, likes, config.heads.taste_dim, config.pairs.min_listeners)
            begin_departure(model, dataset, factors, text_states_of(model, dataset)[:, 0])
        states = model.encode_text_states([texts[track_id] for track_id in self.ids])
        return {"heard": heard, "audio": model.encode_mels(frames), "fused": model.encode_fused(frames, states)}

    def asked(self, vectors: np.ndarray) -> dict[str, np.ndarray]:
        """A number a listener in each of `METRICS`."""
        by_id = dict(zip(self.ids, vectors, strict=True))
        return self._ranked(by_profile(self.cold, [(1.0, by_id)], self.folder.config.search))

    def regressed(self, vectors: np.ndarray) -> dict[str, np.ndarray]:
        """As `asked`, of ALS factors regressed from the vectors, at the grid's best for these very listeners."""
        config = self.folder.config
        only = config.evaluate.model_copy(update={"baselines": ("vectors to factors",)})
        content = dict(zip(self.ids, vectors, strict=True))
        config = config.model_copy(update={"evaluate": only})
        others = Contenders(self.log, self.splits, content, {}, config, 0)
        point = others._point("vectors to factors", COLD)
        return self._ranked(others._scorer("vectors to factors", point, others.early, self.cold))

    def _ranked(self, scorer: Scorer) -> dict[str, np.ndarray]:
        metrics = rank_task(self.cold, scorer, 10).metrics
        return {name: metrics[name] for name in METRICS}


def run_seed(root: Path, base: Folder, source: Path, seed: int) -> Measured:
    """Every row of one seed's world."""
    found: Measured = {}

    def begun(settings: dict[str, Any]) -> Begun:
        shutil.rmtree(root, ignore_errors=True)
        return Begun(world(root, base, source, seed, settings))

    one = begun({})
    own = one.vectors({})
    found["the front end alone"] = one.asked(own["heard"])
    found["regression to ALS factors"] = one.regressed(own["heard"])
    found["as it is, audio"] = one.asked(own["audio"])
    found[DEFAULT] = one.asked(own["fused"])
    found["title, artist and album fused too"] = one.asked(one.vectors({}, with_names=True)["fused"])
    for share in SPECTRA:
        shared = one.vectors({}, spectrum=share)
        found[f"spectrum {share:g}, the front end alone"] = one.asked(shared["heard"])
        found[f"spectrum {share:g}"] = one.asked(shared["fused"])
    for name, constants in CONSTANTS.items():
        found[name] = one.asked(one.vectors(constants)["fused"])
    for name, settings in SETTINGS.items():
        found[name] = (other := begun(settings)).asked(other.vectors({})["fused"])
    return found


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", type=Path, help="the freemusic folder")
    parser.add_argument("--work", type=Path, required=True, help="where libraries are made")
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    assert Config.from_preset("tiny").front_end == "musicnn"
    base = prepared(options.work / "base", options.source, 2)
    seeds = range(1, options.seeds + 1)
    print(table([run_seed(options.work / "departure", base, options.source, seed) for seed in seeds], DEFAULT))


if __name__ == "__main__":
    main()
