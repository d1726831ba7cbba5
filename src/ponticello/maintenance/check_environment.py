"""The machine: versions, what is installed, what can be decoded, and room on the disk."""

import platform
import shutil
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from packaging.requirements import Requirement

from ponticello.audio.decode import load_audio
from ponticello.errors import AudioError
from ponticello.maintenance.findings import Finding

MACHINE = "this machine"
_RATE_HZ, _SECONDS, _TONE_HZ = 44_100, 1.0, 440.0
# What each is called, libsndfile's names for it, and the ending its file gets.
_KINDS = (
    ("wav", "WAV", "PCM_16"),
    ("flac", "FLAC", "PCM_16"),
    ("ogg", "OGG", "VORBIS"),
    ("opus", "OGG", "OPUS"),
    ("mp3", "MP3", "MPEG_LAYER_III"),
    ("aiff", "AIFF", "PCM_16"),
)
_BY_PYAV = ("m4a", "ipod", "aac")  # the same, in PyAV's names
_EXTRAS = {
    "av": ("av", "m4a, aac and wma files"),
    "faiss": ("faiss", "fast search above 200,000 tracks"),
    "baselines": ("implicit", "ALS in evaluations"),
    "postgres": ("psycopg", "search by a PostgreSQL"),
    "onnx": ("onnx", "export --onnx"),
    "ray": ("ray", "embedding on a cluster"),
    "spark": ("pyspark", "mining pairs on a cluster"),
}


def check_versions() -> Iterator[Finding]:
    """Python, this package, torch, and everything installed below what the package asks for."""
    import torch

    device = f"{torch.cuda.device_count()} GPUs" if torch.cuda.is_available() else "no GPU"
    own = f"Ponticello {version('ponticello')}, Python {platform.python_version()}, torch {torch.__version__}"
    yield Finding("ok", f"{own}, {torch.get_num_threads()} threads, {device}", MACHINE)
    for text in requires("ponticello") or ():
        wanted = Requirement(text)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        try:
            found = version(wanted.name)
        except PackageNotFoundError:
            yield Finding(
                "error", f"{wanted.name} is not installed", MACHINE, f"pip install '{wanted.name}'"
            )
            continue
        if not wanted.specifier.contains(found, prereleases=True):
            what = f"{wanted.name} {found} is not {wanted.specifier}"
            yield Finding("error", what, MACHINE, f"pip install '{wanted.name}{wanted.specifier}'")


def check_extras() -> Iterator[Finding]:
    """Which extras are there."""
    there = [extra for extra, (module, _) in _EXTRAS.items() if find_spec(module) is not None]
    yield Finding("ok", f"extras installed: {', '.join(there) or 'none'}", MACHINE)
    for extra in [extra for extra in _EXTRAS if extra not in there]:
        what = f"extra {extra!r} is not installed: it is for {_EXTRAS[extra][1]}"
        yield Finding("note", what, MACHINE, f"pip install 'ponticello[{extra}]', if you want that")


def check_decoders() -> Iterator[Finding]:
    """A second of a tone in each kind of file, written and read back: its pitch must be what it
    was.
    """
    good = []
    with tempfile.TemporaryDirectory(prefix="ponticello-doctor-") as place:
        kinds = _KINDS if find_spec("av") is None else (*_KINDS, _BY_PYAV)
        for ending, container, encoding in kinds:
            path = Path(place) / f"tone.{ending}"
            try:
                (_write_by_pyav if ending == _BY_PYAV[0] else _write_tone)(
                    path, container, encoding
                )
            except (soundfile.SoundFileError, ValueError, TypeError):
                what = f"{ending} was not tried: what is installed cannot write one"
                yield Finding("note", what, MACHINE)
                continue
            try:
                pitch = _pitch(load_audio(path, 16_000))
            except AudioError as error:
                what = f"{ending} cannot be decoded ({error})"
                yield Finding(
                    "error", what, MACHINE, "pip install --force-reinstall soundfile miniaudio"
                )
                continue
            if abs(pitch - _TONE_HZ) > 2:
                what = f"{ending} is decoded wrongly: {_TONE_HZ:.0f} Hz came out as {pitch:.0f} Hz"
                yield Finding(
                    "error", what, MACHINE, "pip install --force-reinstall soundfile miniaudio soxr"
                )
                continue
            good.append(ending)
    yield Finding("ok", f"decoded and checked: {', '.join(good) or 'nothing'}", MACHINE)


def check_text_encoder(name: str) -> Iterator[Finding]:
    """Whether the text encoder of the settings is on this machine, where that can be told without
    loading it.
    """
    from ponticello.model.text_encoder import locate_text_encoder

    place = locate_text_encoder(name)  # CheckpointError says what to install
    if Path(place).is_dir():
        yield Finding("ok", f"text encoder {name!r} is here", MACHINE)


def check_room(root: Path, needed: int, what: str) -> Iterator[Finding]:
    """Room on the disk of a library. needed: bytes that `what` would still write."""
    free = shutil.disk_usage(root).free
    line = (
        f"{_size(free)} free; {what} would take some {_size(needed)}"
        if needed
        else f"{_size(free)} free"
    )
    if free < needed:
        yield Finding("error", f"not enough room: {line}", "disk", "make room, or move the library")
    elif free < 2 * needed or free < 2**30:
        yield Finding("warning", f"little room: {line}", "disk", "make room before long work")
    else:
        yield Finding("ok", line, "disk")


def _write_tone(path: Path, container: str, encoding: str) -> None:
    rate = 48_000 if encoding == "OPUS" else _RATE_HZ
    soundfile.write(path, _tone(rate), rate, subtype=encoding, format=container)


def _write_by_pyav(path: Path, container: str, encoding: str) -> None:
    import av

    with av.open(str(path), "w", format=container) as output:
        stream: Any = output.add_stream(encoding, rate=_RATE_HZ, layout="mono")
        frame = av.AudioFrame.from_ndarray(_tone(_RATE_HZ)[None], "fltp", "mono")
        frame.sample_rate = _RATE_HZ
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            output.mux(packet)


def _tone(rate: int) -> np.ndarray:
    wave = 0.4 * np.sin(2 * np.pi * _TONE_HZ * np.arange(int(rate * _SECONDS)) / rate)
    return wave.astype(np.float32)


def _pitch(waveform: np.ndarray) -> float:
    """Hz of the strongest part of a second at 16 kHz."""
    spectrum = np.abs(np.fft.rfft(waveform[:16_000], 16_000))
    return float(spectrum.argmax())


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 2**30:,.1f} GB" if n_bytes >= 2**30 else f"{n_bytes / 2**20:,.0f} MB"
