"""From files to prepared log-mels: how fast, beside librosa and beside decoding alone; reading
them; memory.

    OMP_NUM_THREADS=1 python bench/ingest.py PATH/TO/freemusic --json ingest.json

Sounds are excerpts of freemusic in a row, 44.1 kHz stereo, written as mp3, Ogg Vorbis and FLAC by
libsndfile. Ours is `mel_of_file`, which `prepare` calls in every worker. librosa is `load` at 16
kHz, `feature.melspectrogram` and `power_to_db` with the same settings; it gives the same numbers.
"Decode and resample" is the fastest decoder of those
tried here, a mean over channels and soxr at the same quality, and nothing else: what no way to a
log-mel can be faster than. One thread; cases run in turn, and a ratio is the median over the runs'
own, with the least and the most.
Prints Markdown: the tables of `docs/speed.md`.
"""

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import librosa
import miniaudio
import numpy as np
import soundfile
import soxr
from scipy.fft import rfft

from ponticello.audio.decode import load_audio
from ponticello.audio.mel import log_mel, mel_of_file
from ponticello.config import MelConfig
from ponticello.features.extraction import ExtractionJob
from ponticello.features.prepare import prepare_features
from ponticello.features.store import FeatureStore
from ponticello.storage.layout import create_library
from timing import in_turn, said

