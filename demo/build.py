"""Chooses the demo's tracks from a `freemusic` folder and writes this folder's audio, table and
attribution.

    python demo/build.py FREEMUSIC_FOLDER

Only files whose licence allows redistribution and is stated for the file or its folder are taken,
at most 28 a game, so that no game fills the catalogue and the whole stays under 15 MB.
"""

import csv
import hashlib
import re
import shutil
import sys
from collections import defaultdict
from pathlib import Path

PER_GAME = 28
TAG_SCORE = 0.1  # machine-made tags below this are left out
HERE = Path(__file__).parent
COLUMNS = (
    *("track_id", "path", "title", "artist", "album", "genres", "about", "game"),
    *("release_date", "machine_tags", "license", "attribution", "source"),
)


def main(source: Path) -> None:
    """Writes audio/, tracks.csv, ATTRIBUTION.md and licenses/ beside this file."""
    rows = list(csv.DictReader((source / "tracks.csv").open(encoding="utf-8", newline="")))
    tags = defaultdict(list)
    for row in csv.DictReader((source / "auto_tags.csv").open(encoding="utf-8", newline="")):
        if float(row["score"]) >= TAG_SCORE:
            tags[row["track_id"]].append(row["tag"].lower())
    by_game = defaultdict(list)
    for row in rows:
        if row["cc"] == "true" and row["license_scope"] in {"file", "folder"}:
            by_game[row["package"]].append(row)
    chosen = [row for game in by_game.values() for row in sorted(game, key=shuffled)[:PER_GAME]]
    chosen.sort(key=lambda row: row["track_id"])
    for folder in ("audio", "licenses"):
        shutil.rmtree(HERE / folder, ignore_errors=True)
        (HERE / folder).mkdir()
    for row in chosen:
        shutil.copyfile(source / row["file"], HERE / "audio" / f"{row['track_id']}.opus")
    for package in sorted({row["package"] for row in chosen}):
        shutil.copyfile(
            source / "licenses" / f"{package}.txt", HERE / "licenses" / f"{package}.txt"
        )
    with (HERE / "tracks.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(as_track(row, tags[row["track_id"]]) for row in chosen)
    (HERE / "ATTRIBUTION.md").write_text(attribution(chosen), encoding="utf-8")
    print(f"{len(chosen)} tracks of {len(by_game)} games")


def shuffled(row: dict[str, str]) -> str:
    """An order that depends on nothing but the id."""
    return hashlib.sha256(row["track_id"].encode()).hexdigest()


def as_track(row: dict[str, str], tags: list[str]) -> dict[str, str]:
    """A row of the demo's tracks table; an artist the tags do not name is taken from a single
    copyright holder.
    """
    return {
        "track_id": row["track_id"],
        "path": f"audio/{row['track_id']}.opus",
        "title": row["title"] or row["title_from_file"],
        "artist": row["artist"] or single_holder(row["attribution"]),
        "album": row["album"] or f"{row['game']} (game music)",
        "genres": row["genre"],
        "about": row["about"],
        "game": row["game"],
        "release_date": row["date"],
        "machine_tags": ";".join(tags),
        "license": licence(row),
        "attribution": without_addresses(row["attribution"]),
        "source": f"{row['package']}:{row['source_file']}",
    }


def single_holder(attribution: str) -> str:
    """The one name an attribution consists of, without years, addresses and links; empty if it
    names several.
    """
    plain = re.sub(r"\s*(<[^>]*>|\([^)]*\))", "", attribution)
    plain = re.sub(r"^(Copyright)?[\d,\s-]*(?=\D)", "", plain).strip()
    return "" if ";" in plain else plain


def without_addresses(attribution: str) -> str:
    """The names without e-mail addresses, which stand in the licence files."""
    return re.sub(r"\s*<[^>]*@[^>]*>", "", attribution)


def licence(row: dict[str, str]) -> str:
    """The licence the excerpt is passed on under: the CC one where two are offered."""
    return "CC-BY-3.0" if row["license"] == "GPL-3 or CC-BY-3.0" else row["license"]


def attribution(rows: list[dict[str, str]]) -> str:
    """ATTRIBUTION.md: what was changed, and title, holder and licence of every excerpt."""
    lines = [
        "# The demo's music",
        "",
        "Each file in `audio/` is an excerpt of at most 30 s, mixed to mono and encoded as Opus",
        "at 32 kbit/s, of a piece of game music that Debian distributes; nothing else was",
        "changed. The excerpts stay under the licences below, whose texts and copyright",
        "statements are in `licenses/<package>.txt`. The `machine_tags` in `tracks.csv` were",
        "made by a tagger (MSD_musicnn, ISC licence), not by people.",
        "",
        "| excerpt | title | by | licence | package: file |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        title = row["title"] or row["title_from_file"] or "(untitled)"
        holder = without_addresses(row["attribution"]).replace("|", "/")
        source = f"{row['package']}: {row['source_file']}"
        lines.append(f"| {row['track_id']} | {title} | {holder} | {licence(row)} | {source} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
