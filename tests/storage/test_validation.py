"""What the tables' door lets in, what it lists, and what it refuses."""

import json
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from ponticello.errors import DataError
from ponticello.storage.layout import SkippedRow
from ponticello.storage.schema import INTERACTIONS, TRACKS, Table
from ponticello.storage.validation import read_table


def _write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def _read(
    path: Path, table: Table, rename: dict[str, str] | None = None
) -> tuple[pl.DataFrame, list[SkippedRow]]:
    frame, _, skipped = read_table(path, table, rename)
    return frame, skipped


def _events(folder: Path, *rows: str) -> tuple[pl.DataFrame, list[SkippedRow]]:
    content = "\n".join(["user_id,track_id,played_at,event,played_s,weight", *rows]) + "\n"
    return _read(_write(folder, "plays.csv", content), INTERACTIONS)


def test_known_columns_are_cast_and_others_kept(tmp_path: Path) -> None:
    content = "track_id,title,genres,duration_s,mood\n 1 ,  ,Jazz; Piano|Trio;,12.5, calm\n"
    frame, skipped = _read(_write(tmp_path, "tracks.csv", content), TRACKS)
    row = {
        "track_id": "1",
        "title": None,
        "genres": ["Jazz", "Piano", "Trio"],
        "duration_s": 12.5,
        "mood": " calm",
    }
    assert frame.to_dicts() == [row]
    assert frame.columns == list(row)
    assert skipped == []


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2024-01-02", datetime(2024, 1, 2, tzinfo=UTC)),
        ("2024-01-02T03:04", datetime(2024, 1, 2, 3, 4, tzinfo=UTC)),
        ("2024-01-02 03:04:05", datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("2024-01-02T03:04:05Z", datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("2024-01-02T03:04:05.25+02:00", datetime(2024, 1, 2, 1, 4, 5, 250_000, tzinfo=UTC)),
        ("2024-01-02T03:04:05-0530", datetime(2024, 1, 2, 8, 34, 5, tzinfo=UTC)),
        ("20240102", datetime(2024, 1, 2, tzinfo=UTC)),
        ("20240102T030405Z", datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("1700000000", datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)),
        ("1700000000500", datetime(2023, 11, 14, 22, 13, 20, 500_000, tzinfo=UTC)),
        ("1990-01-01", datetime(1990, 1, 1, tzinfo=UTC)),
        ("2100-12-31T23:59:59", datetime(2100, 12, 31, 23, 59, 59, tzinfo=UTC)),
    ],
)
def test_time_is_read_as_utc(tmp_path: Path, text: str, moment: datetime) -> None:
    frame, skipped = _events(tmp_path, f"u,t,{text},,,")
    assert skipped == []
    assert frame["played_at"].to_list() == [moment]
    assert frame["played_at"].dtype == pl.Datetime("us", "UTC")


@pytest.mark.parametrize(
    "text", ["yesterday", "2024-02-30", "1989-12-31T23:59:59Z", "2101-01-01", "12", "nan", "1e300"]
)
def test_bad_date_is_listed(tmp_path: Path, text: str) -> None:
    frame, skipped = _events(tmp_path, "u,t,2024-01-02,,,", f"u,t,{text},,,")
    reason = "is not a date (ISO 8601 or Unix time, 1990 to 2100)"
    assert skipped == [SkippedRow("plays.csv", 3, "played_at", text, reason)]
    assert frame.height == 1


