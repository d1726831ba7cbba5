"""The examples of docs/data.md: their files are made as the page shows them, and every command
prints what it says.
"""

import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import polars as pl
import pytest
import soundfile

from ponticello.pairs.mine import PAIRS_SCHEMA
from ponticello.storage.schema import EVENTS, INTERACTIONS, TRACKS
from tests.pages import blocks_of, run
from tests.synthetic import SAMPLE_RATE, make_catalogue

PAGE = (Path(__file__).parents[1] / "docs" / "data.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE))
EXAMPLES = dict(
    re.findall(
        r"^### ([^\n]+)\n(.*?)(?=^### |\Z)",
        SECTIONS["Five ways from a file to a library"],
        re.DOTALL | re.MULTILINE,
    )
)
NAMES = (
    "Lantern Weather",
    "Small Harbour",
    "Copper Field",
    "Nine Moths",
    "Paper Tide",
    "Late Ferry",
)


def _music(folder: Path) -> None:
    """Six FLAC files of two invented artists, with tags."""
    catalogue = make_catalogue(n_tracks=6, n_artists=2, seconds=2.0, seed=0)
    for number, (title, waveform) in enumerate(zip(NAMES, catalogue.waveforms, strict=True)):
        artist = ("Vesper Lune", "Odd Meridian")[number % 2]
        path = folder / "Music" / artist / f"{number // 2 + 1:02d} {title}.flac"
        path.parent.mkdir(parents=True, exist_ok=True)
        with soundfile.SoundFile(path, "w", SAMPLE_RATE, 1) as file:
            file.title, file.artist, file.genre = title, artist, ("ambient", "jazz")[number % 2]
            file.write(waveform)


def _navidrome(folder: Path) -> None:
    """A database of two accounts: four scrobbles, one of them of a version that is not in the
    folder, and a star.
    """
    titles = [("m1", "Lantern Weather", "Vesper Lune"), ("m2", "Small Harbour", "Odd Meridian")]
    titles.append(("m3", "Copper Field (Live)", "Vesper Lune"))
    with closing(sqlite3.connect(folder / "navidrome.db")) as database, database:
        database.executescript(
            """CREATE TABLE media_file (id TEXT PRIMARY KEY, path TEXT, title TEXT, artist TEXT,
                album TEXT, duration REAL);
            CREATE TABLE "user" (id TEXT PRIMARY KEY, user_name TEXT);
            CREATE TABLE annotation (user_id TEXT, item_id TEXT, item_type TEXT,
                play_count INTEGER, play_date TEXT, rating INTEGER, starred INTEGER,
                starred_at TEXT);
            CREATE TABLE scrobbles
                (media_file_id TEXT, user_id TEXT, submission_time INTEGER NOT NULL);"""
        )
        database.executemany("INSERT INTO media_file VALUES (?, '', ?, ?, '', NULL)", titles)
        database.executemany('INSERT INTO "user" VALUES (?, ?)', [("u1", "alice"), ("u2", "bob")])
        database.execute(
            "INSERT INTO annotation VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            ("u1", "m1", "media_file", 2, "2024-03-01T20:00:00Z", 0, 1, "2024-03-01T20:05:00Z"),
        )
        database.executemany(
            "INSERT INTO scrobbles VALUES (?, ?, ?)",
            [
                ("m1", "u1", 1709323200),
                ("m2", "u1", 1709323500),
                ("m2", "u2", 1709409600),
                ("m3", "u2", 1709409900),
            ],
        )


def _spotify(folder: Path) -> None:
    """The zip of the folder that the page shows."""
    with ZipFile(folder / "my_spotify_data.zip", "w") as archive:
        for file in sorted((folder / "my_spotify_data").iterdir()):
            archive.write(file, file.relative_to(folder))


def _shop(folder: Path) -> None:
    """40 customers of two tastes, ten plays each of 24 songs, as an event stream has them; and a
    vector a song.
    """
    generator = np.random.default_rng(0)
    rows = []
    for customer in range(40):
        songs = (generator.permutation(12)[:10] + 12 * (customer % 2)).tolist()
        day = int(generator.integers(0, 200))
        for place, song in enumerate(songs):
            at = 1_704_103_200_000 + 86_400_000 * (day + place // 5) + 240_000 * place
            before = f"song-{songs[place - 1]:02d}" if place % 5 else None
            kind = "like" if song % 3 == 0 else "play"
            rows.append(
                (f"c{customer:04d}", f"song-{song:02d}", at, kind, 200.0 - 3 * place, before)
            )
    names = ["customer", "item", "ts_ms", "kind", "seconds", "after"]
    pl.DataFrame(rows, schema=names, orient="row").sort("ts_ms", "customer").write_parquet(
        folder / "events.parquet"
    )
    vectors = generator.normal(size=(24, 8)).round(3)
    ids = [f"song-{song:02d}" for song in range(24)]
    pl.DataFrame({"track_id": ids, "vector": vectors.tolist()}).write_parquet(
        folder / "vectors.parquet"
    )
    tracks = pl.DataFrame({"item": ids, "title": [f"Invention {song}" for song in range(24)]})
    tracks.with_columns(artist=pl.Series([f"Quartet {song // 2}" for song in range(24)])).write_csv(
        folder / "items.csv"
    )


MAKERS: dict[str, Callable[[Path], None]] = {
    "Music": _music,
    "navidrome.db": _navidrome,
    "my_spotify_data.zip": _spotify,
    "events.parquet": _shop,
}


@pytest.mark.parametrize("title", EXAMPLES)
def test_example_prints_what_the_page_shows(
    title: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(blocks_of(EXAMPLES[title]), tmp_path, MAKERS) >= 3


def _rows_of(heading: str) -> list[str]:
    """The first cells of a table under a heading of the section on tables."""
    part = SECTIONS["The three tables"].split(f"### {heading}\n")[1].split("\n### ")[0]
    return re.findall(r"^\| `(\w+)` \|", part, re.MULTILINE)


def test_every_column_of_the_three_tables_is_told_and_no_other() -> None:
    assert _rows_of("Tracks table") == list(TRACKS.kinds)
    assert _rows_of("Interactions table") == list(INTERACTIONS.kinds)
    assert _rows_of("Pairs table") == list(PAIRS_SCHEMA)


def test_every_kind_of_event_is_told() -> None:
    assert all(f"`{event}`" in SECTIONS["The three tables"] for event in EVENTS)
