"""More tracks than `freemusic` holds: each made up of two of its tracks, in the space of what is
heard of them.

Sounds are not made: 2,400 of them would take MusiCNN an hour. A mixture is two real tracks of one
component (tracks
that share games or artists: see `freemusic.together`), so that no split can hold out one parent and
train on the other.

- frames: share x the first's + (1 - share) x the second's, frame by frame, with noise of the spread
  that the frames of
  its parents have within their track; share is drawn between 0.5 and 0.9
- mel: both sounded together at those shares of their power; 9.6 s, below the length in which copies
  are looked for: a
  mixture resembles its parents, and has their role anyway
- machine tags: both scores mixed by the shares, and the tags above the usual threshold
- title: both titles; artist, album, game, genres and description: the first parent's

So mixtures lie between real tracks: they make a catalogue larger and denser, not wider. A figure on
them says how training behaves with as many rows, not how music does.
"""

import csv
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from freemusic import TAG_SCORE, together
from ponticello.features.extraction import ExtractionJob
from ponticello.features.prepare import prepare_features
from ponticello.features.store import Features, FeatureStore, read_manifest
from ponticello.storage.layout import LibraryPaths

SHARES = (0.5, 0.9)  # of the first parent
MEL_FRAMES = 100  # at most; of 96 ms
FLOOR_DB = -100.0  # added to both powers, so that silence has a level


@dataclass(frozen=True)
class Mixture:
    """A made-up track. parents: two track ids of one component; share: of the first."""

    parents: tuple[str, str]
    share: float


def draw_mixtures(rows: list[dict[str, str]], n: int, seed: int) -> dict[str, Mixture]:
    """`n` mixtures by track id; both parents of each are different tracks of one component of
    `rows`.
    """
    generator = np.random.default_rng(seed)
    members = defaultdict(list)
    for row, component in zip(rows, together(rows), strict=True):
        members[component].append(row["track_id"])
    pairs = [(track_id, own) for own in members.values() if len(own) > 1 for track_id in own]
    found = {}
    for number in range(n):
        first, own = pairs[int(generator.integers(len(pairs)))]
        second = str(generator.choice([track_id for track_id in own if track_id != first]))
        found[f"mixture-{number:05d}"] = Mixture((first, second), float(generator.uniform(*SHARES)))
    return found


def mixed_rows(
    rows: list[dict[str, str]],
    mixtures: Mapping[str, Mixture],
    scores: Mapping[str, Mapping[str, float]],
) -> list[dict[str, str]]:
    """A row of the tracks table for every mixture. scores: {track_id: {tag: score}}."""
    known = {row["track_id"]: row for row in rows}
    found = []
    for track_id, mixture in mixtures.items():
        first, second = (known[parent] for parent in mixture.parents)
        one, two = (scores.get(parent, {}) for parent in mixture.parents)
        mixed = {
            tag: mixture.share * one.get(tag, 0.0) + (1 - mixture.share) * two.get(tag, 0.0)
            for tag in {*one, *two}
        }
        tags = sorted(
            (tag for tag in mixed if mixed[tag] >= TAG_SCORE), key=lambda tag: (-mixed[tag], tag)
        )
        title = " and ".join(filter(None, (first["title"], second["title"])))
        found.append(
            {
                **first,
                "track_id": track_id,
                "path": "",
                "title": title,
                "machine_tags": ";".join(tags),
            }
        )
    return found


def tag_scores(source: Path) -> dict[str, dict[str, float]]:
    """{track_id: {tag, lower case: score}} of the folder's auto_tags.csv, weak ones too."""
    found: dict[str, dict[str, float]] = defaultdict(dict)
    with (source / "auto_tags.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            found[row["track_id"]][row["tag"].lower()] = float(row["score"])
    return dict(found)


def mixed_frames(one: Features, two: Features, share: float, seed: tuple[int, ...]) -> Features:
    """(min T, F) float16 between two tracks' frames, (T, F) each, with noise of their spread over
    time.
    """
    n_frames = min(len(one), len(two))
    left, right = (np.asarray(frames[:n_frames], dtype=np.float32) for frames in (one, two))
    spread = share * left.std(axis=0) + (1 - share) * right.std(axis=0)
    noise = np.random.default_rng(seed).standard_normal(left.shape, dtype=np.float32)
    mixed: Features = (share * left + (1 - share) * right + spread * noise).astype(np.float16)
    return mixed


def mixed_mel(one: Features, two: Features, share: float) -> Features:
    """(t, F) float16, dB: two log-mels sounding together; t = the shorter's frames, `MEL_FRAMES` at
    most.
    """
    n_frames = min(len(one), len(two), MEL_FRAMES)
    power = [10 ** (np.asarray(mel[:n_frames], dtype=np.float64) / 10) for mel in (one, two)]
    mixed: Features = (
        10 * np.log10(share * power[0] + (1 - share) * power[1] + 10 ** (FLOOR_DB / 10))
    ).astype(np.float16)
    return mixed


def write_mixtures(
    folder: LibraryPaths, base: LibraryPaths, mixtures: Mapping[str, Mixture]
) -> None:
    """Mels and frames of all tracks of `base` and of the mixtures, through the ordinary writer of
    prepared frames.

    What an earlier call wrote is kept.
    """

    def writer(place: Path, original: Path, is_mel: bool) -> ExtractionJob:
        store = FeatureStore(original)

        def frames(path: Path, _: str) -> Features:
            if path.name not in mixtures:
                return store.read(path.name)
            mixture = mixtures[path.name]
            one, two = (store.read(parent) for parent in mixture.parents)
            if is_mel:
                return mixed_mel(one, two, mixture.share)
            return mixed_frames(one, two, mixture.share, (0, *path.name.encode()))

        return ExtractionJob(
            place, read_manifest(original)["features_key"][0], frames, "mix tracks"
        )

    track_ids = [*FeatureStore(base.mels).track_ids, *mixtures]
    with folder.lock():
        for place, original in ((folder.mels, base.mels), (folder.frames, base.frames)):
            # A name stands for its frames: there is no file behind it.
            sources = {track_id: Path(track_id) for track_id in track_ids}
            prepare_features(folder, sources, writer(place, original, place == folder.mels))
