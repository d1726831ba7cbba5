"""A library broken in one way at a time: the doctor names that, says what to do, and raises
nothing.
"""

import json
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ponticello.errors import DataError
from ponticello.library import Library
from ponticello.maintenance import check_environment as machine
from ponticello.maintenance import check_library as spaces
from ponticello.maintenance.check_library import NAMES, bytes_to_write, check_runs
from ponticello.maintenance.doctor import run_checks, worst
from ponticello.maintenance.erase_user import RETRAIN_FILE
from ponticello.maintenance.findings import Finding, run_check
from ponticello.search import generations
from ponticello.search.embed import Vectors
from ponticello.search.generations import write_index
from ponticello.search.index import EmbeddingIndex
from ponticello.splits.splits import load_splits
from ponticello.storage import files
from ponticello.storage.layout import LibraryPaths, create_library
from ponticello.train.preference_space import read_likes
from ponticello.train.runs import STARTED, start_run


def _told(folder: LibraryPaths) -> list[Finding]:
    """What is not ok about the library, but for the machine's notes and the health of spaces so
    briefly trained.
    """
    left_out = {machine.MACHINE, *NAMES}
    return [
        each
        for each in run_checks(folder.root)
        if each.severity != "ok" and each.where not in left_out
    ]


def _only(folder: LibraryPaths, severity: str, where: str) -> Finding:
    """The one thing that is told, which must be of this severity and place, and says what to do."""
    (found,) = _told(folder)
    assert (found.severity, found.where) == (severity, where), found
    assert found.do
    return found


def test_a_whole_library_has_nothing_to_mend(trained: Library) -> None:
    assert _told(trained.folder) == []
    findings = run_checks(trained.folder.root)
    assert {
        "tracks.parquet",
        "index/",
        "semantic space",
        "preference space",
        "runs/preference/",
        "disk",
    } <= {each.where for each in findings}


