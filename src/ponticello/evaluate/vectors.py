"""The vectors that an evaluation compares: of runs, untrained encoders, files and the text."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import polars as pl

from ponticello.config import Config
from ponticello.errors import CheckpointError, DataError, LibraryError
from ponticello.evaluate.baselines import unit
from ponticello.evaluate.report.tables import display_name
from ponticello.evaluate.results import FUSED, SERVED, STAGE_ONE, STAGE_TWO, pick
from ponticello.features.frontend import open_features
from ponticello.features.precomputed import read_vector_file
from ponticello.features.store import MANIFEST, FeatureStore
from ponticello.model.htcl import HTCL
from ponticello.model.saving import run_config, served_vector_name
from ponticello.search.embed import embed_library
from ponticello.search.index import EmbeddingIndex, VectorSpace, calibrate
from ponticello.splits.splits import Splits
from ponticello.storage.layout import LibraryPaths
from ponticello.storage.schema import TRACK_ID
from ponticello.tracks.catalog import read_tracks
from ponticello.tracks.names import lead_artists
from ponticello.tracks.text import fused_texts, track_texts
from ponticello.train.runs import is_served, why_one_space

MEL = "mel_statistics"
MUSICNN = "musicnn"
FRONT_END = "front_end"
TEXT = "text"
MIN_LENGTH = 1e-12  # a shorter vector has no direction
CALIBRATION_TEXTS = 512  # texts of tracks: the spread of a space's cosines with texts

VectorsById = dict[str, np.ndarray]  # (d,) each, by track id


class TextTower(Protocol):
    """What encodes texts into the space of a method's track vectors."""

    def encode_text(self, texts: Sequence[str]) -> np.ndarray:
        """Returns the vectors (n, d) of texts."""


class BlendedTower:
    """Both spaces at a blend, by sound alone: cosines rank as the index does, text or track.

    tracks: (n, 2d) unit vectors.
    """

    def __init__(
        self, towers: Sequence[HTCL], matrices: Sequence[np.ndarray], texts: list[str], blend: float
    ) -> None:
        self._towers = towers
        self._text_scales = []
        scaled = []
        for tower, matrix, weight in zip(towers, matrices, (1 - blend, blend), strict=True):
            track_scale = np.sqrt(weight / calibrate(matrix, matrix).std)
            scaled.append(track_scale * matrix)
            text_weight = weight / calibrate(tower.encode_text(texts or ["music"]), matrix).std
            self._text_scales.append(text_weight / max(track_scale, MIN_LENGTH))
        self.tracks = unit(np.concatenate(scaled, axis=1))

    def encode_text(self, texts: Sequence[str]) -> np.ndarray:
        """Returns the unit vectors (n, 2d) of texts."""
        scaled = []
        for tower, scale in zip(self._towers, self._text_scales, strict=True):
            scaled.append(scale * tower.encode_text(texts))
        return unit(np.concatenate(scaled, axis=1))


