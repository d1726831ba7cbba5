"""What a library has to learn from, counted by hand on a few rows, and the sentences that follow
from the counts.
"""

import re
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from ponticello.errors import LibraryError
from ponticello.features.store import MANIFEST_SCHEMA, write_manifest
from ponticello.pairs.mine import PAIRS_SCHEMA
from ponticello.splits.splits import Scheme, Splits, save_splits
from ponticello.storage.layout import LibraryPaths, create_library, open_library
from ponticello.train.readiness import (
    ENOUGH_TEXTS,
    MIN_PAIRS,
    MIN_TEXT_SHARE,
    MIN_TEXTS,
    MIN_USERS,
    MIN_VALIDATION_PAIRS,
    MIN_VALIDATION_TRACKS,
    DataStats,
    count_data,
    describe_readiness,
)

ROLES = {**dict.fromkeys("abcd", "train"), **dict.fromkeys("vw", "validation"), "z": "test"}
TRAIN_UNTIL, VALIDATION_UNTIL = datetime(2024, 1, 10, tzinfo=UTC), datetime(2024, 1, 20, tzinfo=UTC)
PLENTY = DataStats(5_000, 5_000, 5_000, 400, 300, 12.0, 20_000, 800, 900)


def _prepare(place: Path, track_ids: str) -> None:
    """A manifest that says these tracks' frames are there."""
    row = {name: "x" if kind == pl.String() else 1 for name, kind in MANIFEST_SCHEMA.items()}
    place.mkdir()
    write_manifest(
        place,
        pl.DataFrame([{**row, "track_id": track_id} for track_id in track_ids], MANIFEST_SCHEMA),
    )


def _write_tracks(folder: LibraryPaths) -> None:
    """Seven tracks; b and w say nothing of themselves."""
    titles = {"a": "A", "b": None, "c": "C", "d": "D", "v": "V", "w": " ", "z": "Z"}
    pl.DataFrame({"track_id": list(titles), "title": list(titles.values())}).write_parquet(
        folder.tracks
    )


def _write_events(folder: LibraryPaths) -> None:
    rows = [
        ("two", "a", 1, "like", None),
        ("two", "b", 2, "play", 30.0),  # long enough
        ("two", "b", 3, "play", 40.0),  # the same track again
        ("two", "c", 11, "like", None),  # after the training window
        ("one", "a", 4, "like", None),
        ("one", "c", 5, "play", 29.0),  # too short
        ("one", "v", 6, "like", None),  # no training track
        ("three", "a", 7, "collect", None),
        ("three", "b", 8, "complete", None),
        ("three", "d", 9, "like", None),
        ("none", "a", 9, "skip", None),
        ("later", "a", 12, "like", None),  # not in the training window at all
    ]
    users, tracks, days, events, played = zip(*rows, strict=True)
    moments = [datetime(2024, 1, day, tzinfo=UTC) for day in days]
    columns = {
        "user_id": users,
        "track_id": tracks,
        "played_at": moments,
        "event": events,
        "played_s": played,
    }
    pl.DataFrame(columns, schema_overrides={"played_s": pl.Float64}).write_parquet(
        folder.interactions
    )


def _write_pairs(path: Path, pairs: list[str]) -> None:
    rows = [(anchor, positive, 3, 3.0, source) for anchor, positive, source in map(tuple, pairs)]
    pl.DataFrame(rows, PAIRS_SCHEMA, orient="row").write_parquet(path)


@pytest.fixture
def empty(tmp_path: Path) -> LibraryPaths:
    """A library that nothing was imported into; its front end is the log-mel."""
    root = create_library(tmp_path / "library", "base").root
    return open_library(root, ['front_end="logmel"'])


@pytest.fixture
def filled(empty: LibraryPaths) -> LibraryPaths:
    """Every table, with what counts and what does not."""
    _write_tracks(empty)
    _prepare(empty.mels, "abcvwz")
    _prepare(empty.frames, "ab")
    save_splits(empty, Splits(ROLES, TRAIN_UNTIL, VALIDATION_UNTIL))
    _write_events(empty)
    _write_pairs(
        empty.pairs, ["acs", "acp", "abs", "ads", "cas"]
    )  # a pair of two sources; b has no text, d no audio
    _write_pairs(empty.validation_pairs, ["avs", "aws", "cvs", "cvp"])
    return empty


def test_counts_are_those_of_a_library_counted_by_hand(filled: LibraryPaths) -> None:
    """Training tracks a b c d: audio a b c, text a c d, both a c. Validation v w: both only v.

    Listeners of the training window, with the training tracks they liked in it: two (a b), one (a),
    three (a b d),
    none: 2, 1, 3 and 0, median 1.5. Pairs of usable tracks: a-c and c-a. Validation pairs: a-v and
    c-v.
    """
    assert count_data(filled) == DataStats(
        n_tracks_with_audio=3,
        n_tracks_with_text=3,
        n_tracks_with_both=2,
        n_users=4,
        n_users_with_two=2,
        median_liked=1.5,
        n_pairs=2,
        n_validation_tracks=1,
        n_validation_pairs=2,
        front_end="logmel",
    )