@pytest.mark.parametrize(
    ("row", "field", "value", "reason"),
    [
        (" ,t,2024-01-02,,,", "user_id", "", "is missing"),
        ("u,t,,,,", "played_at", "", "is missing"),
        ("u,t,2024-01-02,,long,", "played_s", "long", "is not a finite number"),
        ("u,t,2024-01-02,,NaN,", "played_s", "NaN", "is not a finite number"),
        ("u,t,2024-01-02,,,inf", "weight", "inf", "is not a finite number"),
        ("u,t,2024-01-02,,-1,", "played_s", "-1", "is negative"),
        ("u,t,2024-01-02,,,-0.5", "weight", "-0.5", "is negative"),
        ("u,t,2024-01-02,,,NaN", "weight", "NaN", "is not a finite number"),
        ("u,t,2024-01-02,,,1000000.1", "weight", "1000000.1", "is above 1,000,000"),
        (
            "u,t,2024-01-02,heard,,",
            "event",
            "heard",
            "is not one of play, complete, like, collect, skip, dislike, playlist",
        ),
        ("u,t,2024-01-02", "", "u,t,2024-01-02", "has 3 fields, wanted 6"),
        ("u,t,2024-01-02,,,,,", "", "u,t,2024-01-02,,,,,", "has 8 fields, wanted 6"),
    ],
)
def test_bad_row_is_listed_and_the_others_go_on(
    tmp_path: Path, row: str, field: str, value: str, reason: str
) -> None:
    frame, skipped = _events(tmp_path, "a,t,2024-01-02,like,1,2", row, "b,t,2024-01-02,,,")
    assert skipped == [SkippedRow("plays.csv", 3, field, value, reason)]
    assert frame["user_id"].to_list() == ["a", "b"]


def test_only_the_first_problem_of_a_row_is_listed(tmp_path: Path) -> None:
    _, skipped = _events(tmp_path, ",t,never,heard,-1,-1")
    assert [(row.line, row.field) for row in skipped] == [(2, "user_id")]


def test_negative_duration_is_listed(tmp_path: Path) -> None:
    _, skipped = _read(_write(tmp_path, "t.csv", "track_id,duration_s\na,-3\n"), TRACKS)
    assert skipped == [SkippedRow("t.csv", 2, "duration_s", "-3", "is negative")]


def test_first_row_of_a_repeated_track_wins(tmp_path: Path) -> None:
    content = "track_id,title,duration_s\na,bad,x\na,first,1\nb,other,1\na,second,1\n"
    frame, skipped = _read(_write(tmp_path, "tracks.csv", content), TRACKS)
    assert frame["title"].to_list() == ["first", "other"]
    assert [(row.line, row.reason) for row in skipped] == [
        (2, "is not a finite number"),
        (5, "repeats the id of line 3"),
    ]


def test_quoted_line_breaks_and_blank_lines_keep_line_numbers_right(tmp_path: Path) -> None:
    """Lines: 1 header, 2-3 record a, 4 blank, 5-6 record b (bad), 7 record c."""
    content = 'track_id,lyrics,duration_s\na,"one\ntwo",1\n\nb,"three\nfour",x\nc,,2\n'
    frame, skipped = _read(_write(tmp_path, "tracks.csv", content), TRACKS)
    assert frame["lyrics"].to_list() == ["one\ntwo", None]
    assert [(row.line, row.field) for row in skipped] == [(5, "duration_s")]


def test_stray_quote_costs_only_its_line(tmp_path: Path) -> None:
    content = 'track_id,title\na,"broken\nb,"fine"\nc,fine\n'
    frame, skipped = _read(_write(tmp_path, "tracks.csv", content), TRACKS)
    assert frame["track_id"].to_list() == ["b", "c"]
    assert [(row.line, row.value) for row in skipped] == [(2, 'a,"broken')]
    assert skipped[0].reason.startswith("is not valid CSV")


def test_line_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    path = _write(tmp_path, "tracks.csv", b"track_id,title\na,caf\xe9\nb,ok\n")
    frame, skipped = _read(path, TRACKS)
    assert frame["track_id"].to_list() == ["b"]
    assert skipped == [SkippedRow("tracks.csv", 2, "", "a,caf\ufffd", "is not UTF-8")]