@dataclass(frozen=True)
class EvaluationVectors:
    """The tracks that every method has a vector of, and those vectors.

    Row i of everything belongs to `ids[i]`; ids are sorted.
    roles: "new" for a track that is not in the splits. artists: by track id. vectors: (n, d) unit
    vectors by method; those of `TEXT` are 0 for a track without text. models: by method of a run.
    served: of the method `SERVED`, if both stages are compared and stage two is served. store: the
    features that the models read. fused_texts: (D,) by track id, the texts that fused vectors hold;
    empty if no fused vectors are compared.
    """

    config: Config
    tracks: pl.DataFrame
    ids: list[str]
    roles: list[str]
    artists: dict[str, str]
    texts: list[str]
    vectors: dict[str, np.ndarray]
    models: dict[str, HTCL]
    store: FeatureStore | None
    fused_texts: VectorsById
    served: BlendedTower | None = None

    @property
    def clusters(self) -> list[str]:
        """The artist of every track, or the track itself: the clusters of queries."""
        return [self.artists.get(track_id, track_id) for track_id in self.ids]

    @property
    def content(self) -> str:
        """The method that extends collaborative models to cold tracks with its vectors.

        Stage one if there is one, else the first external encoder or front end, else an untrained
        one; never a method that was trained on listening.
        """
        if STAGE_ONE in self.vectors:
            return STAGE_ONE
        for method in self.vectors:
            if not method.endswith(FUSED) and method not in (TEXT, MUSICNN, MEL, STAGE_TWO, SERVED):
                return method
        return MUSICNN if MUSICNN in self.vectors else MEL

    def by_id(self, method: str) -> VectorsById:
        """Returns each track's vector under a method."""
        return dict(zip(self.ids, self.vectors[method], strict=True))

    def queries(self, rows: list[int]) -> tuple[list[str], list[str]]:
        """Returns the ids and the clusters of some rows."""
        return pick(self.ids, rows), pick(self.clusters, rows)

    def rows_of(self, role: str) -> list[int]:
        """Returns the rows of the tracks with this role."""
        return [row for row, track_role in enumerate(self.roles) if track_role == role]

    def test_rows_with_text(self) -> list[int]:
        """Returns the rows of the test tracks that have a text."""
        return [row for row in self.rows_of("test") if self.texts[row]]

    @property
    def towers(self) -> dict[str, TextTower]:
        """What encodes texts, by method of a run, and of what is served."""
        towers: dict[str, TextTower] = dict(self.models)
        if self.served is not None:
            towers[SERVED] = self.served
        return towers

    def of_towers(self, rows: list[int]) -> dict[str, np.ndarray]:
        """Returns the vectors of these rows, by method of `towers`."""
        return {method: self.vectors[method][rows] for method in self.towers}

    def spaces(self, method: str) -> list[tuple[float, VectorsById]]:
        """Returns a weight and the vectors for each space that profiles read by this method."""
        if method != SERVED:
            return [(1.0, self.by_id(method))]
        blend = self.config.search.blend
        semantic = self.by_id(self.served_method(STAGE_ONE))
        return [(1 - blend, semantic), (blend, self.by_id(self.served_method(STAGE_TWO)))]

    def served_method(self, stage: str) -> str:
        """Returns the method of the vectors that a stage serves, fused ones if it has them."""
        return stage + FUSED if stage + FUSED in self.vectors else stage

    @property
    def stages(self) -> list[HTCL]:
        """The models of stage one and of stage two, those of them that are compared."""
        return [self.models[stage] for stage in (STAGE_ONE, STAGE_TWO) if stage in self.models]

    def index(self) -> EmbeddingIndex:
        """Returns the index of the tracks over the vectors that the stages serve."""
        matrices = []
        spaces = []
        texts = [text for text in self.texts if text][:CALIBRATION_TEXTS] or ["music"]
        for stage in (STAGE_ONE, STAGE_TWO):
            if stage in self.models:
                matrix = self.vectors[self.served_method(stage)]
                text = calibrate(self.models[stage].encode_text(texts), matrix)
                matrices.append(matrix)
                spaces.append(VectorSpace(stage, "", calibrate(matrix, matrix), text))
        return EmbeddingIndex(self.ids, np.concatenate(matrices, axis=1), spaces)


def load_vectors(
    folder: LibraryPaths,
    runs: Mapping[str, str],
    files: Mapping[str, Path],
    splits: Splits,
    notes: list[str],
    on_step: Callable[[str], None],
) -> EvaluationVectors:
    """Embeds the library with every method.

    runs: run name by method; files: file of external vectors by method. Tracks that a method has no
    vector of are left out for all methods, with a note. LibraryError if there is no method;
    DataError if fewer than two tracks are left.
    """
    tracks = read_tracks(folder).sort(TRACK_ID)
    by_method = _untrained_vectors(folder, tracks[TRACK_ID].to_list(), splits, notes, on_step)
    for method, path in files.items():
        by_method[method], left_out = read_vectors(path)
        if left_out:
            notes.append(
                f"{method}: {len(left_out):,} vectors are zero or not finite, "
                f"such as {left_out[0]!r}."
            )
    models, store, run_texts = _add_run_vectors(by_method, folder, runs, tracks, notes, on_step)
    if not by_method:
        raise LibraryError(
            "there is nothing to evaluate; run: ponticello prepare, or give --vectors"
        )
    tracks = _tracks_of_all(tracks, by_method, notes)
    ids = tracks[TRACK_ID].to_list()
    matrices = _stack_finite(by_method, ids)
    texts = track_texts(tracks)
    encoder = _text_encoder(folder.config, texts, notes, on_step)
    fused = {}
    if encoder is not None:
        matrices[TEXT] = _encode_texts(encoder, texts)
        if run_texts:
            encoded = _encode_texts(encoder, pick(run_texts, ids))
            fused = dict(zip(ids, encoded, strict=True))
    served = None
    if STAGE_TWO in models and not is_served(folder.run(runs[STAGE_TWO])):
        notes.append(f"No row as served: {why_one_space(folder.run(runs[STAGE_TWO]))}.")
    else:
        served = _blended_tower(models, matrices, texts, folder.config.search.blend)
    if served is not None:
        matrices[SERVED] = served.tracks
    return EvaluationVectors(
        config=folder.config,
        tracks=tracks,
        ids=ids,
        roles=[splits.roles.get(track_id, "new") for track_id in ids],
        artists=lead_artists(tracks),
        texts=texts,
        vectors={method: matrices[method] for method in sorted(matrices, key=_report_position)},
        models=models,
        store=store,
        fused_texts=fused,
        served=served,
    )


