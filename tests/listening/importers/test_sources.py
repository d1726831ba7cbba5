"""Folders and zips: what is read of them, and what is not."""

import zipfile
from pathlib import Path

import pytest

from ponticello.errors import DataError
from ponticello.listening.importers import sources as module
from ponticello.listening.importers.sources import open_sources


def _zip(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "/"), content)
    return path


def _names(path: Path) -> list[str]:
    with open_sources(path) as found:
        return [source.name for source in found]


def test_zip_is_read_by_member_in_order(tmp_path: Path) -> None:
    path = tmp_path / "export.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in (
            "b/2.jsonl",
            "a/1.json",
            "a/.hidden.json",
            "__MACOSX/a/1.json",
            "read.pdf",
            "inner.zip",
        ):
            archive.writestr(name, b"[]")
    assert _names(path) == ["a/1.json", "b/2.jsonl"]
    with open_sources(path) as found:
        assert (found[0].path, found[0].head()) == (None, b"[]")


def test_names_that_leave_the_zip_are_passed_over_and_nothing_is_written(tmp_path: Path) -> None:
    path = tmp_path / "in" / "evil.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("../../out.json", "/abs.json", "a\\..\\..\\b.json", "ok.json"):
            archive.writestr(name, b"[]")
    with open_sources(path) as found:
        assert [source.head() for source in found] == [b"[]"] * len(found)
        assert "ok.json" in [source.name for source in found]
        assert not [source.name for source in found if ".." in source.name]
    assert [each.name for each in tmp_path.rglob("*.json")] == []


def test_folder_is_read_with_the_zips_in_it_and_without_links(tmp_path: Path) -> None:
    root = tmp_path / "all"
    (root / "deep").mkdir(parents=True)
    (root / "deep" / "1.json").write_text("[]")
    (root / "song.mp3").write_text("x")
    (root / "link.json").symlink_to(root / "deep" / "1.json")
    _zip(root / "z.zip", **{"in.json": b"[]"})
    assert _names(root) == ["deep/1.json", "z.zip/in.json"]


@pytest.mark.parametrize(
    ("limit", "value", "wanted"),
    [
        ("MOST_MEMBERS", 1, "holds 2 files, and is not read"),
        ("MOST_BYTES", 10, "says it holds more than an export can, and is not read"),
        ("_RATIO_FROM_BYTES", 10, "holds 'a.json', 1,000,000 bytes packed into"),
    ],
)
def test_bomb_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: int, wanted: str
) -> None:
    monkeypatch.setattr(module, limit, value)
    path = _zip(tmp_path / "b.zip", **{"a.json": b" " * 1_000_000, "b.json": b"[]"})
    with pytest.raises(DataError, match=wanted), open_sources(path):
        pass


def test_encrypted_and_damaged_zips_are_refused(tmp_path: Path) -> None:
    path = _zip(tmp_path / "l.zip", **{"a.json": b"[]"})
    data = bytearray(path.read_bytes())
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + at] |= 1
    path.write_bytes(data)
    with (
        pytest.raises(DataError, match=r"l\.zip: 'a.json' is encrypted; unpack it yourself"),
        open_sources(path),
    ):
        pass
    path.write_bytes(data[:30])
    with pytest.raises(DataError, match=r"l\.zip is not a readable zip"), open_sources(path):
        pass
    with (
        pytest.raises(DataError, match="is not a file or folder; check the path"),
        open_sources(tmp_path / "no"),
    ):
        pass
