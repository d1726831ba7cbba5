"""MTG-Jamendo: TAB-separated split files with as many tags at the end of a line as a track has."""

from pathlib import Path

import pytest

from ponticello.datasets.registry import SETS
from ponticello.errors import DataError

HEADER = "TRACK_ID\tARTIST_ID\tALBUM_ID\tPATH\tDURATION\tTAGS"
ROCK = "track_0000241\tartist_000005\talbum_000033\t41/241.mp3\t340.1\tgenre---rock"
RICH = (
    "track_0003524\tartist_000007\talbum_000040\t24/3524.mp3\t61.0\tgenre---jazz\t"
    "instrument---piano\tmood/theme---film"
)


def _split(root: Path, k: int, name: str, *lines: str) -> None:
    path = root / "data" / "splits" / f"split-{k}" / f"autotagging{name}.tsv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        "".join(f"{line}\r\n" for line in (HEADER, *lines)).encode()
    )  # the real files end lines so


def test_tags_go_to_a_column_each_and_splits_too(tmp_path: Path) -> None:
    _split(tmp_path, 0, "-train", ROCK, RICH)
    _split(tmp_path, 0, "_top50tags-train", ROCK)
    _split(tmp_path, 1, "-test", RICH)
    content = SETS["mtg-jamendo"].read(tmp_path)
    rock, rich = content.tracks.to_dicts()
    assert (rock["track_id"], rock["genres"], rock["moods"]) == ("track_0000241", ["rock"], None)
    assert (rich["genres"], rich["instruments"], rich["moods"]) == (["jazz"], ["piano"], ["film"])
    assert rich["tags"] == ["piano", "film"]
    assert (rock["tags_top50"], rich["tags_top50"]) == (["genre---rock"], None)
    assert [rich[f"split_{k}"] for k in range(5)] == ["train", "test", None, None, None]
    assert (rock["duration_s"], rock["path"]) == (340.1, None)
    assert content.skipped == []
    assert content.interactions is None
    assert len(content.missing) == 75 - 3 + 1  # split files, and raw.meta.tsv


@pytest.mark.parametrize("name", ["audio/24/3524.mp3", "audio-low/24/3524.low.mp3"])
def test_audio_is_found_in_both_qualities(tmp_path: Path, name: str) -> None:
    _split(tmp_path, 0, "-train", RICH)
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_bytes(b"sound")
    assert SETS["mtg-jamendo"].read(tmp_path).tracks["path"].to_list() == [
        (tmp_path / name).as_posix()
    ]


def test_names_come_from_the_table_of_all_tracks(tmp_path: Path) -> None:
    _split(tmp_path, 0, "-train", ROCK)
    (tmp_path / "data" / "raw.meta.tsv").write_text(
        "TRACK_ID\tARTIST_ID\tALBUM_ID\tTRACK_NAME\tARTIST_NAME\tALBUM_NAME\tRELEASEDATE\tURL\n"
        'track_0000241\tartist_000005\talbum_000033\tThe "End\tBo\tFirst\t2004-12-28\thttp://x\n'
    )
    (row,) = SETS["mtg-jamendo"].read(tmp_path).tracks.to_dicts()
    assert (row["title"], row["artist"], row["album"], row["release_date"]) == (
        'The "End',
        "Bo",
        "First",
        "2004-12-28",
    )


def test_bad_lines_are_named_and_the_rest_is_kept(tmp_path: Path) -> None:
    _split(
        tmp_path,
        0,
        "-train",
        "track_1\tartist_1",
        "track_2\ta\tb\t1/2.mp3\tlong\tgenre---rock",
        "track_3\ta\tb\t1/3.mp3\t3.0\trock",
        "track_4\ta\tb\t../../4.mp3\t3.0\tgenre---rock",
        ROCK,
    )
    _split(tmp_path, 0, "-validation", ROCK)
    content = SETS["mtg-jamendo"].read(tmp_path)
    assert content.tracks["track_id"].to_list() == ["track_0000241"]
    assert [(row.file, row.line, row.field, row.reason) for row in content.skipped] == [
        ("split-0/autotagging-train.tsv", 2, "", "has 2 fields, wanted 6 or more"),
        ("split-0/autotagging-train.tsv", 3, "DURATION", "is not a number of seconds"),
        (
            "split-0/autotagging-train.tsv",
            4,
            "TAGS",
            "is not one of genre, instrument, mood/theme with --- and a tag",
        ),
        ("split-0/autotagging-train.tsv", 5, "PATH", "leaves the folder"),
        ("split-0/autotagging-validation.tsv", 2, "TRACK_ID", "is in train of this split too"),
    ]


def test_folder_without_a_split_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"has no data/splits/split-0/autotagging-train\.tsv nor .* git clone"
    ):
        SETS["mtg-jamendo"].read(tmp_path)


def test_split_file_with_another_header_is_refused(tmp_path: Path) -> None:
    _split(tmp_path, 0, "-train")
    (tmp_path / "data/splits/split-0/autotagging-train.tsv").write_text("id\ttags\n")
    with pytest.raises(DataError, match="line 1 is 'id\\\\ttags'; wanted TRACK_ID ARTIST_ID"):
        SETS["mtg-jamendo"].read(tmp_path)
