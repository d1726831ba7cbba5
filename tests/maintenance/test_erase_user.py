"""A forgotten listener is in no table, the pairs are those of a library that never had them, and
runs are named.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ponticello.config import Config
from ponticello.errors import DataError
from ponticello.listening.importers.detect import Format
from ponticello.listening.importers.run import import_history
from ponticello.listening.log import read_interactions
from ponticello.listening.pseudonyms import pseudonym
from ponticello.maintenance import erase_user as module
from ponticello.maintenance.erase_user import RETRAIN_FILE, ErasureResult, erase_users
from ponticello.pairs.mine import mine_library, read_pairs
from ponticello.splits.splits import load_splits
from ponticello.storage.layout import LibraryPaths, SkippedRow, create_library
from ponticello.storage.schema import INTERACTIONS
from ponticello.tracks.catalog import fill_columns
from ponticello.train.runs import log_sha256, note_listening

N_COMMUNITIES = 10_000


def _library(
    root: Path, log: pl.DataFrame, n_tracks: int = 40, events: str = "time"
) -> LibraryPaths:
    folder = create_library(root, "tiny")
    names = [f"t{number}" for number in range(n_tracks)]
    pl.DataFrame({"track_id": names, "artist": names}).write_parquet(folder.tracks)
    log.write_parquet(folder.interactions)
    settings = {"pairs": {"min_users": 2}, "splits": {"events": events}}
    return replace(folder, config=Config.from_preset("tiny", settings))


def _log(seed: int, n_events: int = 4000, n_users: int = 30, n_tracks: int = 40) -> pl.DataFrame:
    generator = np.random.default_rng(seed)
    begin = pl.datetime(2025, 1, 1, time_unit="us", time_zone="UTC")
    rows = {
        "user_id": [f"u{user}" for user in generator.integers(n_users, size=n_events)],
        "track_id": [f"t{track}" for track in generator.integers(n_tracks, size=n_events)],
        "minute": np.sort(generator.integers(100_000, size=n_events)),
        "event": generator.choice(["play", "like", "skip", "playlist"], size=n_events),
        "session_id": generator.choice(["one", "two"], size=n_events),
    }
    log = pl.DataFrame(rows).with_columns(
        played_at=begin + pl.duration(minutes="minute"), context_track_id="track_id"
    )
    return log.drop("minute").with_columns(pl.col("context_track_id").shift(1))


@pytest.mark.parametrize("events", ["time", "last-session"])
def test_a_forgotten_listener_leaves_the_library_of_one_that_never_had_them(
    tmp_path: Path, events: str
) -> None:
    log = _log(0)
    without = _library(tmp_path / "without", log.filter(pl.col("user_id") != "u3"), events=events)
    mine_library(without)
    folder = _library(tmp_path / "with", log, events=events)
    mine_library(folder)
    before = folder.pairs.read_bytes()
    done = erase_users(folder, ["u3"])
    assert folder.pairs.read_bytes() == without.pairs.read_bytes() != before
    for name in ("validation-pairs", "splits", *(["splits-listeners"] if events != "time" else [])):
        file = f"{name}.parquet"
        assert (folder.root / file).read_bytes() == (without.root / file).read_bytes(), file
    assert done.n_events == log.filter(pl.col("user_id") == "u3").height
    assert done.mined is not None
    assert done.mined.n_pairs == len(read_pairs(folder))
    assert "u3" not in read_interactions(folder)["user_id"]
    assert read_interactions(folder).equals(read_interactions(without))
    assert load_splits(folder) == load_splits(without)


def test_one_listener_forgotten_in_each_of_ten_thousand_logs_leaves_no_trace(
    tmp_path: Path,
) -> None:
    """Every community has three to five listeners and six tracks of its own, so that each is a log
    by itself.
    """
    generator = np.random.default_rng(7)
    n, size = N_COMMUNITIES, 24
    community = np.repeat(np.arange(n), size)
    listener = generator.integers(3 + community % 3)
    begin = pl.datetime(2025, 1, 1, time_unit="us", time_zone="UTC")
    log = pl.DataFrame(
        {
            "user_id": [f"c{c}-{user}" for c, user in zip(community, listener, strict=True)],
            "track_id": [
                f"t{track}" for track in community * 6 + generator.integers(6, size=n * size)
            ],
            "minute": generator.integers(4000, size=n * size),
            "event": generator.choice(["play", "like", "skip"], size=n * size),
        }
    ).with_columns(played_at=begin + pl.duration(minutes="minute"))
    log = log.drop("minute").unique(
        ["user_id", "track_id", "played_at", "event"], maintain_order=True
    )
    gone = log.filter(pl.col("user_id").str.ends_with("-1"))["user_id"].unique().to_list()
    assert len(gone) > 9_900
    without = _library(tmp_path / "without", log.filter(~pl.col("user_id").is_in(gone)), n * 6)
    mine_library(without)
    folder = _library(tmp_path / "with", log, n * 6)
    mine_library(folder)
    n_pairs = len(read_pairs(folder))
    erase_users(folder, gone)
    assert folder.pairs.read_bytes() == without.pairs.read_bytes()
    assert folder.validation_pairs.read_bytes() == without.validation_pairs.read_bytes()
    assert n_pairs > len(read_pairs(folder)) > 1_000


def test_other_tables_and_lists_lose_the_rows_that_name_the_listener(tmp_path: Path) -> None:
    """A row is dropped for its user_id, or for a value under that field; the same text elsewhere is
    another thing.
    """
    folder = _library(tmp_path / "library", _log(1))
    pl.DataFrame({"user_id": ["u1", "u2"], "age": [7, 8]}).write_parquet(
        folder.root / "profiles.parquet"
    )
    rows = [
        ("a.csv", 3, "user_id", "u1"),
        ("u1", 4, "track_id", "u1"),
        ("a.csv", 5, "user_id", "u2"),
    ]
    folder.record_skipped(
        "import-history",
        [SkippedRow(file, line, field, value, "why") for file, line, field, value in rows],
    )
    (folder.root / "unmatched.csv").write_text("user_id,title\nu1,One\nu2,Two\n", encoding="utf-8")
    folder.report.mkdir()
    (folder.report / "queries.parquet").write_text("u1", encoding="utf-8")
    done = erase_users(folder, ["u1"])
    assert pl.read_parquet(folder.root / "profiles.parquet").rows() == [("u2", 8)]
    assert (folder.root / "unmatched.csv").read_text(encoding="utf-8").splitlines() == [
        "user_id,title",
        "u2,Two",
    ]
    kept = pl.read_csv(folder.skipped)
    assert kept.select("line", "value").rows() == [(4, "u1"), (5, "u2")]
    assert done.n_rows == {"profiles.parquet": 1, "skipped.csv": 1, "unmatched.csv": 1}
    assert done.removed == ("report",)
    assert not folder.report.exists()
    assert done.mined is None  # there were no pairs before
    assert not folder.pairs.exists()


def _run(folder: LibraryPaths, name: str, stage: str) -> Path:
    run = folder.run(name)
    run.mkdir(parents=True)
    (run / "run.json").write_text(json.dumps({"stage": stage}), encoding="utf-8")
    return run


def test_runs_of_stage_two_are_named_by_what_is_known_of_their_log(tmp_path: Path) -> None:
    folder = _library(tmp_path / "library", _log(2))
    mine_library(folder)
    _run(folder, "semantic", "semantic")
    _run(folder, "from-before", "preference")
    run = _run(folder, "taste", "preference")
    note_listening(folder, run, log_sha256(folder.interactions))
    interrupted = folder.run("interrupted") / "checkpoints"
    interrupted.mkdir(parents=True)
    (interrupted / "started.json").write_text('{"preference": {}}', encoding="utf-8")
    done = erase_users(folder, ["u1"])
    assert done.runs == ("taste",)
    assert done.maybe_runs == ("from-before", "interrupted")
    marked = sorted(path.parent.name for path in (folder.root / "runs").glob(f"*/{RETRAIN_FILE}"))
    assert marked == ["from-before", "interrupted", "taste"]
    note = (folder.run("taste") / RETRAIN_FILE).read_text(encoding="utf-8")
    assert "delete this folder and train again" in note
    assert "u1" not in note


def test_training_that_begins_while_a_listener_is_erased_is_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads the old log after the first marking, and notes it before the log is replaced."""
    folder = _library(tmp_path / "library", _log(2))
    drop_rows = module._drop_rows

    def drop_rows_after_training_began(path: Path, ids: list[str]) -> None:
        note_listening(folder, folder.run("taste"), log_sha256(folder.interactions))
        drop_rows(path, ids)

    monkeypatch.setattr(module, "_drop_rows", drop_rows_after_training_began)
    assert erase_users(folder, ["u1"]).runs == ("taste",)
    assert (folder.run("taste") / RETRAIN_FILE).is_file()


