"""prepare and pairs: what is decoded, what is left out, and the funnel from log to pairs."""

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from ponticello.cli.main import app
from ponticello.errors import ConfigError
from ponticello.features.store import FeatureStore
from ponticello.library import Library
from ponticello.pairs.mine import read_pairs
from ponticello.splits.splits import load_splits
from ponticello.storage.layout import LibraryPaths, create_library, open_library
from ponticello.tracks.catalog import import_tracks
from tests.cli.commands import out
from tests.synthetic import make_catalogue

FUNNEL = [
    "events",
    "positive events",
    "feedback candidates",
    "session candidates",
    "playlist candidates",
    "playlists left out, over 200 tracks",
    "candidates",
    "within the cap per user",
    "pairs",
    "with enough users",
    "above chance",
    "within the cap per track",
]


def make_folder(place: Path) -> LibraryPaths:
    """Makes a library of four tracks of half a second, a fifth whose file is no sound, and a sixth
    without a file.
    """
    table = make_catalogue(n_tracks=4, n_artists=4, seconds=0.5, seed=0).write(place / "sounds")
    (place / "sounds" / "broken.wav").write_text("this is no sound", encoding="utf-8")
    with table.open("a", encoding="utf-8") as file:
        file.write(
            "broken,Broken,Artist 9,Album 9,,broken.wav\nsilent,Unheard,Artist 9,Album 9,,\n"
        )
    folder = create_library(place / "lib", "tiny")
    assert import_tracks(folder, table).n_total == 6
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> LibraryPaths:
    return make_folder(tmp_path)


# prepare


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[LibraryPaths, Result]:
    """The library after its first `prepare`, and what the command printed; read only."""
    folder = make_folder(tmp_path_factory.mktemp("prepared"))
    return folder, CliRunner().invoke(app, ["prepare", "--workers", "1", "-L", str(folder.root)])


@pytest.fixture
def copied(prepared: tuple[LibraryPaths, Result], tmp_path: Path) -> LibraryPaths:
    """A copy of the prepared library, to be changed."""
    return open_library(shutil.copytree(prepared[0].root, tmp_path / "copy"))


def test_prepare_keeps_what_can_be_decoded_and_lists_the_rest(
    prepared: tuple[LibraryPaths, Result],
) -> None:
    folder, result = prepared
    assert result.exit_code == 0
    assert result.stdout == (
        f"4 tracks prepared, 0 unchanged, 1 skipped (see {folder.skipped}); in {folder.mels}\n"
    )
    assert FeatureStore(folder.mels).track_ids == [f"track-{number:04d}" for number in range(4)]
    with folder.skipped.open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["step"], Path(row["file"]).name, row["value"]) == (
        "prepare",
        "broken.wav",
        "broken",
    )
    assert row["reason"]


def test_bar_of_prepare_is_on_stderr(prepared: tuple[LibraryPaths, Result]) -> None:
    assert "preparing" in prepared[1].stderr
    assert "5/5" in prepared[1].stderr
    assert "preparing" not in prepared[1].stdout


def test_prepare_holds_tracks_out(
    folder: LibraryPaths, prepared: tuple[LibraryPaths, Result]
) -> None:
    assert load_splits(folder) is None
    splits = load_splits(prepared[0])
    assert splits is not None
    assert len(splits.roles) == 6
    assert set(splits.roles.values()) == {"train", "validation", "test"}


def test_preparing_again_does_nothing_and_says_so_as_json(copied: LibraryPaths) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in copied.mels.iterdir()}
    printed = json.loads(out("prepare", "--workers", "1", "--json", "-L", copied.root))
    assert printed == {"n_new": 0, "n_kept": 4, "n_removed": 0, "n_skipped": 1}
    assert {path.name: path.stat().st_mtime_ns for path in copied.mels.iterdir()} == before


def test_track_that_lost_its_file_column_is_told_as_removed(
    copied: LibraryPaths, tmp_path: Path
) -> None:
    """Its path is emptied by a second import: it is a track without audio from then on."""
    (tmp_path / "t.csv").write_text("track_id,path\ntrack-0000,\nbroken,\n", encoding="utf-8")
    out("import-tracks", tmp_path / "t.csv", "-L", copied.root)
    assert out("prepare", "--workers", "1", "-L", copied.root) == (
        f"0 tracks prepared, 3 unchanged, 1 removed, none skipped; in {copied.mels}\n"
    )


@pytest.mark.parametrize("workers", ["0", "-1", "many"])
def test_senseless_number_of_workers_is_a_usage_error(folder: LibraryPaths, workers: str) -> None:
    result = CliRunner().invoke(app, ["prepare", "--workers", workers, "-L", str(folder.root)])
    assert result.exit_code == 2
    assert "--workers" in result.stderr
    assert not folder.mels.exists()


# pairs


@pytest.fixture(scope="module")
def mined(
    make_library: Callable[[Path], Library], tmp_path_factory: pytest.TempPathFactory
) -> LibraryPaths:
    """A library with a listening log; every call of `mine-pairs` mines it anew."""
    return make_library(tmp_path_factory.mktemp("pairs") / "library").folder


@pytest.fixture(scope="module")
def printed(mined: LibraryPaths) -> str:
    """What `mine-pairs` prints."""
    return out("mine-pairs", "-L", mined.root)


def _funnel(printed: str) -> dict[str, int]:
    found = re.findall(r"^ *([\d,]+)  (.+?)(?:  \(.*\))?$", printed, re.MULTILINE)
    return {step: int(n.replace(",", "")) for n, step in found}


