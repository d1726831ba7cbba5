"""What collapsing copies does to answers, for `asking.py`: tracks of a world are encoded again and added to it.

Half of the copies are Ogg Vorbis of low quality and 3 dB softer, half MP3 at constant 128 kbit/s; they carry the same
title and artist, as they do in real collections, and nobody listens to them.
"""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
import soundfile

from asking_worlds import STAGES, Trained
from ponticello.api import Library
from ponticello.data.catalog import audio_files, merge_tracks
from ponticello.data.columns import PATH, TRACK_ID, USER_ID
from ponticello.data.prepare import prepare_frames
from ponticello.errors import AudioError
from ponticello.library import Folder, create_library
from ponticello.model.musicnn_frames import musicnn_front_end
from ponticello.search.recommend import Result

N_COPIED = 60  # tracks
COPY = " (copy)"  # ends a copy's id
N_LISTENERS = 100  # asked, drawn
K = 10
MP3_LEVEL = (320 - 128) / (320 - 32)  # of libsndfile: 128 kbit/s
QUESTIONS = ("search", "similar", "recommend")


@dataclass(frozen=True)
class Answers:
    """By question, for every query: places of 10 that repeat a recording, and recordings shared with the plain world.

    kept: whether the collapsed answer is the long uncollapsed one without its later copies, in that order.
    """

    repeats: dict[str, np.ndarray]
    repeats_collapsed: dict[str, np.ndarray]
    shared: dict[str, np.ndarray]
    shared_collapsed: dict[str, np.ndarray]
    kept: dict[str, np.ndarray]
    found: float  # share of the planted copies that the index knows as such
    wrong: int  # tracks joined that are not planted copies of each other


def measure_copies(root: Path, one: Trained, seed: int, workers: int) -> Answers:
    """Plants copies in a copy of the world at `root`, made anew, and asks it with and without collapsing."""
    shutil.rmtree(root, ignore_errors=True)
    rows = np.sort(np.random.default_rng(seed).permutation(len(one.ids))[:N_COPIED])
    copied = [one.ids[row] for row in rows]
    folder = _planted(root, one.folder, copied, workers)
    before = _embedded(_sibling(root.with_name(f"{root.name}-plain"), one.folder))
    once = _embedded(folder)
    search = folder.config.search.model_copy(update={"collapse_copies": False})
    every = Library(replace(folder, config=folder.config.model_copy(update={"search": search})))
    recording = dict(zip(once.index.track_ids, once.index.recordings, strict=True))
    users = sorted(one.log[USER_ID].unique())
    asked = np.random.default_rng(seed).permutation(len(users))[:N_LISTENERS]
    queries = {
        "search": [one.tracks["title"][int(row)] or one.tracks["description"][int(row)] for row in rows],
        "similar": copied,
        "recommend": [users[row] for row in asked],
    }
    found = Answers(
        {},
        {},
        {},
        {},
        {},
        float(np.mean([recording[f"{track_id}{COPY}"] == recording[track_id] for track_id in copied])),
        sum(_original(track_id) != _original(name) for track_id, name in recording.items()),
    )
    for question in QUESTIONS:
        _ask(found, question, [text for text in queries[question] if text], (before, every, once))
    return found


def _ask(found: Answers, question: str, queries: list[str], libraries: tuple[Library, Library, Library]) -> None:
    """Fills in one question's numbers. libraries: without copies, with them, with them collapsed."""
    numbers = np.zeros((5, len(queries)))
    for column, query in enumerate(queries):
        plain, every, once = (getattr(library, question)(query, k=K) for library in libraries)
        long = getattr(libraries[1], question)(query, k=10 * K)
        met = {query} if question == "similar" else set()
        if question == "recommend":
            met = set(libraries[0].tracks[TRACK_ID]) - {
                result.track_id for result in getattr(libraries[0], question)(query, k=10_000)
            }
        numbers[:, column] = (
            _n_repeats(every, met),
            _n_repeats(once, met),
            _n_shared(every, plain),
            _n_shared(once, plain),
            [result.track_id for result in once] == _without_repeats(long, met)[:K],
        )
    for values, into in zip(
        numbers, (found.repeats, found.repeats_collapsed, found.shared, found.shared_collapsed, found.kept), strict=True
    ):
        into[question] = values


def _original(track_id: str) -> str:
    return track_id.removesuffix(COPY)


def _without_repeats(answer: list[Result], met: set[str]) -> list[str]:
    seen, kept = set(met), []
    for result in answer:
        if _original(result.track_id) not in seen:
            kept.append(result.track_id)
            seen.add(_original(result.track_id))
    return kept


def _n_repeats(answer: list[Result], met: set[str]) -> int:
    return len(answer) - len(_without_repeats(answer, met))


def _n_shared(answer: list[Result], plain: list[Result]) -> int:
    return len({_original(result.track_id) for result in answer} & {result.track_id for result in plain})


def _sibling(root: Path, of: Folder) -> Folder:
    """A library with the same tracks, log, frames and runs as `of`, made anew."""
    shutil.rmtree(root, ignore_errors=True)
    folder = replace(create_library(root, "tiny"), config=of.config)
    for name in ("tracks.parquet", "interactions.parquet"):
        shutil.copy(of.root / name, root / name)
    for name in ("mels", "frames"):
        shutil.copytree((of.root / name).resolve(), root / name)
    for stage in STAGES:
        shutil.copytree(of.run(stage), folder.run(stage), ignore=shutil.ignore_patterns("vectors", "checkpoint*"))
    return folder


def _planted(root: Path, of: Folder, copied: list[str], workers: int) -> Folder:
    """The library of `of` with a copy of each of the `copied` tracks, heard as any other track is."""
    folder, sources = _sibling(root, of), audio_files(of)
    (root / "copies").mkdir()
    paths = {}
    for number, track_id in enumerate(copied):
        paths[track_id] = str(_encode_again(sources[track_id], root / "copies" / f"{number:03d}", number % 2 == 0))
    tracks = pl.read_parquet(folder.tracks)
    copies = tracks.filter(pl.col(TRACK_ID).is_in(copied)).with_columns(
        pl.col(TRACK_ID).replace_strict(paths).alias(PATH), (pl.col(TRACK_ID) + COPY).alias(TRACK_ID)
    )
    merge_tracks(folder, copies, "planted copies")
    with folder.lock():
        for front_end in (None, musicnn_front_end(folder)):
            prepare_frames(folder, audio_files(folder), front_end, workers=workers)
    return folder


def _encode_again(source: Path, place: Path, as_vorbis: bool) -> Path:
    sound, rate = soundfile.read(source, dtype="float32", always_2d=True)
    if not len(sound):
        raise AudioError(f"{source} holds no sound; choose another seed")
    if as_vorbis:
        path = place.with_suffix(".ogg")
        soundfile.write(path, 0.7 * sound, rate, format="OGG", subtype="VORBIS", compression_level=1.0)
        return path
    path = place.with_suffix(".mp3")
    options = {"format": "MP3", "subtype": "MPEG_LAYER_III", "bitrate_mode": "CONSTANT"}
    soundfile.write(path, sound, rate, compression_level=MP3_LEVEL, **options)
    return path


def _embedded(folder: Folder) -> Library:
    library = Library(folder)
    with folder.lock():
        library.embed(*STAGES)
    return library
