"""Listeners under names that do not tell who they are: a keyed hash of each id, with a key that
stays in the library.

Who has the library and a name can look that listener up; who has the vectors, pairs or a report
cannot go back.
Without the key file nobody can: to delete it is to make the log anonymous for good.
"""

import hashlib
import hmac
import os
import secrets
from collections.abc import Collection, Sequence

from ponticello.errors import LibraryError
from ponticello.storage.files import atomic_write
from ponticello.storage.layout import LibraryPaths

SALT_FILE = "user-salt.txt"
_SALT_BYTES = 32
# hex digits of a pseudonym, 80 bits: two of a billion listeners are the same once in a million
# libraries
_DIGITS = 20


def pseudonym(folder: LibraryPaths, name: str, kind: str = "user") -> str:
    """`user-` and 20 hex digits: HMAC-SHA256 of `name` with the library's salt, which is made when
    first needed.

    The salt file has mode 0600. The caller holds the library's lock. LibraryError: the file is
    damaged.
    """
    return _hidden(_salt(folder), name, kind)


def resolve_user_id(folder: LibraryPaths, name: str, known: Collection[str]) -> str:
    """The id under which the log has `name`: itself, else its pseudonym, else `name` unchanged.

    known: the ids of the log.
    """
    if name in known or not (folder.root / SALT_FILE).is_file():
        return name
    hidden = pseudonym(folder, name)
    return hidden if hidden in known else name


def assign_user_ids(
    folder: LibraryPaths, names: Sequence[str], known: Collection[str], *, pseudonyms: bool
) -> dict[str, str]:
    """{name: its id}: the one the log has them under; for a new listener a pseudonym, or the name
    itself if `plain`.
    """
    new = [name for name in names if name not in known]
    found = {name: name for name in names}
    if new and (pseudonyms or (folder.root / SALT_FILE).is_file()):
        salt = _salt(folder)
        hidden = {name: _hidden(salt, name, "user") for name in new}
        found |= {name: each for name, each in hidden.items() if pseudonyms or each in known}
    return found


def _hidden(salt: bytes, name: str, kind: str) -> str:
    digest = hmac.new(salt, f"{kind}:{name}".encode("utf-8", "replace"), hashlib.sha256)
    return f"{kind}-{digest.hexdigest()[:_DIGITS]}"


def _salt(folder: LibraryPaths) -> bytes:
    path = folder.root / SALT_FILE
    if path.is_file():
        written = path.read_text(encoding="ascii", errors="replace").strip()
        try:
            salt = bytes.fromhex(written)
        except ValueError:
            salt = b""
        if len(salt) != _SALT_BYTES:
            raise LibraryError(
                f"{path} is damaged: wanted {2 * _SALT_BYTES} hex digits; restore it from a backup, or delete it to "
                "give every listener of a later import a new id"
            ) from None
        return salt
    salt = secrets.token_bytes(_SALT_BYTES)
    with atomic_write(
        path
    ) as temporary:  # whole or not at all: half a salt would stop every later import
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(f"{salt.hex()}\n")
    return salt