def test_jsonl_lines_are_checked_one_by_one(tmp_path: Path) -> None:
    lines = [
        b'{"track_id": 7, "duration_s": 3}',
        b"[1]",
        b"{oops",
        b"",
        b'{"track_id": "\xe9"}',
        b'{"title": "x"}',
    ]
    lines += [
        b'{"track_id": "b", "duration_s": true}',
        b'{"track_id": "\\ud800"}',
        b'{"track_id": "c", "tags": ["x", " "]}',
    ]
    frame, skipped = _read(_write(tmp_path, "tracks.jsonl", b"\n".join(lines)), TRACKS)
    assert frame.select("track_id", "duration_s", "tags").rows() == [
        ("7", 3.0, None),
        ("c", None, ["x"]),
    ]
    assert [(row.line, row.field, row.reason) for row in skipped] == [
        (2, "", "is not a JSON object"),
        (3, "", "is not a JSON object"),
        (5, "", "is not UTF-8"),
        (6, "track_id", "is missing"),
        (7, "duration_s", "is not a finite number"),
        (8, "", "is not text: half a surrogate pair"),
    ]


def test_parquet_rows_count_from_one(tmp_path: Path) -> None:
    pl.DataFrame({"track_id": ["a", None], "duration_s": [1, 2]}).write_parquet(
        tmp_path / "t.parquet"
    )
    frame, skipped = _read(tmp_path / "t.parquet", TRACKS)
    assert frame.rows() == [("a", 1.0)]
    assert skipped == [SkippedRow("t.parquet", 2, "track_id", "", "is missing")]


def test_csv_jsonl_and_parquet_give_the_same_frame(tmp_path: Path) -> None:
    rows = [
        {
            "track_id": "1",
            "title": 'A "b", c',
            "genres": ["x", "y"],
            "duration_s": 1.1,
            "release_date": "2020",
            "mood": "ä",
        },
        {
            "track_id": "2",
            "title": None,
            "genres": None,
            "duration_s": None,
            "release_date": None,
            "mood": "b",
        },
    ]
    frame = pl.DataFrame(rows)
    frame.write_parquet(tmp_path / "t.parquet")
    frame.with_columns(pl.col("genres").list.join(";")).write_csv(tmp_path / "t.csv")
    frame.with_columns(pl.col("genres").list.join("|")).write_csv(
        tmp_path / "t.tsv", separator="\t", include_bom=True
    )
    _write(tmp_path, "t.ndjson", "\n".join(json.dumps(row) for row in rows))
    for suffix in ("parquet", "csv", "tsv", "ndjson"):
        read, skipped = _read(tmp_path / f"t.{suffix}", TRACKS)
        assert_frame_equal(read, frame)
        assert skipped == []


def test_times_are_the_same_in_every_format(tmp_path: Path) -> None:
    moment = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
    times = pl.Series("played_at", [moment], pl.Datetime("ms", "UTC"))
    ids = {"user_id": ["u"], "track_id": ["t"]}
    for name, column in {
        "aware": times,
        "naive": times.dt.replace_time_zone(None),
        "unix": times.dt.epoch("s"),
    }.items():
        pl.DataFrame(ids).with_columns(column).write_parquet(tmp_path / f"{name}.parquet")
        assert _read(tmp_path / f"{name}.parquet", INTERACTIONS)[0]["played_at"].to_list() == [
            moment
        ]
    old = pl.DataFrame(ids).with_columns(pl.Series("played_at", [datetime(1890, 1, 1, tzinfo=UTC)]))
    old.write_parquet(tmp_path / "old.parquet")
    assert [(row.line, row.field) for row in _read(tmp_path / "old.parquet", INTERACTIONS)[1]] == [
        (1, "played_at")
    ]
    path = _write(
        tmp_path,
        "p.jsonl",
        json.dumps({"user_id": 1, "track_id": 2, "played_at": moment.timestamp()}),
    )
    assert _read(path, INTERACTIONS)[0].rows() == [("1", "2", moment)]


