"""What every part of an evaluation reads: the tracks all methods know, and each method's vectors of
them.

Vectors of any encoder, from a file, so that it can stand in the same table.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from ponticello.config import Config
from ponticello.errors import CheckpointError, DataError, LibraryError
from ponticello.evaluate.baselines import frame_means, mel_statistics, unit
from ponticello.evaluate.report.tables import display_name
from ponticello.evaluate.results import STAGE_ONE, STAGE_TWO
from ponticello.features.frontend import open_features
from ponticello.features.musicnn_frontend import TAGGERS_SIZE
from ponticello.features.precomputed import read_vector_file
from ponticello.features.store import MANIFEST, FeatureStore
from ponticello.model.htcl import HTCL
from ponticello.model.saving import run_config, served_vector_name
from ponticello.search.embed import embed_library
from ponticello.splits.splits import Splits
from ponticello.storage.layout import LibraryPaths
from ponticello.storage.schema import TRACK_ID
from ponticello.tracks.catalog import read_tracks
from ponticello.tracks.names import lead_artists
from ponticello.tracks.text import fused_texts, track_texts

SHORTEST = 1e-12  # below, a vector has no direction


@dataclass(frozen=True)
class ExternalVectors:
    """vectors: (d,) float32 unit vectors by track id; left_out: ids whose vector is not finite, or
    zero.
    """

    vectors: dict[str, np.ndarray]
    left_out: list[str]


def read_vectors(path: Path) -> ExternalVectors:
    """The vectors of a file as `read_vector_file` takes it, all of one length and scaled to unit
    length.

    Errors: as there, and DataError where their lengths differ.
    """
    ids, rows = read_vector_file(path)
    lengths = sorted({len(row) for row in rows})
    if len(lengths) > 1 or not lengths[0]:
        raise DataError(
            f"{path.name}: every row needs an id and a vector of the same length; found lengths {lengths}"
        )
    matrix = np.stack(rows)
    with np.errstate(all="ignore"):
        usable = np.isfinite(matrix).all(axis=1) & (np.linalg.norm(matrix, axis=1) > SHORTEST)
    scaled = unit(matrix[usable])
    kept = [track_id for track_id, is_usable in zip(ids, usable, strict=True) if is_usable]
    left_out = [track_id for track_id, is_usable in zip(ids, usable, strict=True) if not is_usable]
    return ExternalVectors(dict(zip(kept, scaled, strict=True)), left_out)


MEL, MUSICNN, FRONT_END, TEXT = "mel_statistics", "musicnn", "front_end", "text"
FUSED = "_fused"  # ends the name of a method whose vectors hold the text too


@dataclass(frozen=True)
class EvaluationVectors:
    """Row i of everything belongs to `ids[i]`; ids are sorted."""

    config: Config
    tracks: pl.DataFrame
    ids: list[str]
    roles: list[str]  # "new" where the splits do not know the track
    artists: dict[str, str]
    texts: list[str]
    vectors: dict[
        str, np.ndarray
    ]  # (n, d) unit vectors by method; those of `TEXT` are 0 for a track without text
    models: dict[str, HTCL]
    store: FeatureStore | None  # what the models read
    beside: dict[
        str, np.ndarray
    ]  # by track id, (D,): the text that fused vectors hold; empty if none is compared

    @property
    def clusters(self) -> list[str]:
        """The artist of every track, or the track itself: queries that are drawn together."""
        return [self.artists.get(track_id, track_id) for track_id in self.ids]

    @property
    def content(self) -> str:
        """The method whose vectors carry collaborative models to cold tracks: the best that saw no
        listening.
        """
        heard = [
            method
            for method in self.vectors
            if method not in (MEL, MUSICNN, TEXT, STAGE_TWO, STAGE_TWO + FUSED)
        ]
        others = [method for method in (MUSICNN, MEL) if method in self.vectors]
        return STAGE_ONE if STAGE_ONE in heard else [*heard, *others][0]

    def by_id(self, method: str) -> dict[str, np.ndarray]:
        """Each track's vector under a method."""
        return dict(zip(self.ids, self.vectors[method], strict=True))

    def queries(self, rows: list[int]) -> tuple[list[str], list[str]]:
        """Returns the ids and the clusters of some rows."""
        clusters = self.clusters
        return [self.ids[row] for row in rows], [clusters[row] for row in rows]

    def rows_of(self, role: str) -> list[int]:
        """The rows of the tracks with this role."""
        return [row for row, found in enumerate(self.roles) if found == role]


