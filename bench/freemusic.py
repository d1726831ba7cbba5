"""The `freemusic` folder as libraries to measure on: game- and artist-disjoint splits, simulated
listeners, by seed.

The folder holds tracks.csv, auto_tags.csv and audio/. Nobody listened: tastes are planted, in the
sound's own measures and in machine tags, and figures on them prove that planted taste is found.
"""

import csv
import hashlib
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ponticello.config import Config
from ponticello.datasets.simulated import audible_traits, simulate_listeners
from ponticello.features.musicnn_frontend import musicnn_job
from ponticello.features.prepare import prepare_features
from ponticello.features.store import FeatureStore
from ponticello.listening.importers.run import import_history
from ponticello.pairs.mine import mine_library
from ponticello.storage.layout import LibraryPaths, create_library
from ponticello.tracks.catalog import audio_files, import_tracks, read_tracks

TAG_SCORE = 0.1  # machine-made tags below this are left out
SHARES = (("test", 0.25), ("validation", 0.15))  # of tracks
COLUMNS = (
    "track_id",
    "path",
    "title",
    "artist",
    "album",
    "genres",
    "about",
    "game",
    "machine_tags",
    "split",
)


def read_catalogue(source: Path) -> list[dict[str, str]]:
    """The tracks of the folder as rows of a tracks table, without a split."""
    tags = defaultdict(list)
    with (source / "auto_tags.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if float(row["score"]) >= TAG_SCORE:
                tags[row["track_id"]].append(row["tag"].lower())
    with (source / "tracks.csv").open(encoding="utf-8", newline="") as file:
        return [
            {
                "track_id": row["track_id"],
                "path": str((source / row["file"]).resolve()),
                "title": row["title"] or row["title_from_file"],
                "artist": row["artist"],
                "album": row["album"] or f"{row['game']} (game music)",
                "genres": row["genre"],
                "about": row["about"],
                "game": row["game"],
                "machine_tags": ";".join(tags[row["track_id"]]),
            }
            for row in csv.DictReader(file)
        ]


def together(rows: list[dict[str, str]]) -> list[str]:
    """Names each row's connected component of games and artists; a split keeps it whole."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        parent.setdefault(name, name)
        while parent[name] != name:
            name = parent[name]
        return name

    for row in rows:
        game = root(f"game:{row['game']}")
        if row["artist"]:
            artist = root(f"artist:{row['artist'].casefold()}")
            parent[max(game, artist)] = min(game, artist)
    return [root(f"game:{row['game']}") for row in rows]


def roles(components: list[str], seed: int) -> list[str]:
    """A role a row: whole components in an order drawn from `seed` fill test, then validation, then
    training.
    """
    sizes, taken, role = Counter(components), Counter[str](), {}
    for name in sorted(
        sizes, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()
    ):
        for held_out, share in SHARES:
            if taken[held_out] + sizes[name] <= share * len(components):
                role[name] = held_out
                break
        else:
            role[name] = "train"
        taken[role[name]] += sizes[name]
    return [role[name] for name in components]


def prepared(root: Path, source: Path, workers: int) -> LibraryPaths:
    """A library of all tracks with mels and frames, made once and then found again."""
    if not (root / "ponticello.toml").is_file():
        create_library(root, "tiny")
    folder = LibraryPaths(root.resolve(), Config.from_preset("tiny"))
    write_tracks(folder, [{**row, "split": ""} for row in read_catalogue(source)])
    with folder.lock():
        prepare_features(folder, audio_files(folder), workers=workers)
        prepare_features(folder, audio_files(folder), musicnn_job(folder), workers=workers)
    return folder


def write_tracks(folder: LibraryPaths, rows: list[dict[str, str]]) -> None:
    """Imports rows as the library's tracks."""
    table = folder.root / "tracks.csv"
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    import_tracks(folder, table)


def world(
    root: Path, base: LibraryPaths, source: Path, seed: int, settings: dict[str, Any]
) -> LibraryPaths:
    """A library of its own split and its own simulated listeners, both from `seed`, over the frames
    of `base`.

    settings: nested like the fields of `Config`. Stage one does not start from the starter model,
    which was made from
        these very tracks.
    """
    semantic = {**settings.get("semantic", {}), "init_from_pretrained": False}
    splits = {"tracks": "column", "column": "split"}
    config = Config.from_preset("tiny", {**settings, "semantic": semantic, "splits": splits})
    config = config.model_copy(
        update={"simulation": config.simulation.model_copy(update={"seed": seed})}
    )
    folder = replace(create_library(root, "tiny"), config=config)
    rows = read_catalogue(source)
    for place in ("mels", "frames"):
        (root / place).symlink_to(base.root / place)
    found = zip(rows, roles(together(rows), seed), strict=True)
    write_tracks(folder, [{**row, "split": role} for row, role in found])
    traits = audible_traits(read_tracks(folder), FeatureStore(folder.mels))
    log = simulate_listeners(list(traits), np.stack(list(traits.values())), config.simulation)
    log.write_csv(root / "listening.csv")
    import_history(folder, root / "listening.csv", pseudonyms=False)
    with folder.lock():
        mine_library(folder)
    return folder
