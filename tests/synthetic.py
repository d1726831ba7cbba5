"""Synthesizes a catalogue of short sounds with known traits, for tests and the demo."""

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
    """A catalogue of synthetic sounds.

    waveforms: (n_samples,) float32 at 16 kHz each. traits: (n, 5). tracks: rows of a tracks table,
    with tags for pitch, brightness and tempo; noise and roughness are in the sound only.
    """

    waveforms: list[np.ndarray]
    traits: np.ndarray
    tracks: pl.DataFrame

    def write(self, folder: Path) -> Path:
        """Writes the sounds as wav files and the table as `tracks.csv`; returns its path."""
        folder.mkdir(parents=True, exist_ok=True)
        for track_id, waveform in zip(self.tracks[TRACK_ID], self.waveforms, strict=True):
            soundfile.write(folder / f"{track_id}.wav", waveform, SAMPLE_RATE)
        table = self.tracks.with_columns(
            pl.col(TAGS).list.join(";"), (pl.col(TRACK_ID) + ".wav").alias(PATH)
        )
        table.write_csv(folder / "tracks.csv")
        return folder / "tracks.csv"


def make_catalogue(n_tracks: int, n_artists: int, seconds: float, seed: int) -> SyntheticCatalogue:
    """Returns `n_tracks` sounds of `seconds` by `n_artists`; sounds of one artist are alike.

    All randomness comes from `seed`.
    """
    generator = np.random.default_rng(seed)
    artist = np.arange(n_tracks) % n_artists
    centres = generator.uniform(-1, 1, (n_artists, len(TRAITS)))
    traits = np.clip(centres[artist] + generator.normal(0, 0.35, (n_tracks, len(TRAITS))), -1, 1)
    tags = []
    for row in traits:
        tags.append([_word(name, row[TRAITS.index(name)]) for name in WORDS])
    tracks = pl.DataFrame(
        {
            TRACK_ID: [f"track-{number:04d}" for number in range(n_tracks)],
            TITLE: [f"Piece {number}" for number in range(n_tracks)],
            ARTIST: [f"Artist {number}" for number in artist],
            ALBUM: [f"Album {number // 2}" for number in artist],
            TAGS: tags,
        }
    )
    waveforms = [synthesize(row, seconds, generator) for row in traits]
    return SyntheticCatalogue(waveforms, traits, tracks)


def synthesize(traits: np.ndarray, seconds: float, generator: np.random.Generator) -> np.ndarray:
    """Returns a pulsing tone, (n_samples,) float32 in [-1, 1], with the given traits (5,).

    generator: draws the noise and the phases.
    """
    pitch, brightness, tempo, noise, roughness = traits
    time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    frequency = 220.0 * 2.0 ** (1.5 * pitch)
    harmonics = np.arange(1, 13)
    weights = harmonics ** -(1.8 - 1.2 * brightness)
    phases = generator.uniform(0, 2 * np.pi, len(harmonics))
    tone = np.zeros(len(time))
    for harmonic, weight, phase in zip(harmonics, weights, phases, strict=True):
        tone += weight * np.sin(2 * np.pi * frequency * harmonic * time + phase)
    pulse = np.exp(-4.0 * np.mod(time * 2.0 * 2.0**tempo + generator.uniform(), 1.0))
    beating = 1.0 + (0.5 + 0.5 * roughness) * np.sin(2 * np.pi * 30.0 * time)
    hiss = generator.normal(0, 0.05 * 4.0**noise, len(time))
    sound = 0.2 * tone / weights.sum() * pulse * beating + 0.2 * hiss
    clipped: np.ndarray = np.clip(sound, -1, 1).astype(np.float32)
    return clipped


def _word(trait: str, value: float) -> str:
    low, middle, high = WORDS[trait]
    if value < -1 / 3:
        return low
    return high if value > 1 / 3 else middle
