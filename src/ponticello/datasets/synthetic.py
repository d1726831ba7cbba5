"""A made-up catalogue for the tests: short sounds whose traits are known because we put them there."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import soundfile

from ponticello.storage.schema import ALBUM, ARTIST, PATH, TAGS, TITLE, TRACK_ID

SAMPLE_RATE = 16_000  # Hz
TRAITS = ("pitch", "brightness", "tempo", "noise", "roughness")  # each in [-1, 1]
WORDS = {
    "pitch": ("low", "middle", "high"),
    "brightness": ("dark", "warm", "bright"),
    "tempo": ("slow", "steady", "fast"),
}


@dataclass(frozen=True)
class SyntheticCatalogue:
    """Waveforms (n_samples,) float32 at 16 kHz, their traits (n, 5), and the rows of a tracks
    table.

    Texts tell pitch, brightness and tempo in three words; noise and roughness are only heard.
    """

    waveforms: list[np.ndarray]
    traits: np.ndarray
    tracks: pl.DataFrame

    def write(self, folder: Path) -> Path:
        """Saves the sounds as wav files and the table as `tracks.csv` in `folder`; gives the
        table's path.
        """
        folder.mkdir(parents=True, exist_ok=True)
        for track_id, waveform in zip(self.tracks[TRACK_ID], self.waveforms, strict=True):
            soundfile.write(folder / f"{track_id}.wav", waveform, SAMPLE_RATE)
        table = self.tracks.with_columns(
            pl.col(TAGS).list.join(";"), (pl.col(TRACK_ID) + ".wav").alias(PATH)
        )
        table.write_csv(folder / "tracks.csv")
        return folder / "tracks.csv"


def make_catalogue(n_tracks: int, n_artists: int, seconds: float, seed: int) -> SyntheticCatalogue:
    """`n_tracks` sounds of `seconds` by `n_artists`, those of one artist alike; all randomness
    comes from `seed`.
    """
    generator = np.random.default_rng(seed)
    artist = np.arange(n_tracks) % n_artists
    centres = generator.uniform(-1, 1, (n_artists, len(TRAITS)))
    traits = np.clip(centres[artist] + generator.normal(0, 0.35, (n_tracks, len(TRAITS))), -1, 1)
    tags = [[_word(name, row[TRAITS.index(name)]) for name in WORDS] for row in traits]
    tracks = pl.DataFrame(
        {
            TRACK_ID: [f"track-{number:04d}" for number in range(n_tracks)],
            TITLE: [f"Piece {number}" for number in range(n_tracks)],
            ARTIST: [f"Artist {number}" for number in artist],
            ALBUM: [f"Album {number // 2}" for number in artist],
            TAGS: tags,
        }
    )
    return SyntheticCatalogue(
        [synthesize(row, seconds, generator) for row in traits], traits, tracks
    )


def synthesize(traits: np.ndarray, seconds: float, generator: np.random.Generator) -> np.ndarray:
    """A pulsing tone (n_samples,) float32 in [-1, 1] with the given traits (5,), noise drawn from
    `generator`.
    """
    pitch, brightness, tempo, noise, roughness = traits
    time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    frequency = 220.0 * 2.0 ** (1.5 * pitch)
    harmonics = np.arange(1, 13)
    weights = harmonics ** -(1.8 - 1.2 * brightness)
    phases = generator.uniform(0, 2 * np.pi, len(harmonics))
    tone = sum(
        w * np.sin(2 * np.pi * frequency * h * time + p)
        for h, w, p in zip(harmonics, weights, phases, strict=True)
    )
    pulse = np.exp(-4.0 * np.mod(time * 2.0 * 2.0**tempo + generator.uniform(), 1.0))
    beating = 1.0 + (0.5 + 0.5 * roughness) * np.sin(2 * np.pi * 30.0 * time)
    hiss = generator.normal(0, 0.05 * 4.0**noise, len(time))
    sound = 0.2 * tone / weights.sum() * pulse * beating + 0.2 * hiss
    clipped: np.ndarray = np.clip(sound, -1, 1).astype(np.float32)
    return clipped


def _word(trait: str, value: float) -> str:
    low, middle, high = WORDS[trait]
    return low if value < -1 / 3 else high if value > 1 / 3 else middle
