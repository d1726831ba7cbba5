"""The way of somebody new: a folder of music, a Spotify export, the README's commands in order, a clock beside.

    python bench/newcomer.py FOLDER --work DIR --write docs/first-hour.md

The music is whatever is in FOLDER. The export is made up in Spotify's form, from what the files' tags say: one listener
who keeps to some artists; so no taste is measured here, only whether every step does its work and how long it takes.
"""

import argparse
import json
import os
import platform
import random
import shlex
import subprocess
import sys
import time
import zipfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tinytag import TinyTag, TinyTagException

LIBRARY, USER = "my-library", "alice"
SESSIONS, PLAYS_A_SESSION, LIKED_SHARE = 120, 7, 0.3
SEARCH_BY_S, TASTE_BY_S = 300, 900
SUFFIXES = {".mp3", ".flac", ".ogg", ".opus", ".m4a", ".wav"}


@dataclass(frozen=True)
class Step:
    """A command, what it printed, and when it had ended: s since the first began."""

    command: str
    printed: str
    ended_s: float
    took_s: float
    code: int


def make_export(folder: Path, target: Path, seed: int = 0) -> int:
    """A zip as Spotify sends it, of a listener of the files in `folder`; the number of plays in it."""
    chance = random.Random(seed)
    songs = []
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in SUFFIXES:
            try:
                tags = TinyTag.get(path)
            except TinyTagException:
                continue
            if tags.title and tags.artist:
                songs.append((tags.title, tags.artist, tags.album))
    artists = sorted({artist for _, artist, _ in songs})
    liked = set(chance.sample(artists, max(1, round(LIKED_SHARE * len(artists)))))
    weights = [6 if artist in liked else 1 for _, artist, _ in songs]
    moment, rows = datetime(2026, 1, 5, 19, tzinfo=UTC), []
    for _ in range(SESSIONS):
        moment += timedelta(hours=chance.uniform(12, 60))
        for title, artist, album in chance.choices(songs, weights, k=PLAYS_A_SESSION):
            moment += timedelta(minutes=4)
            rows.append(
                {
                    "ts": moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
                    "ms_played": 210_000 if artist in liked or chance.random() < 0.5 else 9_000,
                    "master_metadata_track_name": title,
                    "master_metadata_album_artist_name": artist,
                    "master_metadata_album_album_name": album,
                    "spotify_track_uri": None,
                    "reason_end": "trackdone",
                    "skipped": False,
                }
            )
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("Spotify Extended Streaming History/Streaming_History_Audio_2026_0.json", json.dumps(rows))
    return len(rows)


def commands(folder: Path) -> list[str]:
    """The README's, in its order; the first search comes as soon as it can."""
    of = f"-L {LIBRARY}"
    return [
        f"ponticello init {LIBRARY} --preset small",
        f"ponticello scan {shlex.quote(str(folder))} {of}",
        f"ponticello import-history my_spotify_data.zip {of} --user {USER}",
        f"ponticello prepare {of}",
        f"ponticello embed {of}",
        f'ponticello search "slow piano at night" {of} -k 5 --per-artist 1',
        f"ponticello recommend {USER} {of} -k 5 --per-artist 1",
        f"ponticello tag {of}",
        f"ponticello pairs {of} --set pairs.min_listeners=1",
        f"ponticello train semantic {of}",
        f"ponticello train preference {of}",
        f"ponticello embed {of}",
        f'ponticello search "slow piano at night" {of} -k 5 --per-artist 1 --blend 0.3',
        f"ponticello recommend {USER} {of} -k 5 --per-artist 1",
        f"ponticello doctor {of}",
    ]


def run(listed: list[str], work: Path) -> list[Step]:
    """Every command in a process of its own, in `work`; what it prints on a terminal's two streams."""
    started, steps = time.monotonic(), []
    for command in listed:
        began = time.monotonic()
        arguments = [sys.executable, "-m", *shlex.split(command)]
        done = subprocess.run(
            arguments, cwd=work, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        lines = [line for line in done.stdout.splitlines() if line.strip() and "━" not in line and "\r" not in line]
        now = time.monotonic()
        printed = "\n".join(lines).replace(str(work.resolve()), "~")
        steps.append(Step(command, printed, now - started, now - began, done.returncode))
        print(f"{now - started:7.0f} s  {command}  (exit {done.returncode})", flush=True)
    return steps


def transcript(steps: list[Step], n_files: int, n_plays: int) -> str:
    """The page: what was typed, what came back, and when."""
    search = next(step.ended_s for step in steps if " search " in step.command)
    taste = next(step.ended_s for step in steps if " recommend " in step.command)
    trained = [step.ended_s for step in steps if " recommend " in step.command][-1]
    lines = [
        "# The first hour",
        "",
        f"Somebody new, with a folder of {n_files:,} files and a Spotify export of {n_plays:,} plays (made up from the",
        "files' own tags: one listener who keeps to some artists), on",
        f"{os.cpu_count()} processor cores without a GPU (Python {platform.python_version()}). Made by",
        "`python bench/newcomer.py FOLDER --work DIR --write docs/first-hour.md`; progress bars are left out.",
        "",
        f"The first search by words was answered {search:,.0f} s after the first command (wanted: {SEARCH_BY_S}),",
        f"the first recommendation from this listener's own plays after {taste:,.0f} s (wanted: {TASTE_BY_S}),",
        f"and the first from a space that both stages had trained after {trained:,.0f} s.",
        "",
    ]
    for step in steps:
        lines += [
            f"After {step.ended_s:,.0f} s ({step.took_s:,.0f} s for this):",
            "",
            "```console",
            f"$ {step.command}",
        ]
        lines += [step.printed, "```", ""]
    return "\n".join(lines)


def main() -> None:
    """Makes the export, runs the commands, writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a folder of music")
    parser.add_argument("--work", type=Path, required=True, help="an empty folder for the library")
    parser.add_argument("--write", type=Path, help="the page")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    if (arguments.work / LIBRARY).exists():
        sys.exit(f"{arguments.work / LIBRARY} is there already: give an empty folder")
    if not (arguments.work / "Music").exists():
        (arguments.work / "Music").symlink_to(arguments.folder.resolve())
    n_plays = make_export(arguments.folder, arguments.work / "my_spotify_data.zip")
    n_files = sum(path.suffix.lower() in SUFFIXES for path in arguments.folder.rglob("*"))
    steps = run(commands(Path("Music")), arguments.work)
    page = transcript(steps, n_files, n_plays)
    if arguments.write:
        arguments.write.write_text(page, encoding="utf-8")
    sys.exit(any(step.code for step in steps))


if __name__ == "__main__":
    main()
