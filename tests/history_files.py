"""Files of listening histories for tests: made, read by their own readers, and their moments."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ponticello.listening.importers.detect import detect_format
from ponticello.listening.importers.lastfm import read_lastfm
from ponticello.listening.importers.records import Record
from ponticello.listening.importers.run import READERS
from ponticello.listening.importers.sources import HistoryFile, open_sources

MBID = "11111111-2222-4333-8444-555555555555"


def source(path: Path, content: str | bytes | None = None) -> HistoryFile:
    if content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    with open_sources(path) as found:
        return found[0]


def at(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1e6)


def read(given: HistoryFile) -> list[Record]:
    """What the format's own reader makes of a file, once its content has told the format."""
    found = detect_format(given)
    assert found is not None
    return list(read_lastfm(given) if found == "lastfm" else READERS[found](given))


def lines(*items: Any) -> str:
    return "".join(f"{item if isinstance(item, str) else json.dumps(item)}\n" for item in items)