def test_the_index_is_read_once(trained: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []

    def open_index(place: Path, backend: str) -> EmbeddingIndex:
        opened.append(place)
        return generations.open_index(place, backend)

    monkeypatch.setattr(spaces, "open_index", open_index)
    assert {"index/", *NAMES} <= {each.where for each in run_checks(trained.folder.root)}
    assert opened == [trained.folder.index]


def test_spaces_are_looked_at_though_the_catalogue_is_damaged(trained_copy: Library) -> None:
    trained_copy.folder.tracks.write_bytes(b"nothing")
    assert {each.where for each in run_checks(trained_copy.folder.root)} >= set(NAMES)


def test_an_empty_library_is_told_what_comes_first(tmp_path: Path) -> None:
    found = _told(create_library(tmp_path / "library", "tiny"))
    assert [(each.severity, each.do) for each in found] == [
        ("warning", "ponticello scan FOLDER"),
        ("note", "ponticello import-history FILE"),
    ]


def test_no_library_is_an_error(tmp_path: Path) -> None:
    findings = run_checks(tmp_path)
    assert findings[-1].severity == "error"
    assert "is not a library" in findings[-1].what


def _move_audio(folder: LibraryPaths) -> None:
    tracks = pl.read_parquet(folder.tracks)
    tracks.with_columns(path="elsewhere/" + pl.col("path")).write_parquet(folder.tracks)


def _lose_a_track(folder: LibraryPaths) -> None:
    pl.read_parquet(folder.tracks).filter(pl.col("track_id") != "track-0000").write_parquet(
        folder.tracks
    )


def _retrain(folder: LibraryPaths) -> None:
    (folder.run("preference") / RETRAIN_FILE).write_text(json.dumps({"why": "forgotten"}))


def _interrupt(folder: LibraryPaths) -> None:
    run = folder.run("second")
    start_run(run, {"preference": {}, "training_rows_sha256": "some"})


LEFT_OVER = f".tracks.parquet.{files._host()}.{2**22 - 1}.tmp"


def _leave_behind(folder: LibraryPaths) -> None:
    (folder.root / LEFT_OVER).write_bytes(b"half")


def _lose_the_index(folder: LibraryPaths) -> None:
    shutil.rmtree(folder.index)


@pytest.mark.parametrize(
    ("break_it", "severity", "where", "words"),
    [
        (_move_audio, "warning", "tracks.parquet", "60 of 60 audio files are not where they were"),
        (_retrain, "warning", "runs/preference/", "forgotten"),
        (_interrupt, "note", "runs/second/", "has not ended"),
        (_leave_behind, "note", LEFT_OVER, "1 half-written files"),
        (_lose_the_index, "warning", "index/", "nothing can be asked yet"),
    ],
)
def test_what_is_broken_is_named(
    trained_copy: Library,
    break_it: Callable[[LibraryPaths], None],
    severity: str,
    where: str,
    words: str,
) -> None:
    break_it(trained_copy.folder)
    assert words in _only(trained_copy.folder, severity, where).what


def test_an_interrupted_run_is_told_how_to_go_on(trained_copy: Library) -> None:
    _interrupt(trained_copy.folder)
    assert (
        "ponticello train preference --name second"
        in _only(trained_copy.folder, "note", "runs/second/").do
    )


@pytest.mark.parametrize("name", ["pairs.parquet", "validation-pairs.parquet"])
def test_damaged_pairs_are_an_error(trained_copy: Library, name: str) -> None:
    (trained_copy.folder.root / name).write_bytes(b"no parquet")
    assert f"{name} is damaged" in _only(trained_copy.folder, "error", name).what


@pytest.mark.parametrize("name", ["pairs.parquet", "validation-pairs.parquet"])
def test_pairs_of_unknown_tracks_are_told(trained_copy: Library, name: str) -> None:
    path = trained_copy.folder.root / name
    pairs = pl.read_parquet(path)
    stranger = pairs.head(1).with_columns(anchor_id=pl.lit("nobody knows it"))
    pl.concat([pairs, stranger]).write_parquet(path)
    found = [
        each
        for each in _told(trained_copy.folder)
        if each.where == name and each.severity == "warning"
    ]
    assert [each.what for each in found] == [
        f"1 of {pairs.height + 1} pairs name tracks that are not in the catalogue"
    ]


def test_a_damaged_catalogue_is_told_once_and_not_by_every_check(trained_copy: Library) -> None:
    trained_copy.folder.tracks.write_bytes(b"no parquet")
    assert "tracks.parquet is damaged" in _only(trained_copy.folder, "error", "tracks.parquet").what


def test_a_track_that_went_is_missed_everywhere_it_is_named(trained_copy: Library) -> None:
    _lose_a_track(trained_copy.folder)
    found = {each.where: each.severity for each in _told(trained_copy.folder)}
    assert found["interactions.parquet"] == "warning"
    assert found["index/"] == "note"


def test_damage_within_the_log_is_told_by_its_name_wherever_it_is_read(
    trained_copy: Library,
) -> None:
    """Overwrites bytes between the start and the footer: the rows, which lazy readers read last."""
    log = trained_copy.folder.interactions
    data = bytearray(log.read_bytes())
    data[16 : len(data) // 2] = bytes(len(data) // 2 - 16)
    log.write_bytes(bytes(data))
    assert (
        "interactions.parquet" in _only(trained_copy.folder, "error", "interactions.parquet").what
    )
    library, splits = Library.open(trained_copy.folder.root), load_splits(trained_copy.folder)
    assert splits is not None
    for read in (lambda: read_likes(library.folder, splits, ("train",)), lambda: library.listening):
        with pytest.raises(DataError, match=r"interactions\.parquet"):
            read()


def test_changed_splits_are_an_error(trained_copy: Library) -> None:
    pl.read_parquet(trained_copy.folder.splits).head(3).write_parquet(trained_copy.folder.splits)
    found = _only(trained_copy.folder, "error", "pairs.parquet")
    assert "does not fit its own SHA-256" in found.what


@pytest.mark.parametrize("name", ["vectors.npy", "tracks.parquet", "index.json"])
def test_a_flipped_byte_in_the_index_is_an_error(trained_copy: Library, name: str) -> None:
    generation = (
        trained_copy.folder.index / (trained_copy.folder.index / "CURRENT").read_text().strip()
    )
    data = bytearray((generation / name).read_bytes())
    data[len(data) // 2] ^= 1
    (generation / name).write_bytes(bytes(data))
    found = _only(trained_copy.folder, "error", "index/")
    assert "is damaged" in found.what
    assert found.do == f"ponticello embed -L {trained_copy.folder.root}"


def test_a_damaged_track_is_found_in_what_is_prepared(trained_copy: Library) -> None:
    shard = next(trained_copy.folder.mels.glob("*.npy"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(bytes(data))
    found = _only(trained_copy.folder, "error", "mels/")
    assert found.what.startswith("1 of 60 tracks looked at are damaged")


def test_a_model_trained_anew_is_told_from_the_one_in_the_index(trained_copy: Library) -> None:
    semantic = trained_copy.folder.run("semantic")
    shutil.rmtree(semantic)
    shutil.copytree(trained_copy.folder.run("preference"), semantic)
    found = [each for each in _told(trained_copy.folder) if each.where == "index/"]
    assert len(found) == 1
    assert found[0].severity == "error"
    assert found[0].do == "ponticello embed"


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "run.json"])
def test_a_flipped_byte_in_a_run_is_an_error_of_that_run(trained_copy: Library, name: str) -> None:
    """And never taken for another model, which a new index would make good."""
    path = trained_copy.folder.run("preference") / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    found = [
        each for each in run_checks(trained_copy.folder.root) if each.where == "runs/preference/"
    ]
    assert [each.severity for each in found] == ["error"]
    assert "is not what" in found[0].what
    assert (
        "delete runs/preference/, then ponticello train preference --name preference" in found[0].do
    )
    assert [each for each in _told(trained_copy.folder) if "trained anew" in each.what] == []


def test_a_damaged_note_in_one_run_hides_no_other_run(trained_copy: Library) -> None:
    """And is a warning all the same: that it is there says enough."""
    for content in ("[not json", "[]", ""):
        (trained_copy.folder.run("preference") / RETRAIN_FILE).write_text(content)
        found = list(check_runs(trained_copy.folder))
        assert [(each.where, each.severity) for each in found] == [
            ("runs/preference/", "warning"),
            ("runs/preference/", "ok"),
            ("runs/semantic/", "ok"),
        ]
        assert found[0].what == "it learned from a listener who has been forgotten since"


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("run.json", "{}", "run.json does not say stage"),
        ("run.json", "", "run.json is not what was written"),
        ("config.json", None, "run 'preference' is finished, but its config.json is gone"),
        (
            "model.safetensors",
            None,
            "run 'preference' is finished, but its model.safetensors is gone",
        ),
    ],
)
def test_a_half_written_run_is_one_error_of_that_run(
    trained_copy: Library, name: str, content: str | None, told: str
) -> None:
    path = trained_copy.folder.run("preference") / name
    path.unlink() if content is None else path.write_text(content)
    (found,) = [
        each for each in check_runs(trained_copy.folder) if each.where == "runs/preference/"
    ]
    assert found.severity == "error"
    assert told in found.what
    assert found.do.startswith(
        "delete runs/preference/, then ponticello train preference --name preference"
    )


@pytest.mark.parametrize("content", ["", "[1]", '{"semantic": '])
def test_a_run_that_cannot_go_on_is_an_error(trained_copy: Library, content: str) -> None:
    start_run(trained_copy.folder.run("other"), {"preference": {}})
    (trained_copy.folder.run("other") / STARTED).write_text(content)
    (found,) = [each for each in check_runs(trained_copy.folder) if each.where == "runs/other/"]
    assert found.severity == "error"
    assert "started.json is not what was written, so that the run cannot go on" in found.what


def test_damaged_frames_name_the_command_that_mends_them(trained_copy: Library) -> None:
    (trained_copy.folder.mels / "manifest.parquet").write_bytes(b"no parquet")
    found = [each for each in _told(trained_copy.folder) if each.where == "prepared frames"]
    assert [each.do for each in found] == ["ponticello prepare"]


def test_room_to_prepare_is_judged_by_durations_where_nothing_is_prepared(
    trained_copy: Library,
) -> None:
    """60 tracks: log-mels of 2 bytes a number, of a track's length but of no more than is heard,
    and four vectors.
    """
    folder = trained_copy.folder
    assert bytes_to_write(folder) == 0
    shutil.rmtree(folder.mels)
    mel, vectors = folder.config.mel, 60 * folder.config.heads.embed_dim * 4 * 4
    seconds = [mel.max_seconds / 2, 2 * mel.max_seconds] * 30  # half and whole: 45 of the longest
    pl.read_parquet(folder.tracks).with_columns(duration_s=pl.Series(seconds)).write_parquet(
        folder.tracks
    )
    frames = int(45 * mel.max_seconds * mel.sample_rate / mel.hop_length)
    assert bytes_to_write(folder) == frames * mel.n_mels * 2 + vectors


def test_room_to_prepare_is_judged_by_what_was_prepared(trained_copy: Library) -> None:
    """One track more than the 60 that are prepared takes a sixtieth of their bytes, and four
    vectors.
    """
    folder = trained_copy.folder
    tracks = pl.read_parquet(folder.tracks)
    one = tracks.head(1).with_columns(track_id=pl.lit("new"))
    pl.concat([tracks, one]).write_parquet(folder.tracks)
    written = sum(path.stat().st_size for path in folder.mels.glob("*.npy"))
    assert bytes_to_write(folder) == written // 60 + folder.config.heads.embed_dim * 4 * 4


def test_a_collapsed_space_is_an_error(trained_copy: Library) -> None:
    """All vectors of meaning nearly the same."""
    index = trained_copy.index
    sides = [np.array(index.space_vectors(number)) for number in range(2)]
    sides[0] = sides[0][:1] + 1e-3 * sides[0]
    sides[0] /= np.linalg.norm(sides[0], axis=1, keepdims=True)
    both = [
        Vectors(index.track_ids, sides[number], index.spaces[number].space_id)
        for number in range(2)
    ]
    write_index(trained_copy.folder.index, both[0], both[1], index.spaces)
    semantic = [each for each in run_checks(trained_copy.folder.root) if each.where == NAMES[0]]
    assert [each.severity for each in semantic] == ["error", "ok", "warning"]
    assert "collapsed" in semantic[0].what
    assert "no nearer to their own tracks" in semantic[2].what
    assert worst(semantic) == "error"


def test_a_space_that_is_well_spread_is_whole(trained_copy: Library) -> None:
    """Vectors drawn at random use all their dimensions."""
    index, generator = trained_copy.index, np.random.default_rng(0)
    sides = generator.standard_normal((2, len(index.track_ids), index.embed_dim)).astype(np.float32)
    sides /= np.linalg.norm(sides, axis=2, keepdims=True)
    both = [
        Vectors(index.track_ids, sides[number], index.spaces[number].space_id)
        for number in range(2)
    ]
    write_index(trained_copy.folder.index, both[0], both[1], index.spaces)
    assert [
        each.severity for each in run_checks(trained_copy.folder.root) if each.where == NAMES[1]
    ] == ["ok"]


def test_too_little_room_is_an_error(trained: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: _Usage(2**29))
    monkeypatch.setattr(spaces, "bytes_to_write", lambda _: 2**28)
    (little,) = spaces.check_room(trained.folder)
    assert (little.severity, little.do) == ("warning", "make room before long work")
    monkeypatch.setattr(spaces, "bytes_to_write", lambda _: 2**30)
    (none,) = spaces.check_room(trained.folder)
    assert none.severity == "error"
    assert "512 MB free; preparing and embedding the rest would take about 1.0 GB" in none.what


class _Usage:
    def __init__(self, free: int) -> None:
        self.free = free


def test_decoders_are_tried_and_found_to_keep_the_pitch() -> None:
    findings = list(machine.check_decoders())
    by_pyav = "" if find_spec("av") is None else ", m4a"
    assert findings[-1].what == f"decoded and checked: wav, flac, ogg, opus, mp3, aiff{by_pyav}"
    assert findings[-1].severity == "ok"


def test_a_decoder_that_is_wrong_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        machine, "load_audio", lambda *_: np.sin(np.arange(16_000, dtype=np.float32))
    )
    assert {each.severity for each in machine.check_decoders()} == {"error", "ok"}


def test_a_version_below_its_bound_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        machine,
        "requires",
        lambda _: ["numpy>=99", "nothing-of-that-name>=1", "av>=99; extra == 'av'"],
    )
    found = [each for each in machine.check_versions() if each.severity == "error"]
    assert [each.do for each in found] == [
        "pip install 'numpy>=99'",
        "pip install 'nothing-of-that-name'",
    ]


def test_a_check_that_fails_is_a_finding() -> None:
    def fails() -> "object":
        raise RuntimeError("no such luck")
        yield

    (found,) = run_check("somewhere", fails)  # type: ignore[arg-type]
    assert (found.severity, found.where) == ("error", "somewhere")
    assert "no such luck" in found.what
