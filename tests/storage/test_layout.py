"""The library's folder: where things lie, who may write, and that a file is replaced whole or not
at all.
"""

import csv
import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from filelock import FileLock

from ponticello.config import Config
from ponticello.errors import ConfigError, DataError, LibraryError, PonticelloError
from ponticello.storage import files
from ponticello.storage.files import atomic_write, read_csv_rows
from ponticello.storage.layout import LibraryPaths, SkippedRow, create_library, open_library


@pytest.fixture
def folder(tmp_path: Path) -> LibraryPaths:
    return create_library(tmp_path / "lib", "tiny")


def _rows(folder: LibraryPaths) -> list[list[str]]:
    with folder.skipped.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def _row(value: str, line: int | None = 1) -> SkippedRow:
    return SkippedRow("a.csv", line, "title", value, "is odd, or so")


def test_new_library_holds_its_settings_and_nothing_else(tmp_path: Path) -> None:
    folder = create_library(tmp_path / "deep" / "lib", "tiny")
    assert [path.name for path in folder.root.iterdir()] == ["ponticello.toml"]
    assert (folder.root / "ponticello.toml").read_text().endswith('preset = "tiny"\n')
    assert folder.config == Config.from_preset("tiny")


def test_opening_gives_what_creating_gave(folder: LibraryPaths) -> None:
    assert open_library(folder.root) == folder
    assert open_library(str(folder.root)) == folder
    assert folder.root.is_absolute()


def test_one_setting_alone_is_not_taken_for_its_letters(folder: LibraryPaths) -> None:
    with pytest.raises(
        DataError,
        match=r"settings must be a list, such as \['search.blend=1'\]; found one str alone",
    ):
        open_library(folder.root, "search.blend=1")


def test_preset_of_a_new_library_is_small_unless_named(tmp_path: Path) -> None:
    assert create_library(tmp_path).config.preset == "small"


def test_files_around_a_new_library_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    create_library(tmp_path, "tiny")
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_library_is_not_made_twice(folder: LibraryPaths) -> None:
    (folder.root / "ponticello.toml").write_text('preset = "base"\n')
    with pytest.raises(
        LibraryError, match="is a library already; use it, or choose another folder"
    ):
        create_library(folder.root, "tiny")
    assert (folder.root / "ponticello.toml").read_text() == 'preset = "base"\n'


def test_unknown_preset_makes_no_folder(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match="preset 'huge' is unknown; use one of paper, base, small, tiny"
    ):
        create_library(tmp_path / "lib", "huge")
    assert not (tmp_path / "lib").exists()


def test_library_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(PonticelloError, match="file"):
        create_library(tmp_path / "file", "tiny")


def test_opening_what_is_no_library_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(LibraryError) as caught:
        open_library(tmp_path)
    wanted = (
        f"{tmp_path} is not a library (ponticello.toml is missing); run: ponticello init {tmp_path}"
    )
    assert str(caught.value) == wanted


def test_settings_come_from_the_file_with_those_given_on_top(folder: LibraryPaths) -> None:
    (folder.root / "ponticello.toml").write_text(
        'preset = "tiny"\n[semantic]\nepochs = 3\nseed = 5\n'
    )
    config = open_library(folder.root, ["semantic.seed=9", "search.blend=0.25"]).config
    assert (config.semantic.epochs, config.semantic.seed, config.search.blend) == (3, 9, 0.25)


def test_everything_lies_where_the_map_says(folder: LibraryPaths) -> None:
    places = {
        folder.tracks: "tracks.parquet",
        folder.interactions: "interactions.parquet",
        folder.pairs: "pairs.parquet",
        folder.validation_pairs: "validation-pairs.parquet",
        folder.splits: "splits.parquet",
        folder.skipped: "skipped.csv",
        folder.mels: "mels",
        folder.index: "index",
        folder.report: "report",
        folder.run("taste 2"): "runs/taste 2",
    }
    assert {path.relative_to(folder.root).as_posix() for path in places} == set(places.values())


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "a/", "../a", "/etc", "/"])
def test_run_name_that_is_no_plain_folder_name_is_refused(folder: LibraryPaths, name: str) -> None:
    with pytest.raises(LibraryError, match=f"run name '{name}' must be a plain folder name"):
        folder.run(name)


def test_library_held_by_another_writer_is_refused_at_once(folder: LibraryPaths) -> None:
    with (
        FileLock(folder.root / ".lock"),
        pytest.raises(
            LibraryError, match="is being written by another process; wait for it to end"
        ),
        folder.lock(),
    ):
        pass
    with folder.lock():
        pass


