"""The models behind an index's spaces, and questions that need them: words, sounds, parts of tracks."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ponticello.config import Config
from ponticello.errors import CheckpointError, DataError
from ponticello.library import Folder
from ponticello.model.front_end import frames_key
from ponticello.model.htcl import HTCL
from ponticello.model.musicnn import MEL, PATCH_FRAMES
from ponticello.model.space import space_id
from ponticello.search.index import EmbeddingIndex, Query


def load_models(folder: Folder, index: EmbeddingIndex) -> list[HTCL]:
    """The models, one a space; CheckpointError if one is missing or was trained anew since the index was built."""
    models = []
    for space in index.spaces:
        found = space_id(folder.run(space.run))
        if found != space.space_id:
            raise CheckpointError(
                f"run {space.run!r} is now space {found}, the index holds {space.space_id}; run: ponticello embed"
            )
        models.append(HTCL.from_pretrained(folder.run(space.run)))
    share_text_encoder(models)
    return models


def share_text_encoder(models: Sequence[HTCL]) -> None:
    """Gives models whose text encoders are the same, to the bit, the first one: half the memory, half the time."""
    first = models[0]
    for model in models[1:]:
        ours, theirs = first.text_encoder.state_dict(), model.text_encoder.state_dict()
        may_be = model.parts.text == first.parts.text and ours.keys() == theirs.keys()
        if may_be and all(torch.equal(weight, theirs[name]) for name, weight in ours.items()):
            model.text_encoder = first.text_encoder


def require_words(text: str) -> None:
    """DataError if a text says nothing."""
    if not text.strip():
        raise DataError("the search text is empty; say what the music should be like")


def text_query(models: Sequence[HTCL], text: str) -> Query:
    """The query "music like these words"; DataError if there are none. A shared text encoder reads them once."""
    require_words(text)
    states: dict[int, np.ndarray] = {}
    sides = []
    for model in models:
        key = id(model.text_encoder)
        if key not in states:
            states[key] = model.encode_text_states([text])
        sides.append(model.encode_known_text(states[key]))
    return Query(sides[0], sides[1] if len(sides) == 2 else None, "text")


def sound_query(models: Sequence[HTCL], sound: str | Path | np.ndarray) -> Query:
    """The query "music like this": a file, or a mono waveform (n,); errors as `HTCL.encode_audio`.

    Models that read the same frames hear it once: that is nearly all of the time it takes.
    """
    frames: dict[str, np.ndarray] = {}
    sides = []
    for model in models:
        key = frames_key(model.parts, model.config.front_end_weights)
        if key not in frames:
            frames[key] = model.frames(sound)
        sides.append(model.encode_mels([frames[key]]))
    return Query(sides[0], sides[1] if len(sides) == 2 else None, "audio")


def frames_query(models: Sequence[HTCL], parts: Sequence[np.ndarray]) -> Query:
    """A row a part: the queries "music like this part", of frames as a library keeps them."""
    sides = [model.encode_mels(list(parts)) for model in models]
    return Query(sides[0], sides[1] if len(sides) == 2 else None, "audio")


def frame_seconds(config: Config) -> float | None:
    """How far apart the frames of a track are, in s; None where frames are not of moments, or it is not known."""
    if config.front_end == "logmel":
        return config.mel.hop_s
    return PATCH_FRAMES * MEL.hop_s if config.front_end == "musicnn" else None