def test_audio_is_counted_by_the_frames_the_settings_ask_for(filled: LibraryPaths) -> None:
    """Of the taggers' frames only a's and b's are there: a alone has both, and no pair is left."""
    supply = count_data(open_library(filled.root, ['front_end="musicnn"']))
    assert (supply.n_tracks_with_audio, supply.n_tracks_with_both, supply.n_pairs) == (2, 1, 0)
    assert supply.front_end == "musicnn"


def test_a_play_counts_as_liked_from_the_configured_length_on(filled: LibraryPaths) -> None:
    """At 29 s c speaks for listener one, too: 2, 2, 3 and 0 tracks."""
    supply = count_data(open_library(filled.root, ['front_end="logmel"', "pairs.min_played_s=29"]))
    assert (supply.n_users_with_two, supply.median_liked) == (3, 2.0)


def test_missing_tables_count_nothing(empty: LibraryPaths) -> None:
    assert count_data(empty) == DataStats(front_end="logmel")
    assert describe_readiness(count_data(empty)) == [
        "No training track has audio or text yet: run `ponticello prepare`, `tag` and "
        "`mine-pairs` first."
    ]


@pytest.mark.parametrize(
    ("table", "emptied"),
    [
        (
            "tracks",
            [
                "n_tracks_with_text",
                "n_tracks_with_both",
                "n_pairs",
                "n_validation_tracks",
                "n_validation_pairs",
            ],
        ),
        ("interactions", ["n_users", "n_users_with_two", "median_liked"]),
        ("pairs", ["n_pairs"]),
        ("validation_pairs", ["n_validation_pairs"]),
    ],
)
def test_a_missing_table_takes_only_its_own_counts(
    filled: LibraryPaths, table: str, emptied: list[str]
) -> None:
    whole = count_data(filled)
    getattr(filled, table).unlink()
    assert asdict(count_data(filled)) == {**asdict(whole), **dict.fromkeys(emptied, 0)}


def test_a_log_that_came_after_the_splits_counts_no_listener(filled: LibraryPaths) -> None:
    save_splits(filled, Splits(ROLES, None, None))
    supply = count_data(filled)
    assert (supply.n_users, supply.n_users_with_two, supply.median_liked) == (0, 0, 0.0)
    assert supply.n_tracks_with_both == 2


def test_listeners_with_moments_of_their_own_are_counted_by_those(filled: LibraryPaths) -> None:
    """Listener two trains until the 3rd: a and b; three until the 8th: a. The others have no
    moments.
    """
    moments = {
        name: (datetime(2024, 1, day, tzinfo=UTC),) * 2 for name, day in (("two", 3), ("three", 8))
    }
    save_splits(filled, Splits(ROLES, None, None, moments, Scheme(events="last-session")))
    supply = count_data(filled)
    assert (supply.n_users, supply.n_users_with_two, supply.median_liked) == (2, 1, 1.5)


def test_a_damaged_table_is_named(filled: LibraryPaths) -> None:
    filled.validation_pairs.write_bytes(b"no parquet")
    with pytest.raises(LibraryError, match=r"validation-pairs\.parquet is damaged"):
        count_data(filled)


def test_line_tells_every_count() -> None:
    assert DataStats(1_234, 1_200, 1_199, 304, 290, 6.5, 8_120, 116, 160).line() == (
        "to learn from: 1,234 training tracks with audio, 1,200 with text, 1,199 with both; 304 "
        "listeners, 290 with "
        "two or more liked (median 6.5), 8,120 pairs; for validation 116 tracks, 160 pairs"
    )


