"""Pseudonyms of listeners: keyed hashes of their names, with a key that stays in the library.

With the library and a name, that listener's events can be found; from vectors, pairs or a report
alone the name cannot be computed. Deleting the key file makes the log anonymous for good.
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
_N_DIGITS = 20  # hex, 80 bits: a collision among a billion users in one of a million libraries


def pseudonym(folder: LibraryPaths, name: str, kind: str = "user") -> str:
    """Returns `user-` and 20 hex digits: HMAC-SHA256 of `name` with the library's salt.

    The salt file (mode 0600) is made when it is first needed. The caller holds the library's lock.
    LibraryError: the salt file is damaged.
    """
    return _keyed_hash(_salt(folder), name, kind)


def resolve_user_id(folder: LibraryPaths, name: str, user_ids: Collection[str]) -> str:
    """Returns the id for `name` in the log's `user_ids`: itself or its pseudonym, else `name`."""
    if name in user_ids or not (folder.root / SALT_FILE).is_file():
        return name
    hashed = pseudonym(folder, name)
    return hashed if hashed in user_ids else name


def assign_user_ids(
    folder: LibraryPaths, names: Sequence[str], user_ids: Collection[str], *, pseudonyms: bool
) -> dict[str, str]:
    """Returns {name: user id}; users of the log keep theirs, new ones get a pseudonym if wanted."""
    assigned = {name: name for name in names}
    new_names = [name for name in names if name not in user_ids]
    if new_names and (pseudonyms or (folder.root / SALT_FILE).is_file()):
        salt = _salt(folder)
        for name in new_names:
            hashed = _keyed_hash(salt, name, "user")
            if pseudonyms or hashed in user_ids:
                assigned[name] = hashed
    return assigned


def _keyed_hash(salt: bytes, name: str, kind: str) -> str:
    digest = hmac.new(salt, f"{kind}:{name}".encode("utf-8", "replace"), hashlib.sha256)
    return f"{kind}-{digest.hexdigest()[:_N_DIGITS]}"


def _salt(folder: LibraryPaths) -> bytes:
    path = folder.root / SALT_FILE
    if path.is_file():
        return _read_salt(path.read_text(encoding="ascii", errors="replace").strip(), str(path))
    salt = secrets.token_bytes(_SALT_BYTES)
    # Written whole or not at all: half a salt would stop every later import.
    with atomic_write(path) as temporary:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(f"{salt.hex()}\n")
    return salt


def _read_salt(digits: str, name: str) -> bytes:
    try:
        salt = bytes.fromhex(digits)
    except ValueError:
        salt = b""
    if len(salt) != _SALT_BYTES:
        raise LibraryError(
            f"{name} is damaged: wanted {2 * _SALT_BYTES} hex digits; restore it from a backup, "
            "or delete it to give every listener of a later import a new id"
        )
    return salt