def test_refusal_names_the_process_that_holds_the_library(folder: LibraryPaths) -> None:
    code = (
        "import sys; from ponticello.storage.layout import open_library\n"
        "with open_library(sys.argv[1]).lock(purpose='mining pairs'):\n"
        "    print('held', flush=True); sys.stdin.readline()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, folder.root],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        with pytest.raises(
            LibraryError,
            match=rf"another process \(mining pairs, process {child.pid} on .+, since 2.+\); wait",
        ):
            folder.lock().__enter__()
        child.communicate("\n")
    with folder.lock():
        pass
    assert not (folder.root / ".lock.json").exists()


def test_lock_is_given_back_when_the_block_fails(folder: LibraryPaths) -> None:
    with pytest.raises(KeyError), folder.lock():
        raise KeyError
    with folder.lock():
        pass


def test_skipped_rows_replace_those_of_their_own_step_only(folder: LibraryPaths) -> None:
    folder.record_skipped("one", [_row("a"), _row("b", None)])
    folder.record_skipped("two", [_row("c")])
    folder.record_skipped("one", [_row('d, "quoted"\nand broken')])
    assert _rows(folder) == [
        ["step", "file", "line", "field", "value", "reason"],
        ["two", "a.csv", "1", "title", "c", "is odd, or so"],
        ["one", "a.csv", "1", "title", 'd, "quoted"\nand broken', "is odd, or so"],
    ]


def test_line_that_is_not_known_is_left_empty(folder: LibraryPaths) -> None:
    folder.record_skipped("one", [_row("a", None)])
    assert _rows(folder)[1] == ["one", "a.csv", "", "title", "a", "is odd, or so"]


def test_file_of_skipped_rows_goes_when_none_are_left(folder: LibraryPaths) -> None:
    folder.record_skipped("one", [])
    assert not folder.skipped.exists()
    folder.record_skipped("one", [_row("a")])
    folder.record_skipped("two", [])
    assert len(_rows(folder)) == 2
    folder.record_skipped("one", [])
    assert not folder.skipped.exists()


def test_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.txt"
    for content in ("one", "two"):
        with atomic_write(path) as temporary:
            temporary.write_text(content)
            assert temporary.parent == path.parent
            assert not path.exists() or path.read_text() == "one"
        assert path.read_text() == content
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]


def test_error_while_writing_leaves_the_old_file_and_no_rest(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")

    def write_half(temporary: Path) -> None:
        temporary.write_text("hal")
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"), atomic_write(path) as temporary:
        write_half(temporary)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("file.txt", "old")]


def test_error_before_writing_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), atomic_write(tmp_path / "file.txt"):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_folder_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    for content in ("one", "two"):
        with atomic_write(path) as temporary:
            temporary.mkdir()
            (temporary / content).write_text(content)
    assert [p.name for p in path.iterdir()] == ["two"]
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_error_in_a_folder_leaves_the_old_one_and_no_rest(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    (path / "old").write_text("old")

    def write_half(temporary: Path) -> None:
        temporary.mkdir()
        (temporary / "new").write_text("new")
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"), atomic_write(path) as temporary:
        write_half(temporary)
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]
    assert [p.name for p in path.iterdir()] == ["old"]


def test_each_front_end_keeps_its_frames_in_a_place_of_its_own(tmp_path: Path) -> None:
    folder = create_library(tmp_path / "library")
    places = {
        "logmel": "mels",
        "musicnn": "frames",
        "features": "frames/features",
        "hf:laion/clap-htsat-fused": "frames/hf-laion-clap-htsat-fused",
        "hf:../my encoder": "frames/hf-..-my-encoder",
    }
    for front_end, place in places.items():
        assert folder.frames_of(front_end) == folder.root / place
    assert len(folder.frames_of("hf:" + "/deep" * 100).name) == 100


def test_what_was_skipped_is_no_formula_in_a_spreadsheet(tmp_path: Path) -> None:
    """Written again with other steps' rows, it gets no second apostrophe."""
    folder = create_library(tmp_path / "lib")
    folder.record_skipped(
        "scan",
        [SkippedRow("a.csv", 2, "title", '=HYPERLINK("http://evil.example")', "is too long")],
    )
    folder.record_skipped("prepare", [SkippedRow("-b.mp3", None, "", "\t=1", "is text")])
    with folder.skipped.open(encoding="utf-8", newline="") as file:
        rows = [row[1:] for row in csv.reader(file)][1:]
    assert rows == [
        ["a.csv", "2", "title", '\'=HYPERLINK("http://evil.example")', "is too long"],
        ["'-b.mp3", "", "", "'\t=1", "is text"],
    ]


def test_full_disk_is_an_os_error_whoever_writes(tmp_path: Path) -> None:
    """As polars words it; what was there stays."""
    (tmp_path / "table.parquet").write_text("before")

    def write() -> None:
        with atomic_write(tmp_path / "table.parquet") as temporary:
            temporary.write_text("half")
            raise pl.exceptions.ComputeError(
                "parquet: File out of specification: underlying IO error: "
                "No space left on device (os error 28)"
            )

    with pytest.raises(OSError, match=r"No space left on device: '.*table\.parquet'"):
        write()
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [
        ("table.parquet", "before")
    ]


