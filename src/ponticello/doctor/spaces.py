"""The index and the spaces in it: whole, of today's models and tracks, and not collapsed."""

from collections.abc import Iterator
from functools import partial

import numpy as np

from ponticello.data.catalog import read_tracks
from ponticello.data.columns import PATH, TRACK_ID
from ponticello.data.text import track_texts
from ponticello.doctor.finding import Finding, run_check
from ponticello.errors import PonticelloError
from ponticello.evaluate.integrity import alignment, space_health
from ponticello.library import Folder
from ponticello.model.checksums import check_checksums
from ponticello.model.htcl import HTCL
from ponticello.model.space import space_id
from ponticello.search.generations import open_index
from ponticello.search.index import EmbeddingIndex

MOST_ROWS = 5_000  # vectors looked at, evenly drawn
MOST_TEXTS = 200
LEAST_ALIGNED = 0.02  # by how much a text must lie nearer to its own track than to another, as squared distance
MANY_HUBS = 5.0  # skewness of how often tracks are near; music spaces lie at 1 to 3
NAMES = ("semantic space", "preference space")


def check_index(folder: Folder) -> Iterator[Finding]:
    """The live index against its hashes, the catalogue and the models, and its spaces. It is read once."""
    if not (folder.index / "CURRENT").is_file():
        if folder.tracks.is_file():
            yield Finding("warning", "there is no index: nothing can be asked yet", "index/", "ponticello embed")
        return
    index = open_index(folder.index, folder.config.search.backend)  # CheckpointError names what is damaged
    taste = "meaning and taste" if index.has_preference else "meaning only"
    yield Finding("ok", f"{len(index.track_ids):,} tracks, {taste}, every file as it was written", "index/")
    for where, check in (("index/", _check_tracks), ("index/", _check_models), ("spaces", _check_spaces)):
        yield from run_check(where, partial(check, folder, index))


def _check_tracks(folder: Folder, index: EmbeddingIndex) -> Iterator[Finding]:
    """The tracks of the index against the catalogue."""
    tracks = read_tracks(folder)
    known, held = set(tracks[TRACK_ID]), set(index.track_ids)
    if held - known:
        what = f"{len(held - known):,} tracks of the index are not in the catalogue any more"
        yield Finding("note", what, "index/", "ponticello embed, once they are gone from what is prepared")
    lacking = set(tracks.drop_nulls(PATH)[TRACK_ID]) - held
    if lacking:
        what = f"{len(lacking):,} tracks with audio cannot be found by it"
        yield Finding("warning", what, "index/", "ponticello prepare, then ponticello embed")


def _check_models(folder: Folder, index: EmbeddingIndex) -> Iterator[Finding]:
    """The runs behind the index against what they were when it was made."""
    for space in index.spaces:
        try:
            check_checksums(folder.run(space.run))
            found = space_id(folder.run(space.run))
        except (PonticelloError, OSError) as error:
            what = f"run {space.run!r} behind it cannot be read ({error}): words and sounds cannot be asked"
            yield Finding("error", what, "index/", "ponticello train, then ponticello embed")
            continue
        if found != space.space_id:
            what = f"run {space.run!r} was trained anew: it is space {found}, the index holds {space.space_id}"
            yield Finding("error", what, "index/", "ponticello embed")


def _check_spaces(folder: Folder, index: EmbeddingIndex) -> Iterator[Finding]:
    """Collapse, hubs and alignment of each space."""
    if len(index.track_ids) < 2:
        return
    rows = np.unique(np.linspace(0, len(index.track_ids) - 1, MOST_ROWS).round().astype(np.int64))
    for number, name in enumerate(NAMES[: len(index.spaces)]):
        health = space_health(np.asarray(index.side(number)[rows]))
        run = index.spaces[number].run
        if health.n_nan:
            what = f"{health.n_nan:,} vectors are not finite"
            yield Finding("error", what, name, f"delete runs/{run}/ and train it again")
        if health.is_collapsed:
            what = (
                f"it has collapsed: {health.effective_rank:.1f} dimensions in use, mean cosine {health.mean_cosine:.2f}"
            )
            yield Finding("error", what, name, "train again with a lower rate, more tracks, or from the starter")
        elif health.hubness > MANY_HUBS:
            what = f"a few tracks are near to nearly all (hubness {health.hubness:.1f})"
            yield Finding("warning", what, name, "try search.hub_correction = 0.5 in ponticello.toml")
        line = f"{health.effective_rank:.0f} dimensions in use, hubness {health.hubness:.1f}"
        yield Finding("ok", f"{line}, mean cosine {health.mean_cosine:.2f}", name)
    yield from _check_alignment(folder, index)


def _check_alignment(folder: Folder, index: EmbeddingIndex) -> Iterator[Finding]:
    """Whether texts lie nearer to their own tracks than to others, in the semantic space."""
    tracks = read_tracks(folder)
    texts = dict(zip(tracks[TRACK_ID], track_texts(tracks), strict=True))
    told = [track_id for track_id in index.track_ids if texts.get(track_id)][:MOST_TEXTS]
    if len(told) < 2:
        return
    run = folder.run(index.spaces[0].run)
    try:
        check_checksums(run)
        space_id(run)
    except (PonticelloError, OSError):
        return  # `_check_models` has told
    vectors = HTCL.from_pretrained(run).encode_text([texts[each] for each in told])
    own = np.asarray(index.side(0)[[index.rows[each] for each in told]])
    near, apart = alignment(own, vectors), alignment(own, np.roll(vectors, 1, axis=0))
    if apart - near < LEAST_ALIGNED:
        what = f"texts lie no nearer to their own tracks ({near:.2f}) than to others ({apart:.2f})"
        yield Finding("warning", what, NAMES[0], "train semantic, on more texts, or from the starter")
    else:
        yield Finding("ok", f"texts lie at {near:.2f} from their own tracks, {apart:.2f} from others", NAMES[0])
