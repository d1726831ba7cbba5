"""Files that are no music, or not any more, among files that are."""

import csv
import random
import re
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import soundfile

from ponticello.features.prepare import prepare_features
from ponticello.features.store import FeatureStore
from ponticello.storage.layout import LibraryPaths, create_library, open_library
from ponticello.tracks.catalog import audio_files, read_tracks
from ponticello.tracks.scan import scan_folder
from tests.malformed import make_malformed
from tests.robustness.children import in_child
from tests.robustness.rows import Outcome, Row, Trial, require

N_GOOD, N_AT_ONCE, WORKERS = 12, 5_000, 2
LIMITS = "[limits]\nseconds = 5\n"  # of processor time a file; 20 by the clock
HOUR_S = 3_600.0


def _library(root: Path, music: Path) -> LibraryPaths:
    """Makes a library over `music` with the good sounds, scanned and prepared."""
    music.mkdir(parents=True, exist_ok=True)
    for number in range(N_GOOD):
        samples = np.random.default_rng(1_000 + number).normal(0, 0.1, 16_000)
        soundfile.write(music / f"good {number}.flac", samples, 16_000, format="FLAC")
    create_library(root, "tiny")
    (root / "ponticello.toml").write_text(f'preset = "tiny"\n{LIMITS}', encoding="utf-8")
    folder = open_library(root)
    with folder.lock():
        scan_folder(folder, music, workers=WORKERS)
        prepare_features(folder, audio_files(folder), workers=WORKERS)
    return folder


def _rows(folder: LibraryPaths, track_ids: list[str]) -> list[dict[str, object]]:
    tracks = (
        read_tracks(folder)
        .filter(pl.col("track_id").is_in(track_ids))
        .drop("path")
        .sort("track_id")
    )
    return tracks.to_dicts()


def _beside(work: Path, n: int, seed: int) -> dict[str, object]:
    """Good files alone in one library, and beside `n` malformed ones in another; what became of
    each of those.
    """
    alone = _library(work / "alone", work / "good")
    bad = make_malformed(work / "music" / "bad", n, seed)
    mixed = _library(work / "mixed", work / "music")
    ids = read_tracks(alone)["track_id"].to_list()
    require(
        _rows(mixed, ids) == _rows(alone, ids), "the good files' rows are not what they are alone"
    )
    stores = FeatureStore(mixed.mels), FeatureStore(alone.mels)
    require(
        all(stores[0].sha256(t) == stores[1].sha256(t) for t in ids),
        "the good files' frames differ",
    )
    require(stores[0].verify() == [], "frames are not what was written")
    with mixed.skipped.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    lost = [
        row["reason"]
        for row in lines
        if re.search("given up|process that reads|memory", row["reason"])
    ]
    listed, prepared = {row["file"] for row in lines}, set(stores[0].track_ids)
    by_path = dict(read_tracks(mixed).select("path", "track_id").iter_rows())
    unaccounted = [
        path.name
        for path in bad
        if str(path) not in listed and by_path.get(str(path)) not in prepared
    ]
    return {
        "lost": lost,
        "unaccounted": unaccounted,
        "listed": sum(str(path) in listed for path in bad),
    }


def malformed(trial: Trial) -> Outcome:
    """In lots; each file counts as one try."""
    outcome, chance = Outcome(), random.Random(trial.seed)
    n_listed = n_lost = 0
    for start in range(0, trial.tries, N_AT_ONCE):
        n, work = min(N_AT_ONCE, trial.tries - start), trial.work / str(start)
        outcome.tries += n - 1
        with outcome.counted(f"files {start} to {start + n}"):
            found = in_child(partial(_beside, work, n, chance.randrange(2**31)), HOUR_S)
            n_listed += found["listed"]
            n_lost += len(found["lost"])
            outcome.failures += [
                f"neither read nor listed: {name!r}" for name in found["unaccounted"]
            ]
    outcome.notes.append(
        f"{n_listed:,} listed with a reason, "
        f"{trial.tries - n_listed:,} read as far as they are whole"
    )
    outcome.notes.append(
        f"{n_lost} of them crashed or hung their decoder, in a process of its own, since replaced"
    )
    return outcome


ROWS = [
    Row(
        "malformed-audio",
        "Audio files cut, flipped, lying, spliced, disguised and oddly named, beside pipes and "
        "loops of links: no command crashes or hangs, each is read or listed, and the good files' "
        "rows and frames are as if alone",
        5_000,
        60,
        malformed,
    )
]
