"""Odd inputs: sounds and texts that are empty, not finite or far too long."""

import csv
import json
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import soundfile
from safetensors.numpy import load_file

from ponticello.features.store import FeatureStore
from ponticello.library import Library
from ponticello.storage.schema import TITLE, TRACK_ID
from tests.robustness.children import Child, command, in_child
from tests.robustness.rows import Outcome, Row, Trial, require
from tests.robustness.world import (
    N_ARTISTS,
    N_TRACKS,
    SECONDS,
    make_library,
    simulated_log,
    train_both,
    write_settings,
)
from tests.synthetic import SAMPLE_RATE, make_catalogue
from tests.tiny_bert import make_text_encoder

SHARE = 0.05
RUNAWAY = {"audio_lr": 1e30, "heads_lr": 1e30, "max_grad_norm": 0.0, "max_steps": 12}
N_SAMPLES = int(SECONDS * SAMPLE_RATE)
NO_SOUND = ("nan", "infinity", "empty", "no samples")  # must be listed; the others may be used
SOUNDS: dict[str, Callable[[Path], object]] = {
    "nan": lambda path: _write(path, np.full(N_SAMPLES, np.nan)),
    "infinity": lambda path: _write(path, np.full(N_SAMPLES, np.inf)),
    "one nan": lambda path: _write(path, np.where(np.arange(N_SAMPLES) == 99, np.nan, 0.1)),
    "silence": lambda path: _write(path, np.zeros(N_SAMPLES)),
    "dc": lambda path: _write(path, np.full(N_SAMPLES, 0.7)),
    "loud": lambda path: _write(
        path, np.full(N_SAMPLES, 1e30) * np.sign(np.sin(np.arange(N_SAMPLES)))
    ),
    "empty": lambda path: path.write_bytes(b""),
    "no samples": lambda path: _write(path, np.zeros(0)),
}
TEXTS = {
    "10,000 words": "slow low dark " * 3_333 + "piece",
    "emoji": "\N{MUSICAL NOTE}\N{PERSON WITH HEADSCARF}\N{ZERO WIDTH JOINER}\N{ROCKET}" * 40,
    "right to left": "\N{RIGHT-TO-LEFT OVERRIDE}"
    "\u0645\u0648\u0633\u064a\u0642\u0649 \u05de\u05d5\u05d6",
    "empty": "",
    "marks": "e" + "\N{COMBINING ACUTE ACCENT}" * 2_000,
}


def _write(path: Path, samples: np.ndarray) -> None:
    soundfile.write(path, samples, SAMPLE_RATE, subtype="FLOAT")


def _build(work: Path, seed: int, sounds: list[str], texts: list[str]) -> dict[str, list[str]]:
    """A library in which the first tracks have these sounds and the next these texts; the tracks by
    kind.
    """
    chance = random.Random(seed)
    catalogue = make_catalogue(N_TRACKS, N_ARTISTS, SECONDS, seed)
    table, by_kind = catalogue.write(work / "sounds"), dict[str, list[str]]()
    rows = pl.read_csv(table)
    ids = rows[TRACK_ID].to_list()
    chance.shuffle(ids)
    for track_id, kind in zip(ids, sounds, strict=False):
        SOUNDS[kind](work / "sounds" / f"{track_id}.wav")
        by_kind.setdefault(kind, []).append(track_id)
    titles = dict(zip(ids[len(sounds) :], (TEXTS[kind] for kind in texts), strict=False))
    changed = pl.col(TRACK_ID).replace_strict(titles, default=pl.col(TITLE), return_dtype=pl.String)
    rows.with_columns(changed.alias(TITLE)).write_csv(table)
    make_text_encoder(work / "bert")
    make_library(work / "library", table, simulated_log(catalogue, 60, seed))
    return by_kind


