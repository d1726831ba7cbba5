"""How a table file becomes raw columns, and which line every row came from. What is refused:
`test_intake`.
"""

import json
from pathlib import Path

import polars as pl
import pytest

from ponticello.storage.tables import lines_of, read_raw, truncate_value


def _raw(folder: Path, name: str, content: str) -> tuple[list[dict[str, object]], list[int]]:
    (folder / name).write_text(content, encoding="utf-8", newline="")
    raw = read_raw(folder / name, name, {"track_id": "text", "tags": "texts"})
    assert raw.skipped == []
    return raw.frame.to_dicts(), raw.lines.to_list()


@pytest.mark.parametrize("last", ["b,", '"b",'])
def test_csv_cells_stay_text_as_they_stand(tmp_path: Path, last: str) -> None:
    """With a quote anywhere the exact way is taken; it gives the same."""
    rows, lines = _raw(tmp_path, "t.csv", f"track_id, n\n a ,01\n{last}\n")
    assert rows == [{"track_id": " a ", "n": "01"}, {"track_id": "b", "n": ""}]
    assert lines == [2, 3]


def test_json_of_known_columns_becomes_text_and_of_others_keeps_its_type(tmp_path: Path) -> None:
    lines = [
        '{"track_id": 7, "n": 1, "mixed": 1}',
        '{"track_id": ["a", "b"], "tags": ["x", 2], "mixed": "ä"}',
    ]
    rows, numbers = _raw(tmp_path, "t.jsonl", f"{lines[0]}\n\n{lines[1]}\n")
    assert rows == [
        {"track_id": "7", "n": 1, "mixed": "1", "tags": None},
        {"track_id": "a, b", "n": None, "mixed": "ä", "tags": ["x", "2"]},
    ]
    assert numbers == [1, 3]


@pytest.mark.parametrize(
    "values",
    [
        [{"a": 1}, {"a": 2, "b": "x"}],  # polars knows the keys of the first object alone
        [{"a": {"b": 1}}, {"a": {"c": 2}}],
        [[{"a": 1}], [{"b": 1}, {"a": 2}]],
        [[1], [2.5]],  # and the numbers of the first list
        [{}, {"a": None}],
    ],
)
def test_nested_json_of_a_further_column_loses_nothing(
    tmp_path: Path, values: list[object]
) -> None:
    """Where the type that polars takes does not hold all of it, each value is its JSON text."""
    for each in (values, values[::-1]):
        lines = [json.dumps({"track_id": n, "more": value}) for n, value in enumerate(each)]
        rows, _ = _raw(tmp_path, "t.jsonl", "\n".join(lines))
        found = [row["more"] for row in rows]
        assert [json.loads(value) if isinstance(value, str) else value for value in found] == each


def test_nested_json_of_one_shape_keeps_its_type(tmp_path: Path) -> None:
    rows, _ = _raw(
        tmp_path,
        "t.jsonl",
        '{"n": {"a": [1, 2]}, "m": null}\n{"n": null}\n{"n": {"a": []}, "m": 1}\n',
    )
    assert rows == [
        {"n": {"a": [1, 2]}, "m": None},
        {"n": None, "m": None},
        {"n": {"a": []}, "m": 1},
    ]


def test_parquet_keeps_its_types(tmp_path: Path) -> None:
    frame = pl.DataFrame({"track_id": [3, 4], "tags": [["x"], None]})
    frame.write_parquet(tmp_path / "t.parquet")
    raw = read_raw(tmp_path / "t.parquet", "t.parquet", {"track_id": "text"})
    assert raw.frame.equals(frame)
    assert raw.lines.to_list() == [1, 2]


def test_lines_keep_their_ends_and_those_not_utf8_are_numbered() -> None:
    lines, not_utf8 = lines_of(b"\xef\xbb\xbfa\r\ncaf\xe9\nb")
    assert lines == ["a\r\n", "caf\udce9\n", "b"]
    assert not_utf8 == {2}


def test_a_shown_value_is_text_of_at_most_200_characters() -> None:
    assert truncate_value("x" * 300) == "x" * 200
    assert truncate_value({"ä": 1}) == json.dumps({"ä": 1}, ensure_ascii=False)
    assert truncate_value(None) == ""