def _untrained_vectors(
    folder: LibraryPaths,
    track_ids: list[str],
    splits: Splits,
    notes: list[str],
    on_step: Callable[[str], None],
) -> dict[str, VectorsById]:
    """Returns mel statistics, and means of the taggers' and of the library's front end's frames.

    A method is measured only if it has features of every track that the library's front end
    (log-mels where that is MusiCNN) has prepared.
    """
    front_end = folder.config.front_end
    has_other = front_end not in ("logmel", "musicnn")
    paths = {MEL: folder.mels, MUSICNN: folder.frames}
    if has_other:
        paths[FRONT_END] = folder.frames_of(front_end)
    stores = {}
    for method, path in paths.items():
        if (path / MANIFEST).is_file():
            stores[method] = FeatureStore(path)
    main_store = stores.get(FRONT_END if has_other else MEL)
    if main_store is None:
        return {}
    ids = [track_id for track_id in track_ids if track_id in main_store]
    training = [track_id for track_id in ids if splits.roles.get(track_id) == "train"]
    by_method = {}
    for method, store in stores.items() if ids else ():
        on_step(f"vectors: {display_name(method)}")
        n_missing = sum(track_id not in store for track_id in ids)
        if n_missing:
            remedy = "; run: ponticello tag" if method == MUSICNN else ""
            notes.append(
                f"{display_name(method)} is not measured: it has not heard every track "
                f"({n_missing:,} are missing){remedy}."
            )
            continue
        if method == MEL:
            matrix = mel_statistics(store, ids, training)
        else:
            matrix = frame_means(store, ids, training)
        by_method[method] = dict(zip(ids, matrix, strict=True))
    return by_method


def mel_statistics(
    store: FeatureStore, track_ids: list[str], reference_ids: list[str]
) -> np.ndarray:
    """Returns (n, 2F) float32 unit vectors: mean and standard deviation of every mel band, in dB.

    Each of the 2F numbers is standardised over `reference_ids` (the training tracks).
    """
    return _standardised(
        store,
        track_ids,
        reference_ids,
        lambda frames: np.concatenate([frames.mean(axis=0), frames.std(axis=0)]),
    )


def frame_means(store: FeatureStore, track_ids: list[str], reference_ids: list[str]) -> np.ndarray:
    """Returns (n, F) float32 unit vectors: each track's mean frame.

    Each number is standardised over `reference_ids`.
    """
    return _standardised(store, track_ids, reference_ids, lambda frames: frames.mean(axis=0))