def test_training_whose_log_changed_since_it_was_read_is_refused(tmp_path: Path) -> None:
    folder = _library(tmp_path / "library", _log(2))
    read_sha256 = log_sha256(folder.interactions)
    erase_users(folder, ["u1"])
    with pytest.raises(DataError, match="changed while it was read; run the same") as raised:
        note_listening(folder, folder.run("taste"), read_sha256)
    assert raised.value.code == "log_changed"
    assert not folder.run("taste").exists()


def test_the_last_listener_takes_the_log_along(tmp_path: Path) -> None:
    folder = _library(tmp_path / "library", _log(3, n_users=1))
    mine_library(folder)
    done = erase_users(folder, ["u0"])
    assert done == ErasureResult(
        4000, {}, ("pairs.parquet", "validation-pairs.parquet"), (), (), None
    )
    splits = load_splits(folder)
    assert splits is not None
    assert splits.train_until is None
    assert not folder.interactions.exists()


def test_an_unknown_listener_is_refused_and_nothing_changes(tmp_path: Path) -> None:
    folder = _library(tmp_path / "library", _log(4))
    mine_library(folder)
    before = {path.name: path.read_bytes() for path in folder.root.iterdir() if path.is_file()}
    with pytest.raises(
        DataError, match=r"listener 'nobody' is in no table of .*; check the id in inter"
    ):
        erase_users(folder, ["u1", "nobody"])
    assert {
        path.name: path.read_bytes() for path in folder.root.iterdir() if path.is_file()
    } == before