def _check(work: Path, seed: int, sounds: list[str], texts: list[str]) -> None:
    """Trains both stages, embeds and asks with what was built."""
    by_kind, root = _build(work, seed, sounds, texts), work / "library"
    folder = Library.open(root).folder
    with folder.skipped.open(encoding="utf-8", newline="") as file:
        listed = {row["value"] for row in csv.DictReader(file)}
    prepared = set(FeatureStore(folder.mels).track_ids)
    for kind, track_ids in by_kind.items():
        for track_id in track_ids:
            require(
                (track_id in listed) != (track_id in prepared),
                f"{kind}: neither listed nor read, or both",
            )
            require(kind not in NO_SOUND or track_id in listed, f"{kind}: not listed")
    store = FeatureStore(folder.mels)
    require(
        all(np.isfinite(store.read(t)).all() for t in store.track_ids), "frames that are not finite"
    )
    train_both(root)
    for run in ("semantic", "preference"):
        weights = load_file(root / "runs" / run / "model.safetensors")
        require(
            all(np.isfinite(weight).all() for weight in weights.values()),
            f"{run}: weights that are not finite",
        )
        for line in (root / "runs" / run / "log.jsonl").read_text(encoding="utf-8").splitlines():
            values = [value for value in json.loads(line).values() if isinstance(value, float)]
            require(bool(np.isfinite(values).all()), f"{run}: the log says {line[:200]}")
    library = Library.open(root)
    library.embed("semantic", "preference")
    require(bool(np.isfinite(library.index.vectors).all()), "vectors that are not finite")
    for text in [text for text in TEXTS.values() if text]:
        found = library.search(text, k=5)
        require(
            len(found) == 5 and all(np.isfinite(result.score) for result in found),
            f"asked {text[:20]!r}: {found}",
        )


def odd(trial: Trial) -> Outcome:
    """5 % of the tracks have odd sounds and 5 % odd texts, of kinds that take turns."""
    outcome = Outcome()
    n = max(1, round(SHARE * N_TRACKS))
    sounds, texts = list(SOUNDS), list(TEXTS)
    for number in range(trial.tries):
        own_sounds = [sounds[(number * n + each) % len(sounds)] for each in range(n)]
        own_texts = [texts[(number * n + each) % len(texts)] for each in range(n)]
        with outcome.counted(f"sounds {own_sounds}, texts {own_texts}"):
            in_child(
                partial(
                    _check, trial.work / str(number), trial.seed + number, own_sounds, own_texts
                )
            )
    return outcome


def nothing_finite(trial: Trial) -> Outcome:
    """All sounds are NaN; and sounds are well, but the numbers of training run away."""
    outcome = Outcome()
    for number in range(trial.tries):
        work = trial.work / str(number)
        with outcome.counted(f"try {number}"):
            if number % 2 == 0:
                in_child(partial(_build, work, trial.seed + number, ["nan"] * N_TRACKS, []))
            else:
                in_child(partial(_build, work, trial.seed + number, [], []))
                write_settings(work / "library", {"front_end": "logmel", "semantic": RUNAWAY})
            ended = Child(command("train", "semantic", "-L", work / "library")).wait()
            line = ended.require_error_line()
            run = work / "library" / "runs" / "semantic"
            require(not (run / "model.safetensors").exists(), "a model was saved")
            for path in run.rglob("*.safetensors"):
                finite = all(np.isfinite(weight).all() for weight in load_file(path).values())
                require(finite, f"{path.name} of a checkpoint is not finite")
            if number < 2:
                outcome.notes.append(line)
    return outcome


ROWS = [
    Row(
        "odd-inputs",
        "NaN, infinity, one NaN, silence, DC, far too loud, empty and no samples in 5 % of the "
        "sounds; 10,000 words, emoji, right-to-left, nothing and 2,000 accents in 5 % of the "
        "texts: both stages end with finite weights, losses and vectors, and what cannot be used "
        "is listed",
        20,
        2,
        odd,
    ),
    Row(
        "nothing-finite",
        "A run whose sounds are all NaN, or whose numbers run away, stops with one readable line "
        "and saves no model, and no checkpoint that is not finite",
        6,
        2,
        nothing_finite,
    ),
]
