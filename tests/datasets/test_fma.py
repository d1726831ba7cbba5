"""FMA: a CSV with two rows of names and a third for the index, texts over several lines, and list
literals.
"""

import csv
from pathlib import Path

import pytest

from ponticello.datasets.registry import SETS
from ponticello.errors import DataError

NAMES = [
    ("album", "title"),
    ("album", "date_released"),
    ("artist", "name"),
    ("set", "split"),
    ("set", "subset"),
    ("track", "duration"),
    ("track", "genre_top"),
    ("track", "genres"),
    ("track", "information"),
    ("track", "language_code"),
    ("track", "tags"),
    ("track", "title"),
]
FOOD = [
    "AWOL",
    "2009-01-05",
    "AWOL",
    "training",
    "small",
    "168",
    "Hip-Hop",
    "[21]",
    "one\ntwo",
    "en",
    "['a', \"b's\"]",
]


def _write(root: Path, *rows: list[str], n_header: int = 3) -> None:
    header = [
        ["", *(group for group, _ in NAMES)],
        ["", *(name for _, name in NAMES)],
        ["track_id", *[""] * 12],
    ]
    (root / "fma_metadata").mkdir(exist_ok=True)
    with (root / "fma_metadata" / "tracks.csv").open("w", newline="") as file:
        csv.writer(file).writerows([*header[:n_header], *rows])


@pytest.mark.parametrize("n_header", [2, 3])
def test_track_is_read_from_under_the_two_rows_of_names(tmp_path: Path, n_header: int) -> None:
    _write(tmp_path, ["2", *FOOD, "Food"], n_header=n_header)
    (tmp_path / "fma_metadata" / "genres.csv").write_text(
        "genre_id,#tracks,parent,title,top_level\n21,9,0,Hip-Hop,21\n"
    )
    audio = tmp_path / "fma_small" / "000" / "000002.mp3"
    audio.parent.mkdir(parents=True)
    audio.write_bytes(b"sound")
    content = SETS["fma"].read(tmp_path)
    assert content.tracks.to_dicts() == [
        {
            "track_id": "2",
            "title": "Food",
            "artist": "AWOL",
            "album": "AWOL",
            "release_date": "2009-01-05",
            "duration_s": 168.0,
            "language": "en",
            "genre_top": "Hip-Hop",
            "split": "train",
            "subset": "small",
            "genres": ["Hip-Hop"],
            "tags": ["a", "b's"],
            "path": audio.as_posix(),
        }
    ]
    assert (content.skipped, content.missing) == ([], [])


def test_without_the_names_of_genres_the_top_genre_is_taken(tmp_path: Path) -> None:
    _write(tmp_path, ["2", *FOOD, "Food"])
    content = SETS["fma"].read(tmp_path)
    assert content.tracks["genres"].to_list() == [["Hip-Hop"]]
    assert content.missing == ["fma_small/ (or another size)", "genres.csv"]


def test_bad_rows_are_named_and_the_rest_is_kept(tmp_path: Path) -> None:
    """Row 4 takes two lines, so the next stands on line 6."""
    code = [*FOOD[:10], "__import__('os')"]
    held = [*FOOD[:3], "holdout", *FOOD[4:]]
    _write(
        tmp_path,
        ["2", *FOOD, "Food"],
        ["3", "short"],
        ["4", *code, "x"],
        ["5", *held, "x"],
        ["x/../y", *FOOD, "x"],
    )
    content = SETS["fma"].read(tmp_path)
    assert content.tracks["track_id"].to_list() == ["2"]
    assert sorted((row.line or 0, row.field, row.reason) for row in content.skipped) == [
        (6, "", "has 2 fields, wanted 13"),
        (7, "track.tags", "is not a list such as [21]"),
        (9, "set.split", "is not one of training, validation, test"),
        (11, "id", "is not a number"),
    ]


def test_stray_quote_costs_its_own_line(tmp_path: Path) -> None:
    _write(tmp_path, ["2", *FOOD, "Food"])
    path = tmp_path / "fma_metadata" / "tracks.csv"
    path.write_text(path.read_text() + '3,"a"b\n')
    with path.open("a", newline="") as file:
        csv.writer(file).writerow(["5", *FOOD, "Grass"])
    content = SETS["fma"].read(tmp_path)
    assert content.tracks["track_id"].to_list() == ["2", "5"]
    assert [(row.line, row.reason.partition(":")[0]) for row in content.skipped] == [
        (6, "is not valid CSV")
    ]


def test_missing_and_other_tables_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DataError,
        match=r"has no fma_metadata/tracks\.csv or tracks\.csv; wanted .* fma_metadata\.zip",
    ):
        SETS["fma"].read(tmp_path)
    (tmp_path / "tracks.csv").write_text("track_id,title\n1,a\n")
    with pytest.raises(
        DataError, match=r"tracks\.csv: the two header lines name no 'track\.title'"
    ):
        SETS["fma"].read(tmp_path)
