"""The two maps: near tracks lie near, both maps lie alike, and what moved is told."""

from pathlib import Path

import numpy as np
import pytest

from ponticello.search.index import Calibration, EmbeddingIndex, VectorSpace
from ponticello.serve import projection as maps
from ponticello.serve.projection import FULL, load_kept_projection, project_spaces
from ponticello.storage.layout import LibraryPaths, create_library

SPACES = [VectorSpace(name, name, Calibration(0, 1), Calibration(0, 1)) for name in ("one", "two")]
N_GROUPS = 6


def _index(n: int, both: bool = True, moved: int | None = None) -> EmbeddingIndex:
    """`n` tracks in tight groups; `moved`: the track whose group differs in the second space."""
    generator = np.random.default_rng(1)
    centres = generator.standard_normal((N_GROUPS, 16))
    group = np.arange(n) % N_GROUPS
    sides = []
    for number in range(2 if both else 1):
        own = group.copy()
        if number == 1 and moved is not None:
            own[moved] = (own[moved] + 3) % N_GROUPS
        side = centres[own] + 0.15 * generator.standard_normal((n, 16))
        sides.append(side / np.linalg.norm(side, axis=1, keepdims=True))
    vectors = np.concatenate(sides, axis=1).astype(np.float32)
    return EmbeddingIndex([f"t{number:05d}" for number in range(n)], vectors, SPACES[: len(sides)])


def _own_group_share(plane: np.ndarray) -> float:
    """Of each track's five nearest on the map, how many are of its group."""
    group = np.arange(len(plane)) % N_GROUPS
    apart = ((plane[:, None] - plane[None]) ** 2).sum(axis=2).astype(float)
    np.fill_diagonal(apart, np.inf)
    near = np.argsort(apart, axis=1)[:, :5]
    return float((group[near] == group[:, None]).mean())


@pytest.mark.parametrize("anchors", [2_000, 60])
def test_tracks_that_are_alike_lie_together_on_both_maps(
    monkeypatch: pytest.MonkeyPatch, anchors: int
) -> None:
    monkeypatch.setattr(maps, "ANCHORS", anchors)
    drawn = project_spaces(_index(150))
    assert drawn.preference is not None
    for plane in (drawn.semantic, drawn.preference):
        assert (plane.min(), plane.max()) == (0, FULL)
        assert _own_group_share(plane) > 0.95


def test_the_second_map_lies_as_the_first_does() -> None:
    """Each group is nearer to itself on the other map than groups are to each other."""
    drawn = project_spaces(_index(150))
    assert drawn.preference is not None
    group = np.arange(150) % N_GROUPS
    one, two = (
        np.stack([plane[group == number].mean(axis=0) for number in range(N_GROUPS)])
        for plane in (drawn.semantic, drawn.preference)
    )
    apart = np.linalg.norm(one[:, None] - two[None], axis=2)
    assert (apart.argmin(axis=1) == np.arange(N_GROUPS)).all()


def test_the_track_that_moved_most_comes_first() -> None:
    drawn = project_spaces(_index(120, moved=17))
    assert drawn.largest_shifts[0] == 17


def test_one_space_makes_one_map_and_nothing_moves() -> None:
    drawn = project_spaces(_index(30, both=False))
    assert drawn.preference is None
    assert len(drawn.largest_shifts) == 0


@pytest.mark.parametrize("n", [1, 2, 4, 5])
def test_a_few_tracks_have_a_map_too(n: int) -> None:
    drawn = project_spaces(_index(n))
    assert drawn.semantic.shape == (n, 2)
    assert np.isin(drawn.semantic, range(FULL + 1)).all()


def test_maps_are_kept_by_generation_and_old_ones_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder: LibraryPaths = create_library(tmp_path / "library", "tiny")
    index = _index(40, moved=3)
    first = load_kept_projection(folder, index, "aaaa")

    def never(*_: object) -> maps.ProjectedSpaces:
        raise AssertionError("drawn again")

    with monkeypatch.context() as patched:
        patched.setattr(maps, "project_spaces", never)
        again = load_kept_projection(folder, index, "aaaa")
    for one, two in zip(
        (first.semantic, first.preference, first.largest_shifts),
        (again.semantic, again.preference, again.largest_shifts),
        strict=True,
    ):
        np.testing.assert_array_equal(one, two)
    (folder.root / "maps" / "aaaa.npy").write_bytes(b"damaged")
    np.testing.assert_array_equal(
        load_kept_projection(folder, index, "aaaa").semantic, first.semantic
    )
    load_kept_projection(folder, index, "bbbb")
    load_kept_projection(folder, index, "cccc")
    assert len(list((folder.root / "maps").iterdir())) == 2