def test_a_listener_is_forgotten_by_the_name_that_their_id_hides(tmp_path: Path) -> None:
    """Also in what waits for its track: the plays of exports whose music is not there yet."""
    names = {f"u{number}": f"u{number}" for number in range(30)}
    folder = _library(tmp_path / "library", _log(0))
    hidden = {name: pseudonym(folder, name) for name in names}
    log = pl.read_parquet(folder.interactions).with_columns(pl.col("user_id").replace(hidden))
    log.write_parquet(folder.interactions)
    waiting = pl.DataFrame({"user_id": [hidden["u3"], hidden["u4"]], "title": ["One", "Two"]})
    waiting.write_parquet(folder.root / "unmatched-history.parquet")
    (folder.root / "unmatched.csv").write_text("events,title\n1,One\n1,Two\n")
    done = erase_users(folder, ["u3"])
    assert done.removed == ("unmatched.csv",)
    assert done.n_events == log.filter(pl.col("user_id") == hidden["u3"]).height > 0
    assert done.n_rows == {"unmatched-history.parquet": 1}
    assert hidden["u3"] not in set(read_interactions(folder)["user_id"])
    assert pl.read_parquet(folder.root / "unmatched-history.parquet")["title"].to_list() == ["Two"]
    with pytest.raises(DataError, match="listener 'u3' is in no table"):
        erase_users(folder, ["u3"])


def test_endless_cells_of_lists_do_not_keep_a_listener(tmp_path: Path) -> None:
    folder = _library(tmp_path / "library", _log(5))
    (folder.root / "unmatched.csv").write_text(f"events,title\n1,{'t' * 140_000}\n")
    folder.skipped.write_text(
        f"step,file,line,field,value,reason\nx,a,1,user_id,u1,{'t' * 140_000}\n"
    )
    assert erase_users(folder, ["u1"]).n_rows == {"skipped.csv": 1}


@pytest.mark.parametrize("step", ["mine_library", "_drop_rows"])
@pytest.mark.parametrize("n_users", [30, 1])
def test_stopped_forgetting_is_finished_by_the_same_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, n_users: int
) -> None:
    folder = _library(tmp_path / "library", _log(6, n_users=n_users), events="last-session")
    mine_library(folder)
    whole = _library(tmp_path / "whole", _log(6, n_users=n_users), events="last-session")
    mine_library(whole)
    erase_users(whole, ["u0"])
    real = {
        name: getattr(module, name) for name in ("mine_library", "refresh_splits", "_drop_rows")
    }

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    for name in ("refresh_splits", step):
        monkeypatch.setattr(module, name, stop)
    with pytest.raises(KeyboardInterrupt):
        erase_users(folder, ["u0"])
    for name, function in real.items():
        monkeypatch.setattr(module, name, function)
    erase_users(folder, ["u0"])
    files = [
        {path.name: path.read_bytes() for path in each.root.glob("*.*")} for each in (folder, whole)
    ]
    assert files[0] == files[1]


def test_nothing_of_a_forgotten_listener_is_left_in_bad_rows_and_killed_writes(
    tmp_path: Path,
) -> None:
    folder = _library(tmp_path / "library", fill_columns(_log(7), INTERACTIONS))
    table = tmp_path / "plays.csv"
    who = "wilhelmina@x.org"  # no word that a hash in hexadecimal may hold by chance
    rows = [f"{who},t1,2025-01-01", f"{who},t1", f'{who},"t1,2025-01-01', f"{who},t2,never"]
    table.write_text("\n".join(["user_id,track_id,played_at", *rows]) + "\n")
    (tmp_path / "plays.jsonl").write_text(
        f'{{"user_id": "{who}", "track_id": "t1", "played_at": 1735689600}}\n{{"{who}'
    )
    spotify = (
        f'[{{"ts": "2025-01-01T00:00:00Z", "username": "{who}", "ip_addr_decrypted": "203.0.113.7"'
    )
    (tmp_path / "s.json").write_text(spotify)
    forms: dict[str, Format] = {"plays.csv": "table", "plays.jsonl": "table", "s.json": "spotify"}
    written = ""
    for name, form in forms.items():
        assert import_history(folder, tmp_path / name, file_format=form).n_skipped > 0
        written += folder.skipped.read_text(encoding="utf-8")
    assert not [word for word in ("wilhelmina", "203.0.113.7") if word in written]
    (folder.root / ".interactions.parquet.1.tmp").write_bytes(who.encode())
    erase_users(folder, [who])
    left = b"".join(path.read_bytes() for path in folder.root.rglob("*") if path.is_file())
    assert b"wilhelmina" not in left