def load_vectors(
    folder: LibraryPaths,
    runs: Mapping[str, str],
    files: Mapping[str, Path],
    splits: Splits,
    notes: list[str],
    say: Callable[[str], None],
) -> EvaluationVectors:
    """Embeds what is to be compared; tracks that some method has no vector of are left out for all,
    with a note.

    runs: run name by method; files: vectors from elsewhere by method. LibraryError if there is
    nothing to compare.
    """
    tracks = read_tracks(folder).sort(TRACK_ID)
    known = _unlearned(folder, tracks[TRACK_ID].to_list(), splits, notes, say)
    for method, path in files.items():
        found = read_vectors(path)
        known[method] = found.vectors
        if found.left_out:
            notes.append(
                f"{method}: {len(found.left_out):,} vectors are zero or not finite, such as {found.left_out[0]!r}."
            )
    models: dict[str, HTCL] = {}
    read: FeatureStore | None = None
    fused_with: dict[str, str] = {}
    for method, run in runs.items():
        say(f"vectors: {display_name(method)}")
        config = run_config(folder.run(run))
        read = open_features(folder, config)
        vectors, _ = embed_library(folder.run(run), read)
        known[method] = dict(zip(vectors.track_ids, vectors.matrix, strict=True))
        if served_vector_name(folder.run(run)) == "fused":
            fused_with = fused_texts(tracks, config.front_end)
            fused, _ = embed_library(folder.run(run), read, texts=fused_with)
            known[f"{method}{FUSED}"] = dict(zip(fused.track_ids, fused.matrix, strict=True))
            notes.append(
                f"{display_name(method)} serves fused vectors (audio with text) where a track has a text."
            )
        models[method] = HTCL.from_pretrained(folder.run(run))
    if not known:
        raise LibraryError(
            "there is nothing to evaluate; run: ponticello prepare, or give --vectors"
        )
    of_library = set(tracks[TRACK_ID])
    everywhere = set.intersection(of_library, *(set(own) for own in known.values()))
    somewhere = of_library & {track_id for own in known.values() for track_id in own}
    for method, own in known.items():
        if missing := len(somewhere - set(own)):
            notes.append(
                f"{display_name(method)} has no vector of {missing:,} tracks; they are left out for all."
            )
    tracks = tracks.filter(pl.col(TRACK_ID).is_in(list(everywhere)))
    if tracks.height < 2:
        raise DataError(
            "fewer than two tracks of the catalogue have a vector in every method; check the ids"
        )
    ids = tracks[TRACK_ID].to_list()
    matrices = {
        method: np.stack([own[track_id] for track_id in ids]) for method, own in known.items()
    }
    texts = track_texts(tracks)
    told = [texts, [fused_with[track_id] for track_id in ids]] if fused_with else [texts]
    read_texts = _text_vectors(folder.config, told, notes, say)
    if read_texts:
        matrices[TEXT] = read_texts[0]
    return EvaluationVectors(
        folder.config,
        tracks,
        ids,
        [splits.roles.get(track_id, "new") for track_id in ids],
        lead_artists(tracks),
        texts,
        {method: matrices[method] for method in sorted(matrices, key=_place)},
        models,
        read,
        {
            track_id: vector
            for found in read_texts[1:]
            for track_id, vector in zip(ids, found, strict=True)
        },
    )


def _unlearned(
    folder: LibraryPaths,
    track_ids: list[str],
    splits: Splits,
    notes: list[str],
    say: Callable[[str], None],
) -> dict[str, dict[str, np.ndarray]]:
    """What can be heard without training, by method and track id: mel statistics, what the taggers
    hear, and the library's own front end where it is neither.

    A row needs every track that the library's own front end (log-mels where that is MusiCNN) has
    prepared; else a note says how many are missing.
    """
    front_end = folder.config.front_end
    is_other = front_end not in ("logmel", "musicnn")
    places = {MEL: folder.mels, MUSICNN: folder.frames}
    places |= {FRONT_END: folder.frames_of(front_end)} if is_other else {}
    stores = {
        method: FeatureStore(place)
        for method, place in places.items()
        if (place / MANIFEST).is_file()
    }
    own = stores.get(FRONT_END if is_other else MEL)
    ids = [track_id for track_id in track_ids if own is not None and track_id in own]
    training = [track_id for track_id in ids if splits.roles.get(track_id) == "train"]
    known = {}
    for method, store in stores.items() if ids else ():
        say(f"vectors: {display_name(method)}")
        if missing := sum(track_id not in store for track_id in ids):
            remedy = "; run: ponticello tag" if method == MUSICNN else ""
            notes.append(
                f"{display_name(method)} is not measured: it has not heard every track ({missing:,} are missing){remedy}."
            )
        elif method == MEL:
            known[method] = dict(zip(ids, mel_statistics(store, ids, training), strict=True))
        else:
            size = TAGGERS_SIZE if method == MUSICNN else store.frame_size
            known[method] = dict(zip(ids, frame_means(store, ids, training, size), strict=True))
    return known


def _text_vectors(
    config: Config, told: list[list[str]], notes: list[str], say: Callable[[str], None]
) -> list[np.ndarray]:
    """(n, D) of each list of texts by the pretrained text encoder; none, and a note, where it
    cannot be had.

    Rows of empty texts are 0; none at all where the first list holds nothing else.
    """
    if not any(told[0]):
        return []
    say(f"vectors: {display_name(TEXT)}")
    try:
        model = HTCL.from_settings(config)
    except CheckpointError as error:
        notes.append(f"{display_name(TEXT)} is not measured: {error}.")
        return []
    return [
        unit(model.encode_text_states(texts) * np.array([[bool(text)] for text in texts]))
        for texts in told
    ]


def _place(method: str) -> int:
    return {TEXT: 0, MEL: 1, STAGE_ONE: 3, STAGE_TWO: 4, STAGE_TWO + FUSED: 5}.get(method, 2)
