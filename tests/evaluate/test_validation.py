"""What a model is worth on validation, where labels say little."""

import numpy as np
import polars as pl
import pytest

from ponticello.evaluate.validation import score_on_validation
from ponticello.library import Library
from ponticello.model.htcl import HTCL
from ponticello.tracks.catalog import read_tracks


@pytest.mark.parametrize("shared", [True, False])
def test_labels_that_no_two_tracks_share_are_left_out(trained_copy: Library, shared: bool) -> None:
    folder = trained_copy.folder
    tracks = read_tracks(folder)
    own = [["same"] if shared else [f"genre {row}"] for row in range(tracks.height)]
    tracks.with_columns(genres=pl.Series(own, dtype=pl.List(pl.String))).write_parquet(
        folder.tracks
    )
    judged = score_on_validation(folder)(HTCL.from_pretrained(folder.run("semantic")))
    for meaning in judged.semantic.values():
        assert ("same genres" in meaning) == shared
        assert np.isfinite(list(meaning.values())).all()
    assert np.isfinite(list(judged.preference.values())).all()