def test_pairs_prints_the_funnel_who_is_held_out_and_where_the_pairs_are(
    mined: LibraryPaths, printed: str
) -> None:
    steps = _funnel(printed)
    assert list(steps) == FUNNEL
    assert steps["events"] > steps["positive events"] > 0
    splits = load_splits(mined)
    assert splits is not None
    n = {role: list(splits.roles.values()).count(role) for role in ("train", "validation", "test")}
    assert sum(n.values()) == 60
    *_, tracks, last = printed.splitlines()
    assert tracks == (
        f"tracks: {n['train']} train, {n['validation']} validation, {n['test']} test; "
        f"events count for training before {splits.train_until:%Y-%m-%d %H:%M}"
    )
    n_pairs = len(read_pairs(mined))
    assert n_pairs == steps["within the cap per track"]
    assert re.fullmatch(
        rf"{n_pairs:,} pairs in {re.escape(str(mined.pairs))}, [1-9][\d,]* held out for validation",
        last,
    )


def test_funnel_gives_a_reason_for_every_drop(mined: LibraryPaths) -> None:
    printed = out("mine-pairs", "-L", mined.root, "--set", "pairs.max_pairs_per_track=5")
    for reason in (
        "dropped: skips, dislikes and plays under 30 s)",
        "dropped: over 1,000 per user and source)",
        "dropped: fewer than 3 users)",
        "dropped: over 5 per track)",
    ):
        assert printed.count(reason) == 1


def test_setting_changes_the_funnel_for_this_run_only(mined: LibraryPaths, printed: str) -> None:
    before = _funnel(printed)
    fewer = _funnel(out("mine-pairs", "-L", mined.root, "--set", "pairs.min_users=8"))
    assert 0 < fewer["with enough users"] < before["with enough users"]
    assert fewer["events"] == before["events"]
    assert _funnel(out("mine-pairs", "-L", mined.root)) == before


def test_later_setting_wins_and_several_add_up(mined: LibraryPaths) -> None:
    options = [
        "--set",
        "pairs.min_users=8",
        "--set",
        "pairs.min_users=3",
        "--set",
        'pairs.sources=["session"]',
    ]
    steps = _funnel(out("mine-pairs", "-L", mined.root, *options))
    assert [step for step in steps if step.endswith(" candidates")] == ["session candidates"]
    assert steps["with enough users"] > 0


def test_few_listeners_behind_a_pair_come_with_a_warning(mined: LibraryPaths, printed: str) -> None:
    assert "may rest on, and reveal, one person" in out(
        "mine-pairs", "-L", mined.root, "--set", "pairs.min_users=1"
    )
    assert "Careful" not in printed


def test_pairs_as_json_tell_the_same_funnel(mined: LibraryPaths, printed: str) -> None:
    steps = _funnel(printed)
    record = json.loads(out("mine-pairs", "-L", mined.root, "--json"))
    assert set(record) == {"n_pairs", "n_validation_pairs", "funnel"}
    assert record["funnel"] == steps
    assert record["n_pairs"] == steps["within the cap per track"]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            "pairs.min_lovers=3",
            "setting 'pairs.min_lovers' is unknown; there are sources, min_users, ",
        ),
        (
            "pears.min_users=3",
            "setting 'pears' is unknown; there are preset, front_end, features, mel, audio, ",
        ),
        (
            "pairs.min_users=0",
            "setting 'pairs.min_users': Input should be greater than or equal to 1; found 0",
        ),
        ("pairs.min_users", "setting 'pairs.min_users' must look like section.key=value"),
    ],
)
def test_wrong_setting_is_one_line_that_names_it(
    mined: LibraryPaths, setting: str, message: str
) -> None:
    result = CliRunner().invoke(app, ["mine-pairs", "-L", str(mined.root), "--set", setting])
    assert (result.exit_code, result.stdout) == (1, "")
    assert isinstance(result.exception, ConfigError)
    assert str(result.exception).startswith(message)


def test_log_of_which_nothing_was_usable_is_said(folder: LibraryPaths, tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(
        "user_id,track_id,played_at\nu,nobody,2024-01-01\n", encoding="utf-8"
    )
    out("import-history", tmp_path / "log.csv", "-L", folder.root)
    result = CliRunner().invoke(app, ["mine-pairs", "-L", str(folder.root)])
    assert result.exit_code == 1
    assert str(result.exception).startswith("the log holds no event yet (see skipped.csv)")


def test_prepare_listens_too_where_the_front_end_is_musicnn(folder: LibraryPaths) -> None:
    (folder.root / "ponticello.toml").write_text(
        'preset = "tiny"\nfront_end = "musicnn"\n', encoding="utf-8"
    )
    out("prepare", "--workers", "1", "-L", folder.root)
    assert FeatureStore(folder.frames).track_ids == FeatureStore(folder.mels).track_ids


# tag


def test_tag_hears_each_track_once_and_says_what_it_heard(folder: LibraryPaths) -> None:
    first = json.loads(out("tag", "--workers", "1", "-L", folder.root, "--json"))
    assert (first["n_tagged"], first["n_new"], first["n_skipped"]) == (4, 4, 1)
    again = out("tag", "--workers", "1", "-L", folder.root).splitlines()
    assert again[0].startswith("4 tracks tagged (all from cache)")
    with folder.skipped.open(encoding="utf-8", newline="") as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["prepare frames"]
