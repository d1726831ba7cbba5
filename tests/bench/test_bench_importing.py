"""bench/importing.py: exports that the command reads whole."""

from pathlib import Path

import polars as pl
import pytest

import importing
from ponticello.data.catalog import import_tracks
from ponticello.data.history.ingest import import_history
from ponticello.library import create_library


@pytest.mark.parametrize("form", list(importing.FORMS))
def test_every_event_of_a_made_export_is_read(tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "N_HEARD", 20)
    folder = create_library(tmp_path / "library", "tiny")
    rows = [(f"t{song}", *importing._names(song)) for song in range(10)]
    pl.DataFrame(rows, ["track_id", "artist", "title", "album"], orient="row").write_csv(tmp_path / "t.csv")
    import_tracks(folder, tmp_path / "t.csv")
    path = tmp_path / importing.FORMS[form][0]
    n = importing.write_export(path, form, 1)
    done = import_history(folder, path)
    assert (done.n_read, done.n_skipped) == (n, 0)
    assert done.n_new + done.n_kept == n
    assert 0.4 < done.n_new / n < 0.6