def test_cells_longer_than_csv_reads_are_cut_and_old_ones_read(folder: LibraryPaths) -> None:
    """`csv` refuses a field of more than 131,072 characters, and with it the whole list."""
    folder.record_skipped("scan", [_row("a" * 140_000)])
    assert [len(cell) for cell in _rows(folder)[1]] == [4, 5, 1, 5, 5000, 13]
    folder.skipped.write_text(
        f"step,file,line,field,value,reason\nscan,a.csv,1,title,{'b' * 140_000},why\n"
    )
    assert [len(row[4]) for row in read_csv_rows(folder.skipped)[1:]] == [140_000]
    with pytest.raises(csv.Error, match="larger than field limit"):
        _rows(folder)  # the limit of others is as it was
    folder.record_skipped("prepare", [_row("c")])
    assert [len(row[4]) for row in _rows(folder)[1:]] == [5000, 1]


_KILLED = """
import os, sys
from pathlib import Path
from ponticello.storage.files import atomic_write

rename, renamed = Path.replace, []
def killed(source, target):
    if renamed:
        os._exit(9)
    renamed.append(rename(source, target))
Path.replace = killed
with atomic_write(Path(sys.argv[1])) as temporary:
    temporary.mkdir()
    (temporary / "new").write_text("new")
"""


def test_folder_comes_back_after_a_kill_between_its_two_renames(folder: LibraryPaths) -> None:
    """Under the lock, in the library and a level below; elsewhere for the next writer."""
    plots, elsewhere = folder.report / "plots", folder.root / "one" / "two" / "export [a]"
    for path in (plots, elsewhere):
        path.mkdir(parents=True)
        (path / "old").write_text("old")
        assert (
            subprocess.run([sys.executable, "-c", _KILLED, str(path)], check=False).returncode == 9
        )
        assert not path.exists()
    open_library(folder.root)
    assert not plots.exists()  # reading changes nothing
    with folder.lock():
        assert [path.name for path in plots.iterdir()] == ["old"]
    with atomic_write(elsewhere) as temporary:
        assert [path.name for path in elsewhere.iterdir()] == ["old"]
        temporary.mkdir()
    assert [path for path in elsewhere.parent.iterdir() if ".old." in path.name] == []


def test_old_folder_is_there_until_the_new_one_can_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No file of it is deleted before, and it comes back where the new one cannot be named so."""
    path = tmp_path / "folder"
    path.mkdir()
    (path / "old").write_text("old")
    rename = Path.replace

    def refuse(source: Path, target: Path) -> Path:
        if (source / "new").exists():
            raise OSError(5, "Input/output error")
        return rename(source, target)

    monkeypatch.setattr(Path, "replace", refuse)

    def write(temporary: Path) -> None:
        temporary.mkdir()
        (temporary / "new").write_text("new")

    with pytest.raises(OSError, match="Input/output"), atomic_write(path) as temporary:
        write(temporary)
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]
    assert [p.name for p in path.iterdir()] == ["old"]


def test_reader_of_another_host_changes_nothing_between_the_two_renames(
    folder: LibraryPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer's process number is free on the reader's host, so its end cannot be told there."""
    folder.report.mkdir()
    (folder.report / "old").write_text("old")
    rename = Path.replace
    names: list[set[str]] = []

    def replace(source: Path, target: Path) -> Path:
        result = rename(source, target)
        if not folder.report.exists():
            with monkeypatch.context() as reader:
                reader.setattr(files, "gethostname", lambda: "reader.example")
                reader.setattr(files, "_is_process_alive", lambda _: False)
                before = {path.name for path in folder.root.iterdir()}
                open_library(folder.root)
                with folder.lock():
                    pass
                names.extend([before, {path.name for path in folder.root.iterdir()} - {".lock"}])
        return result

    monkeypatch.setattr(Path, "replace", replace)
    with atomic_write(folder.report) as temporary:
        temporary.mkdir()
        (temporary / "new").write_text("new")
    assert len(names) == 2
    assert names[0] - {".lock"} == names[1]
    assert [path.name for path in folder.report.iterdir()] == ["new"]
    assert [path.name for path in folder.root.glob(".report*")] == []


def test_left_over_is_of_an_ended_process_of_this_host(folder: LibraryPaths) -> None:
    ended, host = 2**22 - 1, files._host()
    assert files.is_left_over(folder.root / f".tracks.parquet.{host}.{ended}.tmp")
    assert files.is_left_over(folder.root / f".report.{host}.{ended}.old.tmp")
    assert not files.is_left_over(folder.root / f".report.{host}.{os.getpid()}.old.tmp")
    assert not files.is_left_over(folder.root / f".report.elsewhere.{ended}.old.tmp")
    assert not files.is_left_over(folder.root / "report.tmp")
