"""MusicCaps and Song Describer: quoted CSV, aspects as a Python list, several captions a track."""

from pathlib import Path

import pytest

from ponticello.datasets.registry import SETS
from ponticello.errors import DataError

CAPS = (
    "ytid,start_s,end_s,audioset_positive_labels,aspect_list,caption,author_id,"
    "is_balanced_subset,is_audioset_eval\n"
)
SONGS = "caption_id,track_id,caption,is_valid_subset,familiarity,artist_id,album_id,path,duration\n"


def test_musiccaps_row_becomes_a_clip_with_caption_and_aspects(tmp_path: Path) -> None:
    (tmp_path / "musiccaps-public.csv").write_text(
        CAPS
        + '-0Gj8-vB1q4,30,40,"/m/0140xf,/m/02cjck","[\'low quality\', ""woman\'s voice""]",'
        + '"Soft, then ""loud"".\nTwo lines.",4,False,True\n'
        + "AbCdEfGhIjK,0,10,/m/04rlf,[],A drum.,1,True,False\n"
    )
    (tmp_path / "audio").mkdir()
    (tmp_path / "audio" / "-0Gj8-vB1q4.flac").write_bytes(b"sound")
    content = SETS["musiccaps"].read(tmp_path)
    first, second = content.tracks.to_dicts()
    assert first == {
        "track_id": "-0Gj8-vB1q4",
        "path": (tmp_path / "audio" / "-0Gj8-vB1q4.flac").as_posix(),
        "description": 'Soft, then "loud".\nTwo lines.',
        "tags": ["low quality", "woman's voice"],
        "duration_s": 10.0,
        "start_s": 30.0,
        "is_balanced_subset": False,
        "split": "test",
    }
    assert (second["tags"], second["split"], second["path"]) == (None, "train", None)
    assert (content.skipped, content.missing) == ([], [])


def test_bad_musiccaps_rows_are_named_and_the_rest_is_kept(tmp_path: Path) -> None:
    (tmp_path / "musiccaps-public.csv").write_text(
        CAPS
        + "a,0,10,x,[],cap,1,maybe,False\n"
        + "b,0,10,x,print(1),cap,1,True,False\n"
        + "c,0,ten,x,[],cap,1,True,False\n"
        + "../d,0,10,x,[],cap,1,True,False\n"
        + "e,0,10,x,[],cap,1,True,False\n"
    )
    content = SETS["musiccaps"].read(tmp_path)
    assert content.tracks["track_id"].to_list() == ["e"]
    assert sorted((row.line, row.field, row.reason) for row in content.skipped) == [
        (2, "is_balanced_subset", "is not True or False"),
        (3, "aspect_list", "is not a list such as ['a']"),
        (4, "end_s", "is not a number from 0 up"),
        (5, "ytid", "is not a video's id"),
    ]
    assert content.missing == ["audio/"]


def test_song_describer_has_one_row_a_track_with_all_its_captions(tmp_path: Path) -> None:
    (tmp_path / "song_describer.csv").write_text(
        SONGS
        + '3,1004034,"Slow, sad piano",False,0,1,2,34/1004034.mp3,120.0\n'
        + "4,1004034,A piano at night,True,0,1,2,34/1004034.mp3,120.0\n"
        + "5,77,Fast drums,False,2,1,2,77/77.mp3,99.5\n"
    )
    audio = tmp_path / "audio" / "34" / "1004034.2min.mp3"
    audio.parent.mkdir(parents=True)
    audio.write_bytes(b"sound")
    content = SETS["song-describer"].read(tmp_path)
    first, second = content.tracks.to_dicts()
    assert first == {
        "track_id": "1004034",
        "description": "A piano at night",
        "captions": ["Slow, sad piano", "A piano at night"],
        "captions_valid": ["A piano at night"],
        "duration_s": 120.0,
        "split": "test",
        "path": audio.as_posix(),
    }
    assert (second["description"], second["captions_valid"], second["path"]) == (
        "Fast drums",
        None,
        None,
    )
    assert (content.skipped, content.missing) == ([], [])


def test_bad_song_describer_rows_are_named_and_the_rest_is_kept(tmp_path: Path) -> None:
    (tmp_path / "song_describer.csv").write_text(
        SONGS + "1,../7,A,True,0,1,2,p,9\n2,8,,True,0,1,2,p,9\n2,9,B,True,0,1,2,p,9\n"
        "3,9,C,True,0,1,2,p,9\n3,9,D\n"
    )
    content = SETS["song-describer"].read(tmp_path)
    assert content.tracks.select("track_id", "captions").rows() == [("9", ["C"])]
    assert sorted((row.line, row.field, row.reason) for row in content.skipped) == [
        (2, "track_id", "is not a number"),
        (3, "caption", "is missing"),
        (4, "caption_id", "repeats an earlier id"),
        (6, "", "has 3 fields, wanted 9"),
    ]


def test_missing_tables_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no musiccaps-public\.csv; wanted the clips"):
        SETS["musiccaps"].read(tmp_path)
    with pytest.raises(
        DataError, match=r"has no song_describer\.csv; wanted the captions; to get it: .*zenodo"
    ):
        SETS["song-describer"].read(tmp_path)
