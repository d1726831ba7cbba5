"""How long a scan takes and how much memory: many small files, then nothing new, then some changed
and moved.

    python bench/scan.py --files 20000

Makes flac, mp3, ogg and wav files of 0.2 s in a temporary folder, half of them with tags, runs
`ponticello scan` on it as a user would, and prints a Markdown table. Memory is the sum over the
command and its worker processes at the worst moment, sampled.
"""

import argparse
import io
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import soundfile

from ponticello.storage.layout import create_library

SECONDS = 0.2
RATE = 44_100
FILES_A_FOLDER = 100
FORMATS = {
    "flac": ("FLAC", "PCM_16"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "ogg": ("OGG", "VORBIS"),
    "wav": ("WAV", "PCM_16"),
}
SAMPLE_EVERY_S = 0.05


@dataclass(frozen=True)
class Run:
    """One scan: s by the clock, MiB at the worst moment, and what it said."""

    title: str
    seconds: float
    peak_mb: float
    said: dict[str, Any]


def make_music(root: Path, n_files: int, seed: int) -> None:
    """Files in folders of a hundred, each with sound and tags of its own."""
    generator = np.random.default_rng(seed)
    templates = {
        suffix: _encoded(generator, *kind) for suffix, kind in FORMATS.items() if suffix != "wav"
    }
    for number in range(n_files):
        suffix = list(FORMATS)[number % len(FORMATS)]
        album = number // FILES_A_FOLDER
        folder = root / f"artist {album // 10:04d}" / f"album {album:05d}"
        folder.mkdir(parents=True, exist_ok=True)
        content = templates.get(suffix) or _encoded(generator, *FORMATS["wav"])
        (folder / f"{number:06d}.{suffix}").write_bytes(_tagged(content, suffix, number))


def _encoded(generator: np.random.Generator, container: str, subtype: str) -> bytes:
    buffer = io.BytesIO()
    noise = generator.normal(0, 0.1, int(SECONDS * RATE))
    soundfile.write(buffer, noise, RATE, format=container, subtype=subtype)
    return buffer.getvalue()


def _tagged(content: bytes, suffix: str, number: int) -> bytes:
    """The file with a title, artist and genre; mp3 and flac carry them as ID3 in front, the others
    as they are.
    """
    if suffix not in ("mp3", "flac"):
        return content + number.to_bytes(8, "little")  # so that no two files are the same
    texts = {
        b"TIT2": f"Title {number}",
        b"TPE1": f"Artist {number // 1_000}",
        b"TCON": "Jazz\0Soul",
    }
    frames = b"".join(
        name + (len(text) + 1).to_bytes(4, "big") + b"\0\0\3" + text.encode()
        for name, text in texts.items()
    )
    size = bytes(len(frames) >> shift & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\4\0\0" + size + frames + content + number.to_bytes(8, "little")


def scan(title: str, music: Path, library: Path, workers: int) -> Run:
    """Runs the command and watches its memory."""
    command = [sys.executable, "-m", "ponticello", "scan", str(music), "-L", str(library)]
    command += ["--workers", str(workers), "--json"]
    start = time.monotonic()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    peak = [0.0]
    watcher = threading.Thread(target=_watch, args=(process.pid, peak), daemon=True)
    watcher.start()
    printed, _ = process.communicate()
    seconds = time.monotonic() - start
    if process.returncode:
        raise SystemExit(f"scan failed with exit code {process.returncode}")
    watcher.join()
    return Run(title, seconds, peak[0] / 2**20, json.loads(printed))


def _watch(pid: int, peak: list[float]) -> None:
    """Keeps the highest sum of the resident memory of a process and its children, bytes, until it
    ends.
    """
    try:
        parent = psutil.Process(pid)
        while parent.is_running() and parent.status() != psutil.STATUS_ZOMBIE:
            total = 0
            for process in [parent, *parent.children(recursive=True)]:
                try:
                    total += process.memory_info().rss
                except psutil.Error:
                    continue
            peak[0] = max(peak[0], float(total))
            time.sleep(SAMPLE_EVERY_S)
    except psutil.Error:
        return


def change(music: Path, n_changed: int) -> None:
    """Renames the first folder, and gives the last mp3 files another title."""
    first = min(music.iterdir())
    first.rename(first.with_name("a renamed folder"))
    for path in sorted(music.rglob("*.mp3"))[-n_changed:]:
        path.write_bytes(path.read_bytes().replace(b"Title", b"Other", 1))


def table(runs: list[Run]) -> str:
    """The runs as Markdown."""
    lines = [
        "| scan | s | MB at most | new | updated | moved | unchanged |",
        "|---|---|---|---|---|---|---|",
    ]
    for run in runs:
        found = " | ".join(
            f"{run.said[f'n_{name}']:,}" for name in ("new", "updated", "moved", "unchanged")
        )
        lines.append(f"| {run.title} | {run.seconds:.1f} | {run.peak_mb:.0f} | {found} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="ponticello-scan-"))
    try:
        music, library = work / "music", work / "library"
        create_library(library)
        make_music(music, arguments.files, arguments.seed)
        runs = [
            scan("first", music, library, arguments.workers),
            scan("again", music, library, arguments.workers),
        ]
        change(music, n_changed=min(200, arguments.files // 20))
        runs.append(scan("after changes", music, library, arguments.workers))
    finally:
        shutil.rmtree(work)
    print(f"{arguments.files:,} files, {arguments.workers} workers, seed {arguments.seed}\n")
    print(table(runs))


if __name__ == "__main__":
    main()