def _standardised(
    store: FeatureStore,
    track_ids: list[str],
    reference_ids: list[str],
    describe: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    """Returns unit vectors of `describe(frames (T, F))`, standardised over the references."""
    described = {}
    for track_id in set(track_ids).union(reference_ids):
        described[track_id] = describe(np.asarray(store.read(track_id), dtype=np.float32))
    reference = np.stack(pick(described, reference_ids))
    centred = np.stack(pick(described, track_ids)) - reference.mean(axis=0)
    return unit(centred / np.maximum(reference.std(axis=0), 1e-6))


def read_vectors(path: Path) -> tuple[VectorsById, list[str]]:
    """Reads a file of vectors, as `read_vector_file`, and scales them to unit length.

    The ids of vectors that are zero or not finite are returned apart. Errors as there; DataError if
    the vectors differ in length.
    """
    ids, rows = read_vector_file(path)
    lengths = sorted({len(row) for row in rows})
    if len(lengths) > 1 or not lengths[0]:
        raise DataError(
            f"{path.name}: every row needs an id and a vector of the same length; "
            f"found lengths {lengths}"
        )
    matrix = np.stack(rows)
    with np.errstate(all="ignore"):
        is_usable = np.isfinite(matrix).all(axis=1) & (np.linalg.norm(matrix, axis=1) > MIN_LENGTH)
    usable_ids = pick(ids, np.flatnonzero(is_usable))
    left_out = pick(ids, np.flatnonzero(~is_usable))
    return dict(zip(usable_ids, unit(matrix[is_usable]), strict=True)), left_out


def _add_run_vectors(
    by_method: dict[str, VectorsById],
    folder: LibraryPaths,
    runs: Mapping[str, str],
    tracks: pl.DataFrame,
    notes: list[str],
    on_step: Callable[[str], None],
) -> tuple[dict[str, HTCL], FeatureStore | None, dict[str, str]]:
    """Embeds the library with each run; with text too where the run serves fused vectors.

    Returns the models by method, the features that they read, and the texts in fused vectors.
    """
    models: dict[str, HTCL] = {}
    store = None
    run_texts: dict[str, str] = {}
    for method, run in runs.items():
        on_step(f"vectors: {display_name(method)}")
        config = run_config(folder.run(run))
        store = open_features(folder, config)
        models[method] = HTCL.from_pretrained(folder.run(run))
        by_method[method] = _embed(folder.run(run), store)
        if served_vector_name(folder.run(run)) == "fused":
            run_texts = fused_texts(tracks, config.front_end)
            by_method[method + FUSED] = _embed(folder.run(run), store, run_texts)
            title = display_name(method)
            notes.append(
                f"{title} serves fused vectors (audio with text) where a track has a text."
            )
    return models, store, run_texts


def _blended_tower(
    models: Mapping[str, HTCL], matrices: Mapping[str, np.ndarray], texts: list[str], blend: float
) -> BlendedTower | None:
    """Returns the tower of the method `SERVED`; None unless both stages are compared."""
    stages = (STAGE_ONE, STAGE_TWO)
    if not models.keys() >= set(stages):
        return None
    known_texts = [text for text in texts if text][:CALIBRATION_TEXTS]
    return BlendedTower(pick(models, stages), pick(matrices, stages), known_texts, blend)


def _stack_finite(by_method: Mapping[str, VectorsById], ids: list[str]) -> dict[str, np.ndarray]:
    matrices = {}
    for method, vectors in by_method.items():
        matrices[method] = np.stack(pick(vectors, ids))
        if not np.isfinite(matrices[method]).all():
            raise DataError(f"{method}: vectors hold NaN or infinity; embed them again")
    return matrices


def _embed(run: Path, store: FeatureStore, texts: Mapping[str, str] | None = None) -> VectorsById:
    embedded, _ = embed_library(run, store, texts=texts)
    return dict(zip(embedded.track_ids, embedded.matrix, strict=True))


def _tracks_of_all(
    tracks: pl.DataFrame, by_method: Mapping[str, VectorsById], notes: list[str]
) -> pl.DataFrame:
    """Returns the tracks that every method has a vector of; notes how many a method lacks."""
    catalogue = set(tracks[TRACK_ID])
    of_any: set[str] = set()
    of_all = catalogue
    for vectors in by_method.values():
        of_any |= catalogue & vectors.keys()
        of_all = of_all & vectors.keys()
    for method, vectors in by_method.items():
        n_missing = len(of_any - vectors.keys())
        if n_missing:
            notes.append(
                f"{display_name(method)} has no vector of {n_missing:,} tracks; "
                "they are left out for all."
            )
    tracks = tracks.filter(pl.col(TRACK_ID).is_in(list(of_all)))
    if tracks.height < 2:
        raise DataError(
            "fewer than two tracks of the catalogue have a vector in every method; check the ids"
        )
    return tracks


def _text_encoder(
    config: Config, texts: list[str], notes: list[str], on_step: Callable[[str], None]
) -> HTCL | None:
    """Returns a model with the pretrained text encoder; None if unavailable or without texts."""
    if not any(texts):
        return None
    on_step(f"vectors: {display_name(TEXT)}")
    try:
        return HTCL.from_settings(config)
    except CheckpointError as error:
        notes.append(f"{display_name(TEXT)} is not measured: {error}.")
        return None


def _encode_texts(model: HTCL, texts: list[str]) -> np.ndarray:
    """Returns (n, D) unit vectors; the rows of empty texts are 0."""
    has_text = np.array(list(map(bool, texts)))
    return unit(model.encode_text_states(texts) * has_text[:, None])


def _report_position(method: str) -> int:
    order = (
        TEXT,
        MEL,
        MUSICNN,
        STAGE_ONE,
        STAGE_ONE + FUSED,
        STAGE_TWO,
        STAGE_TWO + FUSED,
        SERVED,
    )
    return order.index(MUSICNN if method not in order else method)
