"""How far a vector moves when only the file does: silence before it, an MP3, another level, another sample rate.

    python bench/stability.py PATH/TO/freemusic --tracks 150 --model my-library/runs/semantic

Each excerpt is decoded at its own rate, changed, written as a file and read as any file is; the cosine is that of the
changed file's vector and the original's. Encoders: the MusiCNN front end as a tower begins, fitted on the originals of
the sample; each block of its numbers by itself; and, with --model, the model of a run folder. With --others, other
ways of listening beside them, on the changes they are asked about. Prints Markdown.
"""

import argparse
import multiprocessing
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import soundfile
import soxr
import torch
from numpy.typing import NDArray

from ponticello.config import Config
from ponticello.data.audio import load_audio
from ponticello.data.mel import mel_of_file
from ponticello.data.shards import Mel
from ponticello.evaluate.baselines import unit
from ponticello.model.frame_encoder import AnchoredHead, FrameEncoder, fit_front_end
from ponticello.model.htcl import HTCL
from ponticello.model.musicnn import MEL, PATCH_FRAMES
from ponticello.model.musicnn_frames import (
    BLOCKS,
    FRAME_SIZE,
    LEAD_IN_S,
    frames_as_it_is,
    levelled,
    musicnn_frames,
    without_lead_in,
)

BEFORE_S, GAIN_DB = 1.2, -6.0
CD_RATE_HZ = 44_100
# libsndfile maps 0..1 to 320..32 kbit/s where the bit rate is constant.
MP3_KBITS, MP3_LEVEL = 128, (320 - 128) / (320 - 32)
EMBED_DIM, TASTE_DIM = 128, 16
BLOCK_NAMES = ("MSD tagger", "MTT tagger", "spectrum")

Sound = NDArray[np.float32]
Hearing = Callable[[Path], Mel]
Encoder = Callable[[Sequence[Mel]], NDArray[np.floating]]


def with_lead_in(sound: Sound, rate: int) -> tuple[Sound, int]:
    """The sound after 1.2 s of digital silence, and its rate."""
    return np.concatenate([np.zeros(round(BEFORE_S * rate), dtype=sound.dtype), sound]), rate


def quieter(sound: Sound, rate: int) -> tuple[Sound, int]:
    """The sound at half its amplitude (-6 dB), and its rate."""
    return (sound * np.float32(10 ** (GAIN_DB / 20))).astype(np.float32), rate


def at_cd_rate(sound: Sound, rate: int) -> tuple[Sound, int]:
    """The sound resampled to 44.1 kHz, and that rate."""
    return soxr.resample(sound, rate, CD_RATE_HZ, quality="HQ"), CD_RATE_HZ


def there_and_back(sound: Sound, rate: int) -> tuple[Sound, int]:
    """The sound resampled to 44.1 kHz and back, and its rate."""
    return soxr.resample(at_cd_rate(sound, rate)[0], CD_RATE_HZ, rate, quality="HQ"), rate


def unchanged(sound: Sound, rate: int) -> tuple[Sound, int]:
    """The sound and its rate."""
    return sound, rate


@dataclass(frozen=True)
class Change:
    """What is done to a sound (n,) at a rate in Hz, as what file it is kept, and the least mean cosine wished for."""

    apply: Callable[[Sound, int], tuple[Sound, int]]
    target: float
    suffix: str = ".wav"


ORIGINAL, LEAD_IN, QUIETER = "original", "1.2 s of silence before it", "-6 dB"
CHANGES = {
    ORIGINAL: Change(unchanged, 1.0),
    LEAD_IN: Change(with_lead_in, 0.99),
    "MP3, 128 kbit/s": Change(unchanged, 0.97, ".mp3"),
    QUIETER: Change(quieter, 0.99),
    "to 44.1 kHz": Change(at_cd_rate, 0.99),
    "to 44.1 kHz and back": Change(there_and_back, 0.99),
}


