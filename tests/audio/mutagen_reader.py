"""A second opinion on tags: what mutagen, an independent reader, finds, under the catalogue's
column names.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import mutagen
from mutagen.apev2 import APEv2
from mutagen.asf import ASF
from mutagen.id3 import ID3
from mutagen.mp4 import MP4

_VORBIS = {
    "title": ["title"],
    "artist": ["artist"],
    "artists": ["artists"],
    "album": ["album"],
    "album_artist": ["albumartist", "album artist"],
    "genres": ["genre"],
    "release_date": ["date"],
    "language": ["language"],
    "lyrics": ["lyrics", "unsyncedlyrics"],
    "description": ["description"],
    "comment": ["comment"],
    "mbid": ["musicbrainz_trackid"],
    "isrc": ["isrc"],
    "track": ["tracknumber"],
    "disc": ["discnumber"],
}
_ID3 = {
    "title": ["TIT2"],
    "artist": ["TPE1"],
    "artists": ["TXXX:ARTISTS", "TXXX:Artists"],
    "album": ["TALB"],
    "album_artist": ["TPE2"],
    "release_date": ["TDRC"],
    "language": ["TLAN"],
    "description": ["TXXX:description", "TXXX:DESCRIPTION"],
    "isrc": ["TSRC"],
    "track": ["TRCK"],
    "disc": ["TPOS"],
}
_ITUNES = "----:com.apple.iTunes:"
_MP4 = {
    "title": ["\xa9nam"],
    "artist": ["\xa9ART"],
    "artists": [_ITUNES + "ARTISTS"],
    "album": ["\xa9alb"],
    "album_artist": ["aART"],
    "genres": ["\xa9gen"],
    "release_date": ["\xa9day"],
    "language": [_ITUNES + "LANGUAGE"],
    "lyrics": ["\xa9lyr"],
    "description": ["desc"],
    "comment": ["\xa9cmt"],
    "mbid": [_ITUNES + "MusicBrainz Track Id"],
    "isrc": [_ITUNES + "ISRC"],
}
_ASF = {
    "title": ["Title"],
    "artist": ["Author"],
    "artists": ["WM/ARTISTS"],
    "album": ["WM/AlbumTitle"],
    "album_artist": ["WM/AlbumArtist"],
    "genres": ["WM/Genre"],
    "release_date": ["WM/Year"],
    "language": ["WM/Language"],
    "lyrics": ["WM/Lyrics"],
    "comment": ["Description"],
    "mbid": ["MusicBrainz/Track Id"],
    "isrc": ["WM/ISRC"],
    "track": ["WM/TrackNumber"],
    "disc": ["WM/PartOfSet"],
}
_GAINS = ("track_gain", "track_peak", "album_gain", "album_peak")
_SEVERAL = ("artist", "artists", "genres")


def by_mutagen(path: Path) -> dict[str, Any]:
    """{column: value} of a file's tags as mutagen reads them; blanks stripped, repetitions once,
    None where empty.
    """
    file = mutagen.File(path)
    tags = {} if file is None or file.tags is None else file.tags
    lists = {column: _all(tags, names) for column, names in _table(tags).items()}
    extra = {
        name: _all(tags, [name, name.upper()]) for name in [f"replaygain_{gain}" for gain in _GAINS]
    }
    if isinstance(tags, ID3):
        lists["genres"] = [genre for frame in tags.getall("TCON") for genre in frame.genres]
        lists["lyrics"] = [frame.text for frame in tags.getall("USLT")]
        lists["comment"] = [
            text for f in tags.getall("COMM") if f.desc in ("", "ID3v1 Comment") for text in f.text
        ]
        lists["mbid"] = [
            f.data.decode() for f in tags.getall("UFID") if f.owner == "http://musicbrainz.org"
        ]
        extra = {name: _all(tags, [f"TXXX:{name}", f"TXXX:{name.upper()}"]) for name in extra}
    elif isinstance(tags, MP4) or tags.__class__.__name__ == "MP4Tags":
        lists["track"] = [str(number) for number, _ in tags.get("trkn", [])]
        lists["disc"] = [str(number) for number, _ in tags.get("disk", [])]
        extra = {name: _all(tags, [_ITUNES + name]) for name in extra}
    clean = {column: _stripped(values) for column, values in lists.items()}
    found: dict[str, Any] = {
        column: (values or None) if column in _SEVERAL else (values[0] if values else None)
        for column, values in clean.items()
        if column not in ("track", "disc")
    }
    found["artists"] = found.get("artists") or found.get("artist")
    found["artist"] = ", ".join(found["artist"]) if found.get("artist") else None
    for name in ("track", "disc"):
        number = (clean.get(name) or [""])[0].partition("/")[0]
        found[f"{name}_number"] = int(number) if number.isdecimal() and int(number) else None
    for name, values in extra.items():
        column = f"{name}_db" if name.endswith("gain") else name
        found[column] = float(values[0].removesuffix("dB")) if values else None
    found.setdefault("description", None)
    found["duration_s"] = None if file is None or file.info is None else file.info.length
    return found


def _table(tags: Any) -> dict[str, list[str]]:
    if isinstance(tags, ID3):
        return _ID3
    if tags.__class__.__name__ == "MP4Tags" or isinstance(tags, MP4):
        return _MP4
    return _ASF if isinstance(tags, ASF) or tags.__class__.__name__ == "ASFTags" else _VORBIS


def _all(tags: Any, names: Iterable[str]) -> list[str]:
    """Every value under these names, as text."""
    assert not isinstance(tags, APEv2)
    values: list[str] = []
    for name in names:
        try:
            found = tags[name]
        except (KeyError, ValueError):
            continue
        found = getattr(found, "text", found)
        values += [_as_text(value) for value in (found if isinstance(found, list) else [found])]
    return values


def _as_text(value: Any) -> str:
    value = value.decode() if isinstance(value, bytes) else value
    return str(getattr(value, "value", value))


def _stripped(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(value.strip() for value in values if value.strip()))
