"""Which track a scanned file is: the one its place had, the one its sound had elsewhere, an imported one, or a new one.

A row is free to be claimed where its file has gone, or where its place holds other sound now. Nothing else is guessed.
"""

import re
import unicodedata
from collections.abc import Callable, Mapping, Set
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from ponticello.data.file_tags import FileFacts

_SLUG_LENGTH = 40  # characters of a file's name in an id
_HASH_LENGTH = 10  # hex digits of its sound's hash in an id


class KnownFile(NamedTuple):
    """A file as it was read last, without its tags. track_id: None where it never was a track."""

    size: int
    mtime_ns: int
    content_hash: str | None
    audio_hash: str | None
    track_id: str | None
    reason: str | None


class Claim(NamedTuple):
    """A file's track. kind: what became of the file. moved_from: the place it had, if that is another."""

    kind: str
    track_id: str
    moved_from: str | None = None


class Identities:
    """The files known before, by path, and what becomes of their tracks.

    known: by path as stored; those that move are taken out. here: the paths that are there now. imported: {path: id}
    of the catalogue. taken: ids that a new track may not have. is_there: whether a file outside the scanned folder is.
    """

    def __init__(
        self,
        known: dict[str, KnownFile],
        here: Set[str],
        imported: Mapping[str, str],
        taken: set[str],
        is_there: Callable[[str], bool],
    ) -> None:
        self.known, self._imported, self._taken, self._is_there = known, imported, taken, is_there
        self._free: dict[str, KnownFile] = {}
        self._by_hash: dict[str, list[str]] = {}
        self._replaced: set[str] = set()
        self._moved: set[str] = set()  # ids
        for path, row in sorted(known.items()):
            if path not in here and row.track_id and row.audio_hash:
                self._set_free(path, row)

    def is_replaced(self, path: str, facts: FileFacts) -> bool:
        """Whether this place held a track with other sound, which may now be elsewhere; its row is then free."""
        row = self.known.get(path)
        if row is None or row.track_id is None or row.audio_hash in (None, facts.audio_hash):
            return False
        self._replaced.add(path)
        self._set_free(path, row)
        return True

    def moved(self, path: str, facts: FileFacts) -> Claim | None:
        """The free track with this file's content, else with its sound; of several one whose file had this name."""
        for name in (facts.content_hash, f"audio {facts.audio_hash}"):
            free = [old for old in self._by_hash.get(name, ()) if old in self._free and old != path]
            for old in sorted(free, key=lambda old: Path(old).name != Path(path).name):
                if old in self._replaced or not self._is_there(old):
                    if old not in self._replaced:
                        del self.known[old]
                    track_id = str(self._free.pop(old).track_id)
                    self._moved.add(track_id)
                    return Claim("moved", track_id, old)
        return None

    def settled(self, path: str, facts: FileFacts) -> Claim:
        """The track of a file that has not moved: its place's, an imported one, or a new one."""
        row = self._free.pop(path, None) if path in self._replaced else self.known.get(path)
        if row is not None and row.track_id:
            return Claim("unchanged" if row.content_hash == facts.content_hash else "updated", row.track_id)
        imported = self._imported.get(path)
        if imported is not None and imported not in self._moved:
            return Claim("updated", imported)
        return Claim("new", self._new_id(path, facts.audio_hash))

    def _set_free(self, path: str, row: KnownFile) -> None:
        self._free[path] = row
        for name in (str(row.content_hash), f"audio {row.audio_hash}"):
            self._by_hash.setdefault(name, []).append(path)

    def _new_id(self, path: str, audio_hash: str) -> str:
        name = unicodedata.normalize("NFC", Path(path).stem).casefold()
        slug = re.sub(r"[\W_]+", "-", name).strip("-")[:_SLUG_LENGTH].strip("-")
        track_id = f"{slug}-{audio_hash[:_HASH_LENGTH]}".lstrip("-")
        while track_id in self._taken:  # the same sound under the same name
            track_id += "-" + blake2b(path.encode(), digest_size=3).hexdigest()
        self._taken.add(track_id)
        return track_id
