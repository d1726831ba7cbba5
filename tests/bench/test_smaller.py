"""How answers of smaller vectors are compared: by hand."""

import numpy as np
import pytest

pytest.importorskip("onnxruntime", reason="needs the extra onnx")

import smaller


def test_closest_tracks_come_first_and_never_the_track_itself() -> None:
    """Twelve tracks on a quarter circle: of the first the closest is the second, then the third."""
    angles = np.linspace(0, np.pi / 2, 12)
    tracks = np.stack([np.cos(angles), np.sin(angles)], axis=1) * np.arange(1, 13)[:, None]
    assert smaller.best(tracks[:1], tracks)[0].tolist() == list(range(10))
    assert smaller.best(tracks, tracks, is_itself=True)[0].tolist() == list(range(1, 11))


def test_kept_is_the_share_of_the_wanted_ten() -> None:
    """9 of the first ten and 5 of the second: 0.7 on average."""
    wanted = np.arange(20).reshape(2, 10)
    found = np.array([[*range(9), 99], [*range(10, 15), *range(95, 100)]])
    assert smaller.kept(found, wanted) == pytest.approx(0.7)
