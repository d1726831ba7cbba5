"""The models behind an index's spaces, and questions that need them: words, sounds, parts of
tracks.

Questions of several terms: words, tracks and sounds, each wanted or not, as one query whose score
is their sum.

A score is linear in the query, so that terms add up before anything is looked up: a question of ten
terms costs what one costs, and what each term says of a track can be told apart afterwards,
exactly.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ponticello.config import Config
from ponticello.errors import CheckpointError, DataError
from ponticello.features.musicnn import MEL, PATCH_FRAMES
from ponticello.model.htcl import HTCL
from ponticello.model.saving import space_id
from ponticello.search.index import EmbeddingIndex, Query
from ponticello.storage.layout import LibraryPaths


@dataclass(frozen=True)
class Term:
    """One thing that is asked for. query: of one row, without levels. weight: not 0; below 0 = away
    from it.
    """

    query: Query
    weight: float = 1.0


@dataclass(frozen=True)
class ComposedQuery:
    """What is looked up, `query`, and what it consists of: the parts of the `terms` add up to its
    parts.
    """

    query: Query
    terms: tuple[Query, ...]


def compose_query(index: EmbeddingIndex, terms: Sequence[Term]) -> ComposedQuery:
    """The question whose score is the mean of the terms' scores, weighted: sum of weight x score /
    sum of |weight|.

    So a single wanted term is the plain question. DataError if there is no term, or a weight is 0
    or not finite.
    """
    if not terms:
        raise DataError("a question needs at least one term: words, a track or a sound")
    weights = np.array([term.weight for term in terms])
    if not np.isfinite(weights).all() or not weights.all():
        raise DataError("each term's weight must be a number other than 0")
    scaled = [
        _scaled(index, term.query, float(weight))
        for term, weight in zip(terms, weights / np.abs(weights).sum(), strict=True)
    ]
    semantic = np.concatenate([query.semantic for query in scaled]).sum(axis=0, keepdims=True)
    sides = [query.preference for query in scaled if query.preference is not None]
    preference = np.concatenate(sides).sum(axis=0, keepdims=True) if sides else None
    offsets = tuple(
        float(sum(query.offsets[number] for query in scaled)) for number in range(len(index.spaces))
    )
    return ComposedQuery(Query(semantic, preference, "profile", offsets), tuple(scaled))


def _scaled(index: EmbeddingIndex, query: Query, weight: float) -> Query:
    """`query` times `weight`, with its calibration taken in, so that it can be added to others."""
    sides: list[np.ndarray] = []
    offsets: list[float] = []
    for number, side in enumerate((query.semantic, query.preference)[: len(index.spaces)]):
        if side is None:
            raise DataError("a term has no vector in the preference space")
        calibration = index.calibration(query, number)
        sides.append((side * (weight / calibration.std)).astype(np.float32))
        offsets.append(weight * calibration.mean / calibration.std)
    return Query(sides[0], sides[1] if len(sides) == 2 else None, "profile", tuple(offsets))


def profile_query_terms(
    index: EmbeddingIndex, track_ids: list[str], ridge: float, hub_correction: float
) -> ComposedQuery:
    """What a listener of these tracks would like, with what each of them adds; DataError as
    `track_query`.
    """
    return ComposedQuery(
        index.profile_query(track_ids, ridge, hub_correction),
        tuple(index.seed_queries(track_ids, ridge, hub_correction)),
    )


def term_shares(
    index: EmbeddingIndex, question: ComposedQuery, blend: float, rows: np.ndarray
) -> np.ndarray:
    """(terms, len(rows), 2): what each term adds to the semantic and the preference part of these
    rows' scores.
    """
    return np.stack([index.parts(term, blend, rows)[0] for term in question.terms])


def load_models(folder: LibraryPaths, index: EmbeddingIndex) -> list[HTCL]:
    """The models, one a space; CheckpointError if one is missing or was trained anew since the
    index was built.
    """
    models = []
    for space in index.spaces:
        found = space_id(folder.run(space.run))
        if found != space.space_id:
            raise CheckpointError(
                f"run {space.run!r} is now space {found}, the index holds {space.space_id}",
                code="model_changed",
                remedy="ponticello embed",
                library=folder.root,
            )
        models.append(HTCL.from_pretrained(folder.run(space.run)))
    share_text_encoder(models)
    return models


def share_text_encoder(models: Sequence[HTCL]) -> None:
    """Gives models whose text encoders are the same, to the bit, the first one: half the memory,
    half the time.
    """
    first = models[0]
    for model in models[1:]:
        ours, theirs = first.text_encoder.state_dict(), model.text_encoder.state_dict()
        may_be = model.settings.text == first.settings.text and ours.keys() == theirs.keys()
        if may_be and all(torch.equal(weight, theirs[name]) for name, weight in ours.items()):
            model.text_encoder = first.text_encoder


def frames_query(models: Sequence[HTCL], parts: Sequence[np.ndarray]) -> Query:
    """A row a part: the queries "music like this part", of frames as a library keeps them."""
    sides = [model.encode_features(list(parts)) for model in models]
    return Query(sides[0], sides[1] if len(sides) == 2 else None, "audio")


def frame_seconds(config: Config) -> float | None:
    """How far apart the frames of a track are, in s; None where frames are not of moments, or it is
    not known.
    """
    if config.front_end == "logmel":
        return config.mel.hop_s
    return PATCH_FRAMES * MEL.hop_s if config.front_end == "musicnn" else None
