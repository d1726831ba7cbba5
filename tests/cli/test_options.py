"""Options that commands share: columns."""

import pytest

from ponticello.cli.options import read_columns
from ponticello.errors import ConfigError


def test_columns_are_read_as_ours_and_theirs() -> None:
    assert read_columns(["track_id=id", "path=file name"]) == {
        "track_id": "id",
        "path": "file name",
    }
    assert read_columns([]) == read_columns(None) == {}


@pytest.mark.parametrize("column", ["track_id", "", "a=b=c", "=id", "track_id="])
def test_column_without_two_sides_is_refused(column: str) -> None:
    with pytest.raises(ConfigError) as error:
        read_columns(["path=file", column])
    assert (
        str(error.value) == f"--columns {column!r} must look like ours=theirs, such as track_id=id"
    )