def test_a_large_library_is_told_that_nothing_is_short() -> None:
    assert describe_readiness(PLENTY) == ["No count is below what the two stages need."]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"n_tracks_with_text": 0, "n_tracks_with_both": 0},
            "No training track has text, so neither stage has words to learn from: run "
            "`ponticello tag`.",
        ),
        (
            {"n_tracks_with_audio": 0, "n_tracks_with_both": 0},
            "No training track has prepared audio, so neither stage has anything to hear: run "
            "`ponticello prepare`.",
        ),
        (
            {"n_tracks_with_audio": 19, "n_tracks_with_both": 19},
            "Stage one hardly learns words from 19 training tracks with audio and text (under "
            "20): the taggers' own "
            "vectors and machine tags answer.",
        ),
        (
            {"n_tracks_with_audio": 19, "n_tracks_with_both": 19, "front_end": "logmel"},
            "Stage one hardly learns words from 19 training tracks with audio and text (under "
            "20): set front_end = "
            '"musicnn", whose taggers need no training.',
        ),
        (
            {"n_tracks_with_both": 2_400},
            "Only 2,400 of 5,000 training tracks with audio have text, and both stages learn from "
            "those alone: "
            "`ponticello tag` writes machine tags for the others.",
        ),
        (
            {"n_tracks_with_audio": 999, "n_tracks_with_both": 999},
            "999 training tracks (under 1,000): words a track does not carry find it only as far "
            "as the front end "
            "knows them.",
        ),
        (
            {"n_tracks_with_audio": 75, "n_tracks_with_both": 75, "front_end": "logmel"},
            "75 training tracks (under 20,000) are few to learn sound from the beginning: "
            'front_end = "musicnn" starts '
            "from pretrained taggers.",
        ),
        (
            {"n_users": 0, "n_users_with_two": 0, "n_pairs": 0},
            "There is no listening to train stage two on: stage one answers alone.",
        ),
        (
            {"n_users_with_two": 49},
            "Stage two has little to learn from 49 listeners who liked two or more tracks (under "
            "50): expect stage "
            "one's neighbours.",
        ),
        (
            {"n_pairs": 199},
            "Stage two has little to learn from 199 pairs (under 200): expect stage one's "
            "neighbours.",
        ),
        (
            {"n_users_with_two": 3, "n_pairs": 0},
            "Stage two has little to learn from 3 listeners who liked two or more tracks (under "
            "50) and 0 pairs (under "
            "200): expect stage one's neighbours.",
        ),
        (
            {"n_tracks_with_audio": 19, "n_tracks_with_both": 19, "front_end": "features"},
            "Stage one hardly learns words from 19 training tracks with audio and text (under "
            "20): the front end's own "
            "vectors answer.",
        ),
        (
            {"n_tracks_with_audio": 20_001, "n_tracks_with_both": 20_001},
            "20,001 training tracks with audio (over 20,000): learning sound from log-mels "
            '(preset "base") is worth '
            "comparing.",
        ),
        (
            {"n_tracks_with_audio": 19_999, "n_tracks_with_both": 19_999, "front_end": "logmel"},
            "19,999 training tracks (under 20,000) are few to learn sound from the beginning: "
            'front_end = "musicnn" '
            "starts from pretrained taggers.",
        ),
        (
            {"n_validation_tracks": 49},
            "Validation has 49 tracks (under 50): which weights come out best is partly chance.",
        ),
        (
            {"n_validation_pairs": 99},
            "Validation has 99 pairs (under 100): which weights come out best is partly chance.",
        ),
        (
            {"n_validation_tracks": 16, "n_validation_pairs": 0},
            "Validation has 16 tracks (under 50) and 0 pairs (under 100): which weights come out "
            "best is partly "
            "chance.",
        ),
    ],
)
def test_each_shortage_has_one_sentence(changes: dict[str, float | str], sentence: str) -> None:
    assert describe_readiness(replace(PLENTY, **changes)) == [sentence]  # type: ignore[arg-type]


@pytest.mark.parametrize("supply", [DataStats(75, 0), DataStats(0, 75)])
def test_where_nothing_can_be_trained_only_that_is_said(supply: DataStats) -> None:
    """Everything else is short as well, and does not matter yet."""
    assert len(describe_readiness(supply)) == 1


@pytest.mark.parametrize("front_end", ["musicnn", "logmel", "hf:someone/encoder"])
def test_at_twenty_thousand_tracks_neither_front_end_is_spoken_against(front_end: str) -> None:
    supply = replace(
        PLENTY, n_tracks_with_audio=20_000, n_tracks_with_both=20_000, front_end=front_end
    )
    assert describe_readiness(supply) == ["No count is below what the two stages need."]


def test_a_count_at_its_threshold_is_enough() -> None:
    least = replace(
        PLENTY,
        n_tracks_with_audio=round(ENOUGH_TEXTS / MIN_TEXT_SHARE),
        n_tracks_with_both=ENOUGH_TEXTS,
        n_users_with_two=MIN_USERS,
        n_pairs=MIN_PAIRS,
        n_validation_tracks=MIN_VALIDATION_TRACKS,
        n_validation_pairs=MIN_VALIDATION_PAIRS,
    )
    assert describe_readiness(least) == ["No count is below what the two stages need."]
    (only,) = describe_readiness(
        replace(least, n_tracks_with_audio=MIN_TEXTS, n_tracks_with_both=MIN_TEXTS)
    )
    assert only.startswith(f"{MIN_TEXTS} training tracks (under 1,000)")


@pytest.mark.parametrize("front_end", ["musicnn", "logmel"])
def test_a_small_library_of_any_shape_gets_at_most_five_plain_sentences(front_end: str) -> None:
    few = (0, 1, 19, 20, 75)
    for n_audio in few:
        for n_text in few:
            for n_pairs in (0, 10):
                both = min(n_audio, n_text) // 2
                supply = DataStats(
                    n_audio, n_text, both, n_pairs, 0, 0.0, n_pairs, 3, n_pairs, front_end
                )
                sentences = describe_readiness(supply)
                assert 1 <= len(sentences) <= 5
                assert all(re.fullmatch(r"[A-Z0-9].*\.", sentence) for sentence in sentences)