def write_sound(path: Path, sound: Sound, rate: int) -> None:
    """Keeps a mono sound (n,) as 32-bit float WAV, or as MP3 at constant 128 kbit/s if the name says so."""
    if path.suffix == ".mp3":
        options = {"format": "MP3", "subtype": "MPEG_LAYER_III", "bitrate_mode": "CONSTANT"}
        soundfile.write(path, sound, rate, compression_level=MP3_LEVEL, **options)
    else:
        soundfile.write(path, sound, rate, subtype="FLOAT")


def raw_frames(path: Path, seconds: float) -> Mel:
    """As `musicnn_frames`, of the sound at its own level and with the silence before it."""
    return frames_as_it_is(load_audio(path, MEL.sample_rate, seconds))


def trimmed_frames(path: Path, seconds: float) -> Mel:
    """As `raw_frames`, with the silence before the sound left out."""
    return frames_as_it_is(without_lead_in(load_audio(path, MEL.sample_rate, seconds + LEAD_IN_S)))


def levelled_frames(path: Path, seconds: float) -> Mel:
    """As `raw_frames`, of the sound brought to one level."""
    return frames_as_it_is(levelled(load_audio(path, MEL.sample_rate, seconds)))


def overlapping_frames(path: Path, seconds: float) -> Mel:
    """As `raw_frames`, with patches that overlap by half; twice the cost."""
    sound = load_audio(path, MEL.sample_rate, seconds)
    later = sound[PATCH_FRAMES * MEL.hop_length // 2 :]
    return np.concatenate([frames_as_it_is(sound), frames_as_it_is(later if len(later) else sound)])


AS_IT_STANDS, LOG_MEL = "as it stands", "log-mel"
# Other ways of listening, and the changes each is asked about.
OTHERS: dict[str, tuple[Callable[..., Mel], tuple[str, ...]]] = {
    "as the file is": (raw_frames, (LEAD_IN, QUIETER)),
    "lead-in left out": (trimmed_frames, (LEAD_IN,)),
    "patches overlap by half": (overlapping_frames, (LEAD_IN,)),
    "one level for all": (levelled_frames, (QUIETER,)),
}


def excerpts(folder: Path, n_tracks: int, seed: int) -> list[Path]:
    """The sound files of the folder's tracks.csv, or so many of them drawn from `seed`, in the table's order."""
    files = pl.read_csv(folder / "tracks.csv", infer_schema=False)["file"].to_list()
    chosen = np.sort(np.random.default_rng(seed).permutation(len(files))[: n_tracks or len(files)])
    return [folder / files[place] for place in chosen]


def heard(file: Path, hearings: Mapping[str, tuple[Hearing, Sequence[str]]]) -> dict[tuple[str, str], Mel]:
    """What each way of listening makes of a file's versions: {(hearing, change): frames}.

    hearings: {name: (function of a file, names of the changes it is asked about)}.
    """
    sound, rate = soundfile.read(file, dtype="float32", always_2d=True)
    frames = {}
    with tempfile.TemporaryDirectory() as temporary:
        for number, (name, change) in enumerate(CHANGES.items()):
            path = Path(temporary) / f"{number}{change.suffix}"
            write_sound(path, *change.apply(sound.mean(axis=1), rate))
            for hearing, (listen, names) in hearings.items():
                if name in names:
                    frames[hearing, name] = listen(path)
    return frames


def front_end(originals: Sequence[Mel]) -> dict[str, Encoder]:
    """Encoders of frames (P, 2198), fitted on these: the front end as a tower begins, and each of its blocks."""
    encoder, head = FrameEncoder(FRAME_SIZE), AnchoredHead(FRAME_SIZE, EMBED_DIM, TASTE_DIM, 0.0)
    fit_front_end(encoder, head, _means(originals), BLOCKS)

    def standardised(tracks: Sequence[Mel]) -> torch.Tensor:
        means = torch.from_numpy(_means(tracks))[:, None]  # (N, 1, F): one frame is its own mean
        frames, _ = encoder.forward(means, torch.zeros(means.shape[:2], dtype=torch.bool))
        return frames[:, 0]

    def whole(tracks: Sequence[Mel]) -> NDArray[np.floating]:
        return head.forward(standardised(tracks)).detach().numpy()

    def block(tracks: Sequence[Mel], start: int, end: int) -> NDArray[np.floating]:
        return standardised(tracks)[:, start:end].numpy()

    ends = np.cumsum([size for size, _ in BLOCKS]).tolist()
    places = zip(BLOCK_NAMES, [0, *ends[:-1]], ends, strict=True)
    return {"front end": whole, **{f"- {name}": partial(block, start=a, end=b) for name, a, b in places}}


def _means(tracks: Sequence[Mel]) -> NDArray[np.float32]:
    return np.stack([frames.astype(np.float32).mean(axis=0) for frames in tracks])


def cosines(left: NDArray[np.floating], right: NDArray[np.floating]) -> NDArray[np.floating]:
    """The cosine of each row of `left` with the same row of `right`: (n, d) and (n, d) -> (n,)."""
    both: NDArray[np.floating] = (unit(left) * unit(right)).sum(axis=1)
    return both


def row(hearing: str, encoder: str, change: str, values: NDArray[np.floating]) -> str:
    """A line of the table: mean, 5th percentile and minimum of the cosines, the target, and whether the mean met it."""
    target, mean = CHANGES[change].target, values.mean()
    figures = f"{mean:.4f} | {np.percentile(values, 5):.4f} | {values.min():.4f}"
    verdict = f"{target} | {'yes' if mean >= target else '**no**'}" if not encoder.startswith("-") else "- | -"
    return f"| {hearing} | {encoder} | {change} | {figures} | {verdict} |"


def report(tracks: Sequence[Mapping[tuple[str, str], Mel]], model: HTCL | None) -> list[str]:
    """The table's lines. tracks: what `heard` gives of each."""
    lines = ["| heard | encoder | change | mean | 5 % | least | target | met |", "|---|---|---|---|---|---|---|---|"]
    for hearing in dict.fromkeys(name for name, _ in tracks[0]):
        originals = [track[hearing, ORIGINAL] for track in tracks]
        encoders = {} if hearing == LOG_MEL else front_end(originals)
        if model is not None and (hearing == LOG_MEL) == (model.parts.front_end == "logmel"):
            encoders["model"] = model.encode_mels
        for name, encode in encoders.items():
            before = encode(originals)
            for change in (change for where, change in tracks[0] if where == hearing and change != ORIGINAL):
                after = encode([track[hearing, change] for track in tracks])
                lines.append(row(hearing, name, change, cosines(before, after)))
    return lines


def main() -> None:
    """Reads the arguments, listens to every version of every track, prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="holds tracks.csv with a column `file`")
    parser.add_argument("--tracks", type=int, default=0, help="so many, drawn from the seed; else all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--model", type=Path, help="a run folder")
    parser.add_argument("--others", action="store_true", help="other ways of listening too")
    given = parser.parse_args()
    model = HTCL.from_pretrained(given.model) if given.model else None
    mel = (model.parts if model else Config.from_preset("small")).mel
    hearings: dict[str, tuple[Hearing, Sequence[str]]] = {
        AS_IT_STANDS: (partial(musicnn_frames, seconds=mel.max_seconds), tuple(CHANGES))
    }
    if model is not None and model.parts.front_end == "logmel":
        hearings[LOG_MEL] = (partial(mel_of_file, config=mel), tuple(CHANGES))
    if given.others:
        for name, (listen, changes) in OTHERS.items():
            hearings[name] = (partial(listen, seconds=mel.max_seconds), (ORIGINAL, *changes))
    files = excerpts(given.folder, given.tracks, given.seed)
    tracks: list[dict[tuple[str, str], Mel]] = []
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(given.workers, context, torch.set_num_threads, (1,)) as pool:
        for track in pool.map(partial(heard, hearings=hearings), files):
            tracks.append(track)
            print(f"\r{len(tracks)} of {len(files)} tracks", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    print(f"{len(files)} tracks, seed {given.seed}, the first {mel.max_seconds:g} s of each\n")
    print("\n".join(report(tracks, model)))


if __name__ == "__main__":
    main()
