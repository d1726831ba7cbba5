"""Listeners' pseudonyms: the same within a library, others in each, and never without the salt."""

from pathlib import Path

import pytest

from ponticello.errors import LibraryError
from ponticello.listening.pseudonyms import SALT_FILE, assign_user_ids, pseudonym, resolve_user_id
from ponticello.storage.layout import create_library


def test_pseudonym_is_steady_in_a_library_and_another_in_the_next(tmp_path: Path) -> None:
    one, two = create_library(tmp_path / "one", "tiny"), create_library(tmp_path / "two", "tiny")
    assert pseudonym(one, "ada") == pseudonym(one, "ada")
    assert (
        len(
            {
                pseudonym(one, "ada"),
                pseudonym(two, "ada"),
                pseudonym(one, "bo"),
                pseudonym(one, "ada", "x"),
            }
        )
        == 4
    )
    assert (one.root / SALT_FILE).stat().st_mode & 0o777 == 0o600


def test_name_is_looked_up_as_itself_and_as_its_pseudonym(tmp_path: Path) -> None:
    folder = create_library(tmp_path / "one", "tiny")
    assert resolve_user_id(folder, "ada", {"x"}) == "ada"
    assert not (folder.root / SALT_FILE).exists()
    hidden = pseudonym(folder, "ada")
    assert resolve_user_id(folder, "ada", {hidden}) == hidden
    assert resolve_user_id(folder, "ada", {hidden, "ada"}) == "ada"
    assert resolve_user_id(folder, "bo", {hidden}) == "bo"
    assert assign_user_ids(folder, ["ada", "bo"], {hidden}, pseudonyms=False) == {
        "ada": hidden,
        "bo": "bo",
    }


def test_salt_that_could_not_be_written_is_made_at_the_next_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = create_library(tmp_path / "one", "tiny")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        pseudonym(folder, "ada")
    monkeypatch.undo()
    assert not (folder.root / SALT_FILE).exists()
    assert pseudonym(folder, "ada") == pseudonym(folder, "ada")
    assert [path.name for path in folder.root.glob("*salt*")] == [SALT_FILE]


def test_damaged_salt_is_an_error(tmp_path: Path) -> None:
    folder = create_library(tmp_path / "one", "tiny")
    (folder.root / SALT_FILE).write_text("not hex")
    with pytest.raises(LibraryError, match=r"user-salt\.txt is damaged: wanted 64 hex digits"):
        pseudonym(folder, "ada")