def test_fast_and_exact_reading_of_a_csv_agree(tmp_path: Path) -> None:
    """Quoting every field forces the exact way."""
    rows = [
        ("track_id", "title", "duration_s"),
        ("a", "x  y", "1"),
        ("b", "", "z"),
        ("", "n", "2"),
        ("a", "again", "3"),
    ]
    fast = _write(tmp_path, "t.csv", "".join(",".join(row) + "\r\n" for row in rows))
    read = _read(fast, TRACKS)
    fast.write_text("".join(",".join(f'"{field}"' for field in row) + "\r\n" for row in rows))
    exact = _read(fast, TRACKS)
    assert_frame_equal(read[0], exact[0])
    assert read[1] == exact[1]
    assert [row.line for row in exact[1]] == [3, 4, 5]


def test_header_alone_gives_typed_columns_without_rows(tmp_path: Path) -> None:
    frame, skipped = _read(
        _write(tmp_path, "t.csv", "\ufefftrack_id,duration_s,tags,mood\n"), TRACKS
    )
    assert frame.schema == {
        "track_id": pl.String,
        "duration_s": pl.Float64,
        "tags": pl.List(pl.String),
        "mood": pl.String,
    }
    assert frame.height == len(skipped) == 0


def test_rename_takes_the_column_of_another_name(tmp_path: Path) -> None:
    frame, _ = _read(_write(tmp_path, "t.csv", "id,title\na,x\n"), TRACKS, {"track_id": "id"})
    assert frame.rows(named=True) == [{"track_id": "a", "title": "x"}]


@pytest.mark.parametrize(
    ("name", "content", "rename", "message"),
    [
        ("tracks.csv", "id,title\n", {}, "tracks.csv: column 'track_id' is missing; "
         "found 'id', 'title'; rename it or pass --columns track_id=id"),
        ("t.csv", "a,b\n", {"track_id": "id"}, "t.csv: column 'id' is missing; found 'a', 'b'; "
         "correct --columns"),
        ("t.csv", "track_id,b\n", {"track_id": "b"}, "t.csv: column 'track_id' is there already; "
         "take track_id=b out of --columns"),
        ("t.csv", "a,a\n1,2\n", {}, "t.csv: column 'a' is there twice; rename or drop one"),
        ("t.csv", b"\xff,a\n", {}, "t.csv: line 1 names the columns but is not UTF-8; "
         "save the file as UTF-8 CSV"),
        ("t.csv", b"\xef\xbb\xbf \n", {}, "t.csv is empty; "
         "wanted at least a line that names the columns"),
        ("t.jsonl", "", {}, "t.jsonl is empty; wanted at least a line that names the columns"),
        ("t.jsonl", "\n[]\n", {}, "t.jsonl: no line is a JSON object; line 2 is not a JSON object"),
        ("t.xlsx", "x", {}, "t.xlsx: cannot read '.xlsx'; "
         "use .csv, .tsv, .jsonl, .ndjson, .parquet"),
    ],
)  # fmt: skip
def test_unusable_file_is_refused(
    tmp_path: Path, name: str, content: str | bytes, rename: dict[str, str], message: str
) -> None:
    with pytest.raises(DataError) as error:
        _read(_write(tmp_path, name, content), TRACKS, rename)
    assert str(error.value) == message


def test_missing_or_damaged_file_and_wrong_column_type_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.csv is not a file; check the path"):
        _read(tmp_path / "none.csv", TRACKS)
    with pytest.raises(DataError, match=r"t\.parquet cannot be read as Parquet"):
        _read(_write(tmp_path, "t.parquet", "x"), TRACKS)
    pl.DataFrame({"track_id": ["a"], "duration_s": [True]}).write_parquet(tmp_path / "b.parquet")
    with pytest.raises(
        DataError,
        match=r"b\.parquet: column 'duration_s' is Boolean; wanted number, save it as Float64",
    ):
        _read(tmp_path / "b.parquet", TRACKS)
    pl.DataFrame({"track_id": ["a"], "tags": [[["x"]]]}).write_parquet(tmp_path / "n.parquet")
    with pytest.raises(
        DataError,
        match=r"column 'tags' is List\(List\(String\)\); wanted texts, save it as List\(String\)",
    ):
        _read(tmp_path / "n.parquet", TRACKS)
