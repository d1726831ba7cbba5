"""Which files a walk finds, and that nothing on a disk can hold it up."""

import os
from pathlib import Path

import pytest

from ponticello.tracks.scan import find_audio_files


def touch(path: Path, content: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def names(root: Path) -> list[str]:
    return [os.path.relpath(found.path, root) for found in find_audio_files(root).files]


def test_files_named_like_sound_are_found_by_path_with_size_and_time(tmp_path: Path) -> None:
    for name in ("b/2.MP3", "b/1.flac", "a.opus", "b/c/x.wma", "cover.jpg", "b/list.m3u", "README"):
        touch(tmp_path / name, b"abc")
    walk = find_audio_files(tmp_path)
    assert [os.path.relpath(found.path, tmp_path) for found in walk.files] == [
        "a.opus",
        "b/1.flac",
        "b/2.MP3",
        "b/c/x.wma",
    ]
    status = (tmp_path / "a.opus").stat()
    assert (walk.files[0].size, walk.files[0].mtime_ns) == (3, status.st_mtime_ns)
    assert walk.ignored == {".jpg": 1, ".m3u": 1, "": 1}
    assert walk.refused == []


def test_dotted_names_are_left_out(tmp_path: Path) -> None:
    for name in ("._a.mp3", ".Trash/b.mp3", "c.mp3"):
        touch(tmp_path / name)
    assert names(tmp_path) == ["c.mp3"]


def test_loops_end_and_each_file_is_found_once_under_its_own_name(tmp_path: Path) -> None:
    touch(tmp_path / "music" / "z" / "song.mp3")
    (tmp_path / "music" / "a").symlink_to(tmp_path / "music")
    (tmp_path / "music" / "b").symlink_to("b")
    (tmp_path / "music" / "z" / "up").symlink_to("..")
    (tmp_path / "music" / "again.mp3").symlink_to("z/song.mp3")
    (tmp_path / "music" / "self.mp3").symlink_to("self.mp3")
    (tmp_path / "music" / "lost.mp3").symlink_to("nowhere.mp3")
    walk = find_audio_files(tmp_path / "music")
    assert names(tmp_path / "music") == ["z/song.mp3"]
    assert sorted((Path(path).name, why.split(":")[0]) for path, why in walk.refused) == [
        ("lost.mp3", "is a link that leads nowhere"),
        ("self.mp3", "is a link that leads nowhere"),
    ]


def test_links_to_elsewhere_are_followed(tmp_path: Path) -> None:
    touch(tmp_path / "disk" / "one.mp3")
    touch(tmp_path / "disk" / "more" / "two.mp3")
    (tmp_path / "music").mkdir()
    (tmp_path / "music" / "one.mp3").symlink_to(tmp_path / "disk" / "one.mp3")
    (tmp_path / "music" / "more").symlink_to(tmp_path / "disk" / "more")
    assert names(tmp_path / "music") == ["more/two.mp3", "one.mp3"]


def test_pipes_and_names_that_are_no_unicode_are_refused_with_the_reason(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp3")
    os.mkfifo(tmp_path / "pipe")
    touch(Path(os.fsdecode(bytes(tmp_path) + b"/caf\xe9.mp3")))
    touch(Path(os.fsdecode(bytes(tmp_path) + b"/folder\xff/song.mp3")))
    touch(tmp_path / "two\nlines.mp3")
    touch(tmp_path / f"{'x' * 251}.mp3")
    walk = find_audio_files(tmp_path)
    assert [Path(found.path).name for found in walk.files] == ["two\nlines.mp3", f"{'x' * 251}.mp3"]
    assert sorted((os.fsencode(path).rpartition(b"/")[2], why) for path, why in walk.refused) == [
        (b"caf\xe9.mp3", "its name is not valid Unicode (UTF-8); rename it"),
        (b"folder\xff", "its name is not valid Unicode (UTF-8); rename it"),
        (b"pipe.mp3", "is a device or pipe, not a file"),
    ]


def test_folder_that_may_not_be_read_is_refused_and_the_rest_found(tmp_path: Path) -> None:
    touch(tmp_path / "closed" / "a.mp3")
    touch(tmp_path / "open" / "b.mp3")
    (tmp_path / "closed").chmod(0)
    try:
        if os.access(tmp_path / "closed", os.R_OK):
            pytest.skip("this user reads everything")
        walk = find_audio_files(tmp_path)
    finally:
        (tmp_path / "closed").chmod(0o755)
    assert [Path(found.path).name for found in walk.files] == ["b.mp3"]
    assert walk.refused == [(str(tmp_path / "closed"), "cannot be read: Permission denied")]


def test_depth_is_no_matter(tmp_path: Path) -> None:
    """Folders nested deeper than a path can be: only the files that lie too deep are refused."""
    here = os.open(tmp_path, os.O_RDONLY)
    try:
        for _ in range(60):
            os.mkdir("d" * 100, dir_fd=here)
            inner = os.open("d" * 100, os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = inner
    finally:
        os.close(here)
    touch(tmp_path / "a.mp3")
    walk = find_audio_files(tmp_path)
    assert [Path(found.path).name for found in walk.files] == ["a.mp3"]
    assert [why for _, why in walk.refused] == ["cannot be read: File name too long"]
