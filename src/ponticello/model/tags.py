"""Machine tags, from what MusiCNN heard: of one track, and of a whole library."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import polars as pl

from ponticello.data.catalog import merge_tracks
from ponticello.data.columns import MACHINE_TAGS, TRACK_ID
from ponticello.data.shards import Mel
from ponticello.data.store import FrameStore
from ponticello.library import Folder
from ponticello.model.musicnn import N_TAGS, Tagger, tag_names
from ponticello.model.musicnn_frames import A_TAGGER, TAGGERS, musicnn_front_end

# A tag counts from here on, in 0..1. Scores are low in absolute terms, those of `mtt` about twice as high.
LEAST_SCORE: dict[Tagger, float] = {"msd": 0.1, "mtt": 0.2}
MOST_TAGS = 12  # a track, the clearest


@dataclass(frozen=True)
class Tagged:
    """What `tag_tracks` wrote. tags: how many tracks carry each, the commonest first."""

    n_tagged: int
    tags: dict[str, int]


def tag_tracks(folder: Folder) -> Tagged:
    """Writes column `machine_tags` of every track whose frames are prepared; no other column is touched.

    A track's earlier machine tags are replaced; one in which nothing is clear gets an empty list. The caller holds
    `folder.lock()`. LibraryError if there are no frames.
    """
    store = FrameStore(folder.frames)
    store.require(musicnn_front_end(folder).key)
    tags = {track_id: list(tags_of(store.read(track_id))) for track_id in store.track_ids}
    schema = {TRACK_ID: pl.String(), MACHINE_TAGS: pl.List(pl.String())}
    merge_tracks(
        folder, pl.DataFrame({TRACK_ID: list(tags), MACHINE_TAGS: list(tags.values())}, schema), "machine tags"
    )
    return Tagged(len(tags), dict(Counter(tag for own in tags.values() for tag in own).most_common()))


def tags_of(frames: Mel) -> dict[str, float]:
    """The tags of a track by falling clearness, at most `MOST_TAGS`: {tag: how many times its least score it has}.

    frames: as `musicnn_frames` gives them. A track's score is the mean over its frames; a tag that both taggers know
    counts by the clearer one.
    """
    clearness: dict[str, float] = {}
    for number, tagger in enumerate(TAGGERS):
        end = (number + 1) * A_TAGGER
        scores = frames[:, end - N_TAGS : end].astype(np.float64).mean(axis=0) / LEAST_SCORE[tagger]
        for tag, score in zip(tag_names(tagger), scores.tolist(), strict=True):
            clearness[tag] = max(clearness.get(tag, 0.0), score)
    clear = sorted((-score, tag) for tag, score in clearness.items() if score >= 1)
    return {tag: -score for score, tag in clear[:MOST_TAGS]}
