"""Reading delimited text: byte order marks, archives, empty files, columns that are not there, many
rows.
"""

import bz2
from pathlib import Path

import polars as pl
import pytest

from ponticello.datasets import tables
from ponticello.datasets.tables import SetFolder
from ponticello.errors import DataError
from ponticello.storage.layout import SkippedRow


def read_rows(
    path: Path, columns: list[str], quoted: bool = False
) -> tuple[pl.DataFrame, list[SkippedRow]]:
    files = SetFolder(path.parent, "")
    return files.read(path, columns, quoted=quoted).frame, files.skipped


def test_text_is_stripped_empty_is_null_and_lines_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "t.tsv"
    path.write_bytes("\ufeffid\tname\r\n1\t é \r\n\r\n2\t \r\n".encode())
    frame, skipped = read_rows(path, ["name", "id"])
    assert frame.rows() == [(2, "é", "1"), (4, None, "2")]
    assert skipped == []


def test_quotes_are_plain_characters_unless_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('id\tname\n1\t"a\n2\tb"\n')
    assert read_rows(path, ["name"])[0]["name"].to_list() == ['"a', 'b"']
    assert read_rows(path, ["name"], quoted=True)[0]["name"].to_list() == ["a\n2\tb"]


def test_rows_of_several_chunks_come_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "_CHUNK_ROWS", 2)
    path = tmp_path / "t.tsv.bz2"
    path.write_bytes(bz2.compress(b"id\n" + b"".join(b"%d\n" % n for n in range(5))))
    assert read_rows(path, ["id"])[0].rows() == [(n + 2, str(n)) for n in range(5)]


def test_line_that_is_not_utf8_costs_itself(tmp_path: Path) -> None:
    path = tmp_path / "t.tsv"
    path.write_bytes(b"id\n1\ncaf\xe9\n3\n")
    frame, skipped = read_rows(path, ["id"])
    assert frame["id"].to_list() == ["1", "3"]
    assert [(row.line, row.value, row.reason) for row in skipped] == [
        (3, "caf\N{REPLACEMENT CHARACTER}", "is not UTF-8")
    ]


def test_empty_file_and_missing_column_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.tsv"
    path.write_text("")
    with pytest.raises(DataError, match=r"t\.tsv is empty; wanted a line that names the columns"):
        read_rows(path, ["id"])
    path.write_text("a\tb\n")
    with pytest.raises(
        DataError, match=r"t\.tsv: column 'id' is missing; found 'a', 'b'; get the file again"
    ):
        read_rows(path, ["id"])