FILE_RATE = 44_100  # Hz
FORMATS = ("mp3", "ogg", "flac")
MEL = MelConfig()
LENGTHS_S = (30, 120, 480)
RUNS = 7
READ_FRAMES = 1250  # of 128 numbers of 2 bytes: 320 KB a track
READ_TRACKS = 2000
PREPARED_TRACKS = 1000
LONG_HOURS = 10
A_LONG_FILE = """
import resource, sys
from pathlib import Path
from ponticello.config import MelConfig
from ponticello.audio.mel import mel_of_file
n_frames = mel_of_file(Path(sys.argv[1]), MelConfig()).shape[0]
print(n_frames, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
Ratio = tuple[float, float, float]


@dataclass(frozen=True)
class File:
    """A row of files: ms of ours; librosa's time and that of the fastest `decoder` alone, times
    ours.
    """

    suffix: str
    ours_ms: float
    librosa: Ratio
    limit: Ratio
    decoder: str


@dataclass(frozen=True)
class Mel:
    """A row of waveforms: ms of ours; librosa's time and that of the Fourier transforms alone,
    times ours.
    """

    seconds: float
    ours_ms: float
    librosa: Ratio
    transforms: Ratio
    off_db: float  # the largest difference from librosa's numbers


def sound_of(source: Path, seconds: float) -> np.ndarray:
    """(n, 2) float32 at 44.1 kHz: excerpts in a row, another one a side."""
    files = sorted(path for path in (source / "audio").rglob("*") if path.is_file())
    sides, wanted = [], int(seconds * FILE_RATE)
    for first in (0, 1):
        parts, n_samples, place = [], 0, first
        while n_samples < wanted:
            parts.append(load_audio(files[place % len(files)], FILE_RATE))
            n_samples += len(parts[-1])
            place += 2
        sides.append(np.concatenate(parts)[:wanted])
    return np.stack(sides, axis=1)


def by_librosa(path: Path) -> np.ndarray:
    """(F, T) float32: the way most write it, with our settings."""
    waveform, _ = librosa.load(path, sr=MEL.sample_rate, mono=True, duration=MEL.max_seconds)
    return librosa_mel(waveform)


def librosa_mel(waveform: np.ndarray) -> np.ndarray:
    """(F, T) dB."""
    power = librosa.feature.melspectrogram(
        y=waveform,
        sr=MEL.sample_rate,
        n_fft=MEL.n_fft,
        hop_length=MEL.hop_length,
        n_mels=MEL.n_mels,
        fmin=MEL.f_min_hz,
        fmax=MEL.f_max_hz,
    )
    decibels: np.ndarray = librosa.power_to_db(power, top_db=MEL.top_db)
    return decibels


def by_miniaudio(path: Path) -> None:
    """The whole file into memory, and to 16 kHz mono."""
    decoded = miniaudio.decode_file(
        str(path),
        output_format=miniaudio.SampleFormat.FLOAT32,
        nchannels=2,
        sample_rate=FILE_RATE,
    )
    _to_mono(np.asarray(decoded.samples, dtype=np.float32).reshape(-1, 2))


def by_soundfile(path: Path) -> None:
    """As `by_miniaudio`, by libsndfile."""
    _to_mono(soundfile.read(path, dtype="float32", always_2d=True)[0])


def _to_mono(samples: np.ndarray) -> None:
    soxr.resample(samples.mean(axis=1), FILE_RATE, MEL.sample_rate, quality="HQ")


def files(source: Path, work: Path, seconds: float) -> list[File]:
    """A row a format."""
    sound, rows = sound_of(source, seconds), []
    for suffix in FORMATS:
        path = work / f"sound.{suffix}"
        with soundfile.SoundFile(path, "w", FILE_RATE, 2) as file:
            for start in range(
                0, len(sound), FILE_RATE
            ):  # at once, libsndfile's Vorbis encoder overruns its stack
                file.write(sound[start : start + FILE_RATE])
        decoders: dict[str, Callable[[], object]] = {
            "ours": partial(load_audio, path, MEL.sample_rate, MEL.max_seconds),
            "miniaudio": partial(by_miniaudio, path),
            "libsndfile": partial(by_soundfile, path),
        }
        timed = in_turn(
            {
                "mel": partial(mel_of_file, path, MEL),
                "librosa": partial(by_librosa, path),
                **decoders,
            },
            RUNS,
        )
        fastest = min(decoders, key=timed.median)
        limit = timed.ratio(fastest, "mel")
        rows.append(
            File(suffix, timed.median("mel") * 1000, timed.ratio("librosa", "mel"), limit, fastest)
        )
    return rows


def mels(source: Path) -> list[Mel]:
    """A row a length: the waveform is there already."""
    rows = []
    for seconds in LENGTHS_S:
        waveform = soxr.resample(sound_of(source, seconds).mean(axis=1), FILE_RATE, MEL.sample_rate)
        config = MEL.model_copy(update={"max_seconds": float(seconds)})
        frames = np.random.default_rng(0).normal(
            size=(1 + len(waveform) // MEL.hop_length, MEL.n_fft)
        )
        cases: dict[str, Callable[[], object]] = {
            "ours": partial(log_mel, waveform, config),
            "librosa": partial(librosa_mel, waveform),
            "transforms": partial(_transforms, frames),
        }
        timed = in_turn(cases, RUNS)
        off = float(np.abs(log_mel(waveform, config).T - librosa_mel(waveform)).max())
        ratios = timed.ratio("librosa", "ours"), timed.ratio("transforms", "ours")
        rows.append(Mel(seconds, timed.median("ours") * 1000, *ratios, off))
    return rows


def _transforms(frames: np.ndarray) -> None:
    for start in range(0, len(frames), 32):
        rfft(frames[start : start + 32])


def reads(work: Path) -> tuple[float, float, Ratio]:
    """Random tracks of a store, copied out: a second, median and least; and how long copying takes
    of that.
    """
    folder, sound = create_library(work / "reads"), work / "sound"
    sound.write_bytes(b"sound")
    generator = np.random.default_rng(0)
    mel = generator.normal(-40, 10, size=(READ_FRAMES, MEL.n_mels)).astype(np.float16)
    front_end = ExtractionJob(folder.mels, "same", partial(_same, mel=mel), "prepare", is_safe=True)
    prepare_features(folder, {f"t{number:05}": sound for number in range(READ_TRACKS)}, front_end)
    store = FeatureStore(folder.mels)
    order = generator.permutation(READ_TRACKS)
    buffer, memory = np.empty_like(mel), np.repeat(mel[None], READ_TRACKS, axis=0)

    def read() -> None:
        for row in order:
            np.copyto(buffer, store.read(store.track_ids[row]))

    def copy() -> None:
        for row in order:
            np.copyto(buffer, memory[row])

    timed = in_turn({"read": read, "copy": copy}, RUNS)
    seconds = timed.seconds["read"]
    return (
        READ_TRACKS / timed.median("read"),
        READ_TRACKS / max(seconds),
        timed.ratio("copy", "read"),
    )


def _same(_path: Path, _track_id: str, mel: np.ndarray) -> np.ndarray:
    return mel


def preparing(source: Path, work: Path, workers: int) -> tuple[float, float]:
    """`prepare` of 1,000 tracks: seconds, and the share of that time that its processors worked."""
    found = sorted(path for path in (source / "audio").rglob("*") if path.is_file())
    sources = {f"t{number:05}": found[number % len(found)] for number in range(PREPARED_TRACKS)}
    folder = create_library(work / "prepared")
    before, start = _processor_s(), perf_counter()
    prepare_features(folder, sources, workers=workers)
    seconds = perf_counter() - start
    return seconds, (_processor_s() - before) / seconds / workers


def _processor_s() -> float:
    """s of all threads of this process and of those it waited for."""
    own, others = (
        resource.getrusage(resource.RUSAGE_SELF),
        resource.getrusage(resource.RUSAGE_CHILDREN),
    )
    return own.ru_utime + own.ru_stime + others.ru_utime + others.ru_stime


def long_file(source: Path, work: Path) -> tuple[int, float, float]:
    """Ten hours of mp3 in a process of its own: frames, s, and its peak memory in GB."""
    path, part = work / "long.mp3", work / "part.mp3"
    soundfile.write(part, sound_of(source, 600), FILE_RATE)
    path.write_bytes(
        part.read_bytes() * (LONG_HOURS * 6)
    )  # frames stand alone, so that mp3s can be glued
    start = perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", A_LONG_FILE, path], capture_output=True, text=True, check=True
    )
    n_frames, kilobytes = done.stdout.split()
    return int(n_frames), perf_counter() - start, int(kilobytes) * 1024 / 1e9


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", type=Path, help="the freemusic folder")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path, help="every number")
    options = parser.parse_args()
    with TemporaryDirectory() as temporary:
        work = Path(temporary)
        print("| log-mel of | ours | librosa takes | transforms alone | off librosa |")
        print("|---|---|---|---|---|")
        for row in (of_waveforms := mels(options.source)):
            cells = [
                f"{row.seconds:g} s",
                f"{row.ours_ms:.1f} ms",
                said(row.librosa),
                said(row.transforms),
            ]
            print(f"| {' | '.join([*cells, f'{row.off_db:.4f} dB'])} |", flush=True)
        print("\n| 120 s of | ours | librosa takes | decode and resample take | by |")
        print("|---|---|---|---|---|")
        for file in (of_files := files(options.source, work, 120)):
            cells = [
                file.suffix,
                f"{file.ours_ms:.0f} ms",
                said(file.librosa),
                said(file.limit),
                file.decoder,
            ]
            print(f"| {' | '.join(cells)} |", flush=True)
        per_s, least, copying = reads(work)
        print(
            f"\n320 KB a track, at random: {per_s:,.0f} reads/s, at least {least:,.0f}; "
            f"a copy takes {said(copying)}"
        )
        seconds, busy = preparing(options.source, work, options.workers)
        print(
            f"1,000 tracks of 30 s: {seconds:.0f} s, {options.workers} processes, "
            f"{busy:.0%} of their processors"
        )
        n_frames, long_s, gigabytes = long_file(options.source, work)
        print(
            f"10 hours of mp3: {n_frames} frames in {long_s:.1f} s; peak memory {gigabytes:.2f} GB"
        )
    if options.json:
        found = {
            "mels": [asdict(row) for row in of_waveforms],
            "files": [asdict(file) for file in of_files],
            "reads": {"per_s": per_s, "least_per_s": least, "copy": copying},
            "prepare": {"tracks": PREPARED_TRACKS, "seconds": seconds, "busy": busy},
            "long": {
                "hours": LONG_HOURS,
                "frames": n_frames,
                "seconds": long_s,
                "gigabytes": gigabytes,
            },
        }
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
