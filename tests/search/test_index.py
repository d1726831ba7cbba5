"""The blended score against plain numpy, and the index's files: whole, or refused."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ponticello.errors import CheckpointError, DataError, LibraryError
from ponticello.search.embed import Vectors
from ponticello.search.generations import load_recordings, open_index, write_index
from ponticello.search.index import (
    CALIBRATION_PAIRS,
    Calibration,
    EmbeddingIndex,
    Query,
    VectorSpace,
    calibrate,
)

SEMANTIC = VectorSpace("one", "aaaa", Calibration(0.2, 0.5), Calibration(-0.1, 0.25))
PREFERENCE = VectorSpace("two", "bbbb", Calibration(0.4, 0.1), Calibration(0.3, 2.0))
SPACES = [SEMANTIC, PREFERENCE]


def _unit(n: int, d: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)
    unit: np.ndarray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def _sides(n: int = 6, seed: int = 0) -> tuple[Vectors, Vectors]:
    ids = [f"t{number}" for number in range(n)]
    return Vectors(ids, _unit(n, 4, seed), "aaaa"), Vectors(ids, _unit(n, 4, seed + 1), "bbbb")


def _index(n: int = 6) -> EmbeddingIndex:
    semantic, preference = _sides(n)
    return EmbeddingIndex(
        semantic.track_ids, np.concatenate([semantic.matrix, preference.matrix], axis=1), SPACES
    )


def _query(n: int, kind: str) -> Query:
    return Query((_unit(n, 4, 8), _unit(n, 4, 9)), "text" if kind == "text" else "audio")


@pytest.mark.parametrize("kind", ["audio", "text"])
@pytest.mark.parametrize("blend", [0.0, 0.3, 1.0])
def test_score_is_the_blend_of_both_calibrated_cosines(blend: float, kind: str) -> None:
    """One pair at a time: (1 - blend) * (cosine - mean) / std + blend * (cosine - mean) / std."""
    semantic, preference = _sides()
    query = _query(3, kind)
    scores = _index().scores(query, blend)
    assert scores.shape == (3, 6)
    for row in range(3):
        for column in range(6):
            meaning = float(np.dot(query.vectors[0][row], semantic.matrix[column]))
            taste = float(np.dot(query.vectors[1][row], preference.matrix[column]))
            one, two = (getattr(space, kind) for space in SPACES)
            wanted = (1 - blend) * (meaning - one.mean) / one.std + blend * (
                taste - two.mean
            ) / two.std
            assert scores[row, column] == pytest.approx(wanted, abs=1e-5)


def test_score_of_round_numbers() -> None:
    """Cosines 1 and 0.5: 0.75 * (1 - 0.2) / 0.5 + 0.25 * (0.5 - 0.4) / 0.1 = 1.2 + 0.25."""
    vectors = np.array([[1, 0, 1, 0]], dtype=np.float32)
    semantic = np.array([[1, 0]], np.float32)
    preference = np.array([[0.5, 0.75**0.5]], np.float32)
    query = Query((semantic, preference), "audio")
    assert EmbeddingIndex(["a"], vectors, SPACES).scores(query, 0.25)[0, 0] == pytest.approx(
        1.45, abs=1e-6
    )


@pytest.mark.parametrize("blend", [0.0, 0.3, 1.0])
def test_parts_add_up_to_the_score(blend: float) -> None:
    index, query = _index(), _query(2, "text")
    rows = np.array([4, 0, 5])
    parts = index.parts(query, blend, rows)
    assert np.allclose(parts.sum(axis=2), index.scores(query, blend)[:, rows], atol=1e-5)
    if blend == 0:
        assert (parts[:, :, 1] == 0).all()
    if blend == 1:
        assert (parts[:, :, 0] == 0).all()


def test_an_index_of_one_space_answers_blend_0_only() -> None:
    semantic, _ = _sides()
    index = EmbeddingIndex(semantic.track_ids, semantic.matrix, [SEMANTIC])
    query = index.track_query(["t2"])
    assert not index.has_preference
    assert len(query.vectors) == 1
    assert np.allclose(
        index.scores(query, 0.0)[0], (semantic.matrix @ semantic.matrix[2] - 0.2) / 0.5, atol=1e-5
    )
    with pytest.raises(LibraryError, match="the index has one space: use blend 0"):
        index.scores(query, 0.1)


@pytest.mark.parametrize("blend", [-0.01, 1.01, float("nan")])
def test_blend_outside_0_to_1_is_refused(blend: float) -> None:
    with pytest.raises(
        DataError, match=rf"blend {blend} must lie between 0 \(semantic\) and 1 \(preference\)"
    ):
        _index().scores(_query(1, "text"), blend)


def test_query_without_its_taste_vector_is_refused() -> None:
    with pytest.raises(DataError, match="the query has no vector in the preference space"):
        _index().scores(Query((_unit(1, 4, 0),), "text"), 0.5)


def test_track_query_holds_both_vectors_of_each_track_in_the_order_asked() -> None:
    semantic, preference = _sides()
    query = _index().track_query(["t4", "t1"])
    assert query.kind == "audio"
    assert np.array_equal(query.vectors[0], semantic.matrix[[4, 1]])
    assert np.array_equal(query.vectors[1], preference.matrix[[4, 1]])


def test_unknown_track_is_named() -> None:
    with pytest.raises(
        DataError, match="track 'nope' is not in the index; check the id, or run: ponticello embed"
    ):
        _index().track_query(["t1", "nope", "no"])


def test_calibration_of_two_tracks_is_their_cosine() -> None:
    """Of two rows only the pair (0, 1) is left once a row meets itself no more: mean 0.6, nothing
    around it.
    """
    vectors = np.array([[1.0, 0.0], [0.6, 0.8]])
    found = calibrate(vectors, vectors)
    assert found.mean == pytest.approx(0.6)
    assert found.std == 1e-6


def test_calibration_tends_to_the_mean_and_deviation_over_all_pairs() -> None:
    """One query, cosines 1, 0, 0 and -0.6: mean 0.1, variance (0.81 + 0.01 + 0.01 + 0.49) / 4 =
    0.33.
    """
    tracks = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, -1.0], [-0.6, 0.8]])
    found = calibrate(np.array([[1.0, 0.0]]), tracks)
    error = 4 * 0.33**0.5 / CALIBRATION_PAIRS**0.5  # four standard errors of the mean
    assert found.mean == pytest.approx(0.1, abs=error)
    assert found.std == pytest.approx(0.33**0.5, abs=0.01)


def test_calibration_is_repeatable_and_a_lone_track_gets_a_finite_one() -> None:
    vectors = _unit(9, 4, 3)
    assert calibrate(vectors, vectors, seed=5) == calibrate(vectors, vectors, seed=5)
    lone = vectors[:1]
    assert calibrate(lone, lone) == Calibration(0.0, 1e-6)


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    semantic, preference = _sides()
    generation = write_index(tmp_path, semantic, preference, SPACES)
    index = open_index(tmp_path)
    assert index.track_ids == semantic.track_ids
    assert index.rows["t3"] == 3
    assert index.spaces == SPACES
    assert np.array_equal(
        index.vectors, np.concatenate([semantic.matrix, preference.matrix], axis=1)
    )
    assert index.vectors.dtype == np.float32
    assert (tmp_path / "CURRENT").read_text() == f"{generation.name}\n"


def test_recordings_are_read_back_and_a_track_without_one_is_alone(tmp_path: Path) -> None:
    given = pl.DataFrame(
        {
            "track_id": ["t1", "t4", "x"],
            "mel_sha256": ["1", "4", "x"],
            "recording": ["t1", "t1", "x"],
        }
    )
    write_index(tmp_path, *_sides(), SPACES, given)
    assert open_index(tmp_path).recordings == ["t0", "t1", "t2", "t3", "t1", "t5"]
    known = load_recordings(tmp_path)
    assert known is not None
    assert known.rows()[:2] == [("t0", None, "t0"), ("t1", "1", "t1")]


def test_an_index_of_before_recordings_knows_of_no_copies(tmp_path: Path) -> None:
    """As it was written then: track ids alone, under the hashes of its own files."""
    generation = write_index(tmp_path, *_sides(), SPACES)
    tracks = generation / "tracks.parquet"
    pl.read_parquet(tracks).select("track_id").write_parquet(tracks)
    record = json.loads((generation / "index.json").read_text())
    record["sha256"]["tracks.parquet"] = hashlib.sha256(tracks.read_bytes()).hexdigest()
    text = json.dumps(record)
    (generation / "index.json").write_text(text)
    name = hashlib.sha256(text.encode()).hexdigest()[:16]
    generation.rename(tmp_path / name)
    (tmp_path / "CURRENT").write_text(name)
    assert open_index(tmp_path).recordings == [f"t{number}" for number in range(6)]
    assert load_recordings(tmp_path) is None


def test_recordings_of_a_damaged_or_missing_index_are_not_known(tmp_path: Path) -> None:
    assert load_recordings(tmp_path) is None
    generation = write_index(tmp_path, *_sides(), SPACES)
    assert load_recordings(tmp_path) is not None
    (generation / "vectors.npy").write_bytes(b"")
    assert load_recordings(tmp_path) is None


def test_only_tracks_with_both_vectors_enter_each_with_its_own(tmp_path: Path) -> None:
    semantic = Vectors(["a", "b", "c"], _unit(3, 4, 0), "aaaa")
    preference = Vectors(["b", "c", "d"], _unit(3, 4, 1), "bbbb")
    write_index(tmp_path, semantic, preference, SPACES)
    index = open_index(tmp_path)
    assert index.track_ids == ["b", "c"]
    assert np.array_equal(
        index.vectors, np.concatenate([semantic.matrix[1:], preference.matrix[:2]], axis=1)
    )


def test_index_before_stage_two_has_one_space(tmp_path: Path) -> None:
    write_index(tmp_path, _sides()[0], None, [SEMANTIC])
    index = open_index(tmp_path)
    assert not index.has_preference
    assert index.embed_dim == index.vectors.shape[1] == 4


def test_current_moves_on_and_only_the_generation_before_is_kept(tmp_path: Path) -> None:
    names = [write_index(tmp_path, *_sides(seed=seed), SPACES).name for seed in (0, 10, 20)]
    assert len(set(names)) == 3
    assert (tmp_path / "CURRENT").read_text() == f"{names[2]}\n"
    assert {path.name for path in tmp_path.iterdir()} == {"CURRENT", names[1], names[2]}


def test_writing_the_same_index_again_keeps_the_generation_before(tmp_path: Path) -> None:
    names = [write_index(tmp_path, *_sides(seed=seed), SPACES).name for seed in (0, 10, 10)]
    assert {path.name for path in tmp_path.iterdir()} == {"CURRENT", names[0], names[1]}


def test_an_error_while_writing_leaves_the_live_index_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = write_index(tmp_path, *_sides(seed=0), SPACES)

    def full_disk(*_: object, **__: object) -> None:
        raise OSError("disk is full")

    monkeypatch.setattr("ponticello.search.generations.np.save", full_disk)
    with pytest.raises(OSError, match="disk is full"):
        write_index(tmp_path, *_sides(seed=10), SPACES)
    assert {path.name for path in tmp_path.iterdir()} == {"CURRENT", live.name}
    assert np.array_equal(open_index(tmp_path).vectors[:, :4], _sides(seed=0)[0].matrix)


def test_missing_index_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(LibraryError, match="the library has no index yet; run: ponticello embed"):
        open_index(tmp_path / "index")


@pytest.mark.parametrize("name", ["vectors.npy", "tracks.parquet"])
@pytest.mark.parametrize("place", [8, -9])
def test_one_flipped_bit_is_refused(tmp_path: Path, name: str, place: int) -> None:
    file = write_index(tmp_path, *_sides(), SPACES) / name
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)
    with pytest.raises(
        CheckpointError,
        match=rf"is damaged \({name} is not what was written\); run: ponticello embed",
    ):
        open_index(tmp_path)


@pytest.mark.parametrize("name", ["vectors.npy", "tracks.parquet", "index.json"])
def test_missing_file_is_refused(tmp_path: Path, name: str) -> None:
    (write_index(tmp_path, *_sides(), SPACES) / name).unlink()
    with pytest.raises(CheckpointError, match=r"is damaged \(.*; run: ponticello embed"):
        open_index(tmp_path)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", "{}", '{"sha256": {}, "spaces": [{}]}', "\ud800"]
)
def test_broken_record_is_refused(tmp_path: Path, content: str) -> None:
    file = write_index(tmp_path, *_sides(), SPACES) / "index.json"
    file.write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(CheckpointError, match=r"is damaged .*; run: ponticello embed"):
        open_index(tmp_path)


def test_changed_calibration_is_refused(tmp_path: Path) -> None:
    file = write_index(tmp_path, *_sides(), SPACES) / "index.json"
    record = json.loads(file.read_text(encoding="utf-8"))
    record["spaces"][0]["audio"]["mean"] = 0.3
    file.write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(CheckpointError, match="run: ponticello embed"):
        open_index(tmp_path)


@pytest.mark.parametrize("record", [{"sha256": [], "spaces": []}, {"sha256": {}, "spaces": []}])
def test_record_without_hashes_is_refused(tmp_path: Path, record: dict[str, object]) -> None:
    (write_index(tmp_path, *_sides(), SPACES) / "index.json").write_text(
        json.dumps(record), encoding="utf-8"
    )
    with pytest.raises(CheckpointError, match="run: ponticello embed"):
        open_index(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"\xb1\xff\n", b"01234567\n9abcdef\n", b"../../elsewhere\n"]
)
def test_damaged_current_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    write_index(tmp_path, *_sides(), SPACES)
    (tmp_path / "CURRENT").write_bytes(content)
    with pytest.raises(CheckpointError, match="run: ponticello embed") as raised:
        open_index(tmp_path)
    assert "\n" not in str(raised.value)
    assert load_recordings(tmp_path) is None


def test_current_naming_a_generation_that_is_gone_is_refused(tmp_path: Path) -> None:
    shutil.rmtree(write_index(tmp_path, *_sides(), SPACES))
    with pytest.raises(CheckpointError, match="run: ponticello embed"):
        open_index(tmp_path)


def test_writing_the_same_index_again_leaves_its_files_alone_unless_they_are_damaged(
    tmp_path: Path,
) -> None:
    """A reader that has the file open keeps what it reads; a damaged file is made anew."""
    file = write_index(tmp_path, *_sides(), SPACES) / "vectors.npy"
    whole, number = file.read_bytes(), file.stat().st_ino
    write_index(tmp_path, *_sides(), SPACES)
    assert file.stat().st_ino == number
    file.write_bytes(whole[:-1])
    write_index(tmp_path, *_sides(), SPACES)
    assert file.read_bytes() == whole
    assert {path.name for path in tmp_path.iterdir()} == {"CURRENT", file.parent.name}


def test_an_index_under_a_name_that_reads_as_a_pattern_opens_as_it_is(tmp_path: Path) -> None:
    for name, n_tracks in (("Music [FLAC]", 6), ("Music F", 5)):
        write_index(tmp_path / name, *_sides(n_tracks), SPACES)
    assert open_index(tmp_path / "Music [FLAC]").track_ids == [f"t{number}" for number in range(6)]
    known = load_recordings(tmp_path / "Music [FLAC]")
    assert known is not None
    assert known.height == 6
