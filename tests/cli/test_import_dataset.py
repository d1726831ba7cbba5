"""import-dataset: the list, the receipt with what is missing, and what is refused."""

import json
from pathlib import Path

from ponticello.datasets.registry import SETS
from ponticello.errors import ConfigError, DataError
from ponticello.storage.layout import create_library
from ponticello.tracks.catalog import read_tracks
from tests.cli.commands import error, out


def test_list_has_every_set_with_its_licence_and_how_to_get_it() -> None:
    header, *rows = out("import-dataset", "--list").splitlines()
    assert header.split() == ["name", "licence", "how", "to", "get", "it"]
    assert [row.split()[0] for row in rows] == list(SETS)
    for row, public in zip(rows, SETS.values(), strict=True):
        assert public.licence in row
        assert row.endswith(public.how_to_get)


def test_list_as_json_has_the_metric_too() -> None:
    listed = json.loads(out("import-dataset", "--list", "--json"))
    assert {row["name"]: row["metric"] for row in listed} == {
        name: public.metric for name, public in SETS.items()
    }


def test_import_says_what_came_and_what_is_missing(tmp_path: Path) -> None:
    folder = create_library(tmp_path / "lib", "tiny")
    (tmp_path / "train_filtered.txt").write_text("blues/blues.00029.wav\nnoise\n")
    printed = out("import-dataset", "gtzan", "--from", tmp_path, "-L", folder.root)
    assert printed == (
        f"1 tracks new, 0 updated, 0 events new, 1 skipped (see {folder.skipped}); "
        f"missing: valid_filtered.txt, test_filtered.txt, genres/; 1 tracks in {folder.tracks}\n"
    )
    assert read_tracks(folder).select("track_id", "genres", "split").rows() == [
        ("blues.00029", ["blues"], "train")
    ]


def test_receipt_as_json(tmp_path: Path) -> None:
    folder = create_library(tmp_path / "lib", "tiny")
    (tmp_path / "train_filtered.txt").write_text("blues/blues.00029.wav\n")
    printed = json.loads(
        out("import-dataset", "gtzan", "--from", tmp_path, "-L", folder.root, "--json")
    )
    assert (printed["n_tracks_new"], printed["n_skipped"], len(printed["missing"])) == (1, 0, 3)


def test_long_list_of_missing_files_is_cut(tmp_path: Path) -> None:
    folder = create_library(tmp_path / "lib", "tiny")
    (tmp_path / "data" / "splits" / "split-0").mkdir(parents=True)
    (tmp_path / "data" / "splits" / "split-0" / "autotagging-train.tsv").write_text(
        "TRACK_ID\tARTIST_ID\tALBUM_ID\tPATH\tDURATION\tTAGS\ntrack_1\ta\tb\t1/1.mp3\t9.0\tgenre---rock\n"
    )
    assert " and 70 more; " in out(
        "import-dataset", "mtg-jamendo", "--from", tmp_path, "-L", folder.root
    )


def test_unknown_set_is_told_those_there_are_in_one_line(tmp_path: Path) -> None:
    folder = create_library(tmp_path / "lib", "tiny")
    message = error(DataError, "import-dataset", "gztan", "--from", tmp_path, "-L", folder.root)
    assert message == f"data set 'gztan' is unknown; use one of {', '.join(SETS)}"


def test_name_and_folder_are_required() -> None:
    assert error(ConfigError, "import-dataset").startswith(
        "import-dataset needs the name of a set: one of mtg-jamendo,"
    )
    message = error(ConfigError, "import-dataset", "gtzan")
    assert message == "import-dataset gtzan needs --from DIR, the folder with the set's own files"
