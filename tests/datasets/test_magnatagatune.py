"""MagnaTagATune: quoted, TAB-separated files, a column a tag, and a split by folder."""

from pathlib import Path

import pytest

from ponticello.datasets.registry import SETS
from ponticello.errors import DataError


def _write(path: Path, *rows: tuple[str, ...]) -> None:
    path.write_text("".join("\t".join(f'"{value}"' for value in row) + "\n" for row in rows))


HEADER = ("clip_id", "no piano", "flute", "mp3_path")
INFO = (
    "clip_id",
    "track_number",
    "title",
    "artist",
    "album",
    "url",
    "segmentStart",
    "segmentEnd",
    "mp3_path",
)


def test_tags_are_the_columns_with_a_one_and_the_folder_is_the_split(tmp_path: Path) -> None:
    _write(
        tmp_path / "annotations_final.csv",
        HEADER,
        ("2", "1", "1", "f/bach-01-30-59.mp3"),
        ("6", "0", "1", "c/bach-02-0-29.mp3"),
        ("10", "0", "0", "b/bach-03-0-29.mp3"),
    )
    _write(
        tmp_path / "clip_info_final.csv",
        INFO,
        ("2", "1", "BWV54", "Bach", "Cantatas", "u", "30", "59", "f/x.mp3"),
    )
    (tmp_path / "mp3" / "f").mkdir(parents=True)
    (tmp_path / "mp3" / "f" / "bach-01-30-59.mp3").write_bytes(b"sound")
    content = SETS["magnatagatune"].read(tmp_path)
    assert content.tracks.select("track_id", "split", "tags").rows() == [
        ("2", "test", ["no piano", "flute"]),
        ("6", "validation", ["flute"]),
        ("10", "train", None),
    ]
    first = content.tracks.to_dicts()[0]
    assert (first["title"], first["artist"], first["album"], first["duration_s"]) == (
        "BWV54",
        "Bach",
        "Cantatas",
        29.0,
    )
    assert content.tracks["path"].to_list() == [
        (tmp_path / "mp3/f/bach-01-30-59.mp3").as_posix(),
        None,
        None,
    ]
    assert (content.skipped, content.missing) == ([], [])


def test_top_tags_are_the_fifty_most_used(tmp_path: Path) -> None:
    """51 tags: the first is given to one clip, the others to both, so the first is not among the
    50.
    """
    names = tuple(f"tag {n}" for n in range(51))
    header = ("clip_id", *names, "mp3_path")
    ones = ("1",) * 51
    rows = [("1", *ones, "0/a.mp3"), ("2", "0", *ones[1:], "0/b.mp3")]
    _write(tmp_path / "annotations_final.csv", header, *rows)
    content = SETS["magnatagatune"].read(tmp_path)
    assert content.tracks["tags"][0].to_list() == list(names)
    assert content.tracks["tags_top50"][0].to_list() == list(names[1:])
    assert content.missing == ["clip_info_final.csv"]


def test_bad_rows_are_named_and_the_rest_is_kept(tmp_path: Path) -> None:
    _write(
        tmp_path / "annotations_final.csv",
        HEADER,
        ("1", "0", "0/a.mp3"),
        ("2", "0", "yes", "0/b.mp3"),
        ("3", "0", "1", "x/c.mp3"),
        ("4", "0", "1", "0/d.mp3"),
        ("4", "0", "1", "0/e.mp3"),
        ("5", "0", "1", "0/../../etc/hosts"),
    )
    content = SETS["magnatagatune"].read(tmp_path)
    assert content.tracks["track_id"].to_list() == ["4"]
    assert sorted((row.line, row.field, row.reason) for row in content.skipped) == [
        (2, "", "has 3 fields, wanted 4"),
        (3, "flute", "is not 0 or 1"),
        (4, "mp3_path", "is not a path such as f/name.mp3"),
        (6, "clip_id", "repeats an earlier id"),
        (7, "mp3_path", "is not a path such as f/name.mp3"),
    ]


def test_missing_annotations_are_named(tmp_path: Path) -> None:
    with pytest.raises(
        DataError,
        match=r"has no annotations_final\.csv; wanted the tags of every clip; to get it: http",
    ):
        SETS["magnatagatune"].read(tmp_path)
