"""Checks of this machine: versions, extras, decoders, the text encoder and disk space."""

import platform
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
_RATE_HZ = 44_100
_TONE_HZ = 440.0
_REINSTALL = "pip install --force-reinstall soundfile miniaudio"
# The ending of the file, and libsndfile's names for its format and encoding.
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
    """Reports versions, and required packages that are missing or too old."""
    import torch

    device = f"{torch.cuda.device_count()} GPUs" if torch.cuda.is_available() else "no GPU"
    versions = (
        f"Ponticello {version('ponticello')}, Python {platform.python_version()}, "
        f"torch {torch.__version__}"
    )
    yield Finding("ok", f"{versions}, {torch.get_num_threads()} threads, {device}")
    for text in requires("ponticello") or ():
        requirement = Requirement(text)
        name = requirement.name
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            installed = version(name)
        except PackageNotFoundError:
            yield Finding("error", f"{name} is not installed", f"pip install '{name}'")
            continue
        if not requirement.specifier.contains(installed, prereleases=True):
            what = f"{name} {installed} is not {requirement.specifier}"
            yield Finding("error", what, f"pip install '{name}{requirement.specifier}'")


def check_extras() -> Iterator[Finding]:
    """Reports which extras are installed."""
    installed = [extra for extra, (module, _) in _EXTRAS.items() if find_spec(module) is not None]
    yield Finding("ok", f"extras installed: {', '.join(installed) or 'none'}")
    for extra, (_, purpose) in _EXTRAS.items():
        if extra not in installed:
            what = f"extra {extra!r} is not installed: it is for {purpose}"
            yield Finding("note", what, f"pip install 'ponticello[{extra}]', if you want that")


def check_decoders() -> Iterator[Finding]:
    """Writes a second of a tone in each file format and checks the pitch that is read back."""
    kinds = list(_KINDS)
    if find_spec("av") is not None:
        kinds.append(_BY_PYAV)
    decoded = []
    with tempfile.TemporaryDirectory(prefix="ponticello-doctor-") as temporary:
        for ending, container, encoding in kinds:
            path = Path(temporary) / f"tone.{ending}"
            write = _write_by_pyav if ending == _BY_PYAV[0] else _write_tone
            try:
                write(path, container, encoding)
            except (soundfile.SoundFileError, ValueError, TypeError):
                what = f"{ending} was not tried: what is installed cannot write one"
                yield Finding("note", what)
                continue
            try:
                pitch = _pitch(load_audio(path, 16_000))
            except AudioError as error:
                yield Finding("error", f"{ending} cannot be decoded ({error})", _REINSTALL)
                continue
            if abs(pitch - _TONE_HZ) > 2:
                what = f"{ending} is decoded wrongly: {_TONE_HZ:.0f} Hz came out as {pitch:.0f} Hz"
                yield Finding("error", what, f"{_REINSTALL} soxr")
                continue
            decoded.append(ending)
    yield Finding("ok", f"decoded and checked: {', '.join(decoded) or 'nothing'}")


def check_text_encoder(name: str) -> Iterator[Finding]:
    """Checks that the text encoder is installed, as far as possible without loading it."""
    from ponticello.model.text_encoder import locate_text_encoder

    path = locate_text_encoder(name)  # CheckpointError names the package to install
    if Path(path).is_dir():
        yield Finding("ok", f"text encoder {name!r} is here")


def _write_tone(path: Path, container: str, encoding: str) -> None:
    rate = 48_000 if encoding == "OPUS" else _RATE_HZ
    soundfile.write(path, _tone(rate), rate, subtype=encoding, format=container)


def _write_by_pyav(path: Path, container: str, encoding: str) -> None:
    import av

    with av.open(str(path), "w", format=container) as output:
        stream: Any = output.add_stream(encoding, rate=_RATE_HZ, layout="mono")
        frame = av.AudioFrame.from_ndarray(_tone(_RATE_HZ)[None], "fltp", "mono")
        frame.sample_rate = _RATE_HZ
        for data in (frame, None):  # None empties the encoder
            for packet in stream.encode(data):
                output.mux(packet)


def _tone(rate: int) -> np.ndarray:
    wave = 0.4 * np.sin(2 * np.pi * _TONE_HZ * np.arange(rate) / rate)
    return wave.astype(np.float32)


def _pitch(waveform: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(waveform[:16_000], 16_000))
    return float(spectrum.argmax())
