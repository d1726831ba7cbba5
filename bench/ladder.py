"""The data ladder: is what a library serves ever worse than the front end it starts from, however
little there is?

    python bench/ladder.py PATH/TO/freemusic --work WORK_FOLDER --seeds 3 --json ladder.json --plot
    docs/ladder.svg

Rungs are numbers of tracks times numbers of SIMULATED listeners. 100 and 300 tracks are drawn from
freemusic by seed; above its 565 all of them stand beside mixtures of them (`mixtures.py` says how
those are made). Each rung is a library with both stages trained as the command line trains them;
what the choice on validation then serves (`train/selection.py`) is measured on test tracks by games
and artists training never saw, against the front end's own vectors there.

So that rungs can be compared: with one seed and number of tracks, a rung's listeners are the first
of the same 3,000, stage one is the same, and asked are always the same 500 further listeners, from
whom no rung has learned.
"""

import argparse
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

from freemusic import prepared, read_catalogue, roles, together, write_tracks
from ladder_report import Cell, drawn, table
from measured import Asked, trained
from mixtures import draw_mixtures, mixed_rows, tag_scores, write_mixtures
from ponticello.config import Config
from ponticello.datasets.simulated import audible_traits, simulate_listeners
from ponticello.errors import DataError
from ponticello.evaluate.baselines import unit
from ponticello.evaluate.retrieval import retrieval_figures
from ponticello.evaluate.validation import score_spaces_on_validation
from ponticello.evaluate.vectors import frame_means
from ponticello.features.musicnn_frontend import BLOCKS
from ponticello.features.store import FeatureStore, read_manifest, write_manifest
from ponticello.listening.importers.run import import_history
from ponticello.model.htcl import HTCL
from ponticello.model.saving import served_vector_name
from ponticello.pairs.mine import MiningResult, mine_library
from ponticello.search.embed import embed_library
from ponticello.storage.layout import LibraryPaths, create_library
from ponticello.storage.schema import USER_ID
from ponticello.tracks.catalog import read_tracks
from ponticello.tracks.text import track_texts
from ponticello.train.preference import train_preference
from ponticello.train.semantic import train_semantic

TRACKS = (100, 300, 1000, 3000)
LISTENERS = (10, 30, 100, 300, 1000, 3000)
N_ASKED = 500  # listeners beside those of the rungs, who are only measured with
PANEL = "panel"  # the library of those


@dataclass(frozen=True)
class Sources:
    """Where tracks come from. rows: of the tracks table, real ones first; store: mels and frames of
    all of them.
    """

    rows: list[dict[str, str]]
    store: LibraryPaths
    n_real: int


def gathered(work: Path, source: Path, n_most: int, workers: int) -> Sources:
    """All real tracks, and as many mixtures as the largest rung needs; made once and then found
    again.
    """
    base, rows = prepared(work / "base", source, workers), read_catalogue(source)
    mixtures = draw_mixtures(rows, max(n_most - len(rows), 0), seed=0)
    root = work / "all"
    if not (root / "ponticello.toml").is_file():
        create_library(root, "tiny")
    store = LibraryPaths(root.resolve(), Config.from_preset("tiny"))
    write_mixtures(store, base, mixtures)
    return Sources([*rows, *mixed_rows(rows, mixtures, tag_scores(source))], store, len(rows))


def chosen_rows(sources: Sources, n_tracks: int, seed: int) -> list[dict[str, str]]:
    """The rows of a rung, with roles: drawn from `seed` up to the real tracks, above those all and
    then mixtures.
    """
    rows = sources.rows[:n_tracks]
    if n_tracks < sources.n_real:
        places = np.sort(np.random.default_rng(seed).permutation(sources.n_real)[:n_tracks])
        rows = [sources.rows[place] for place in places]
    return [
        {**row, "split": role} for row, role in zip(rows, roles(together(rows), seed), strict=True)
    ]


def listening(folder: LibraryPaths, n_listeners: int, seed: int) -> pl.DataFrame:
    """What so many simulated listeners did, in tastes planted in what can be heard in the library's
    tracks.
    """
    simulation = folder.config.simulation.model_copy(
        update={"n_listeners": n_listeners, "seed": seed}
    )
    traits = audible_traits(read_tracks(folder), FeatureStore(folder.mels))
    return simulate_listeners(list(traits), np.stack(list(traits.values())), simulation)


def library_of(root: Path, rows: list[dict[str, str]], store: LibraryPaths) -> LibraryPaths:
    """A library of these tracks, whose frames are those of `store`."""
    shutil.rmtree(root, ignore_errors=True)
    config = Config.from_preset("tiny", {"splits": {"tracks": "column", "column": "split"}})
    folder = replace(create_library(root, "tiny"), config=config)
    write_tracks(folder, rows)
    track_ids = [row["track_id"] for row in rows]
    for own, whole in ((folder.mels, store.mels), (folder.frames, store.frames)):
        own.mkdir()
        for shard in whole.glob("shard-*.npy"):
            (own / shard.name).symlink_to(shard)
        write_manifest(own, read_manifest(whole).filter(pl.col("track_id").is_in(track_ids)))
    return folder


def listened(folder: LibraryPaths, log: pl.DataFrame) -> MiningResult:
    """Imports the log and mines its pairs."""
    log.write_csv(folder.root / "listening.csv")
    import_history(folder, folder.root / "listening.csv", pseudonyms=False)
    with folder.lock():
        return mine_library(folder)


def climb(
    work: Path, sources: Sources, n_tracks: int, listeners: Sequence[int], seed: int
) -> list[Cell]:
    """All rungs of one number of tracks and one seed."""
    root = work / f"tracks-{n_tracks}-seed-{seed}"
    rows = chosen_rows(sources, n_tracks, seed)
    panel = library_of(root / PANEL, rows, sources.store)
    log = listening(panel, max(LISTENERS) + N_ASKED, seed)
    names = sorted(log[USER_ID].unique())
    listened(panel, log.filter(pl.col(USER_ID).is_in(names[max(LISTENERS) :])))
    trained(panel, lambda own: train_semantic(own, "semantic", retrieval_figures), {}, seed)
    asked = Asked(panel)
    start = measure_run(panel, "semantic", asked)["audio"]
    others = {
        name: asked.measure(vectors, None) for name, vectors in beginnings(panel, asked).items()
    }
    cells = []
    for n_listeners in listeners:
        folder = library_of(root / str(n_listeners), rows, sources.store)
        mined = listened(folder, log.filter(pl.col(USER_ID).is_in(names[:n_listeners])))
        shutil.copytree(panel.run("semantic"), folder.run("semantic"))
        kept, measured = stage_two(folder, asked, seed, start)
        cells.append(
            Cell(
                n_tracks,
                n_listeners,
                seed,
                mined.n_pairs,
                *kept,
                measured,
                start,
                others,
                clusters_of(asked),
            )
        )
        print(
            f"seed {seed}: {n_tracks} tracks, {n_listeners} listeners, "
            f"{mined.n_pairs} pairs: {kept}",
            flush=True,
        )
    return cells


def stage_two(
    folder: LibraryPaths, asked: Asked, seed: int, start: dict[str, np.ndarray]
) -> tuple[tuple[float, str, str], dict[str, dict[str, np.ndarray]]]:
    """((alpha, kind of vector, what was said of the choice), what is served, measured); stage one
    where it refuses.
    """
    judge = score_spaces_on_validation(folder)
    try:
        done = trained(
            folder,
            lambda own: train_preference(
                own, "preference", "semantic", retrieval_figures, space_scorer=judge
            ),
            {},
            seed,
        )
    except DataError as error:
        return (0.0, "audio", str(error)), {"audio": start, "served": start}
    assert done.selection is not None
    sentence = done.selection["sentence"]
    if not done.selection["is_served"]:
        return (0.0, "audio", sentence), {"audio": start, "served": start}
    return (1.0, "fused", sentence), measure_run(folder, "preference", asked)


def measure_run(folder: LibraryPaths, run: str, asked: Asked) -> dict[str, dict[str, np.ndarray]]:
    """{"audio", "served": {metric: a number a query}}: of the run's audio vectors, and of those the
    index would hold.

    Fused vectors are not asked by text: they hold the very text that would ask.
    """
    model, store = HTCL.from_pretrained(folder.run(run)), FeatureStore(folder.frames)
    audio, _ = embed_library(folder.run(run), store)
    texts = np.zeros(
        (len(asked.ids), audio.matrix.shape[1]), dtype=np.float32
    )  # only test tracks' are asked
    texts[asked.test] = model.encode_text([asked.texts[row] for row in asked.test])
    found = asked.measure(audio.matrix, texts)
    if served_vector_name(folder.run(run)) == "audio":
        return {"audio": found, "served": found}
    tracks = read_tracks(folder)
    known = dict(zip(tracks["track_id"], track_texts(tracks), strict=True))
    served, _ = embed_library(folder.run(run), store, texts=known)
    return {"audio": found, "served": {**found, **asked.measure(served.matrix, None)}}


def beginnings(folder: LibraryPaths, asked: Asked) -> dict[str, np.ndarray]:
    """What else one could begin with, (n, F) each, standardised over the training tracks.

    The front end's numbers as it weighs them, before they are put on the tower's axes; and what the
    taggers say alone, which the machine tags were made from.
    """
    store = FeatureStore(folder.frames)
    training = [
        track_id for track_id, role in zip(asked.ids, asked.roles, strict=True) if role == "train"
    ]
    share = np.concatenate([np.full(size, weight / np.sqrt(size)) for size, weight in BLOCKS])
    return {
        "the front end without axes": unit(frame_means(store, asked.ids, training) * share),
        "the taggers alone": frame_means(store, asked.ids, training),
    }


def clusters_of(asked: Asked) -> list[str]:
    """Of each test track, in order: by whom it is."""
    return [asked.clusters[row] for row in asked.test]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, help="the freemusic folder")
    parser.add_argument("--work", type=Path, required=True, help="where libraries are made")
    parser.add_argument("--tracks", type=int, nargs="*", default=TRACKS)
    parser.add_argument("--listeners", type=int, nargs="*", default=LISTENERS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2, help="processes that prepare the sounds")
    parser.add_argument("--json", type=Path, help="every number of every query")
    parser.add_argument(
        "--read", type=Path, nargs="*", help="measure nothing: these files' numbers"
    )
    parser.add_argument("--plot", type=Path, help="the curve, .svg or .png")
    options = parser.parse_args()
    if options.read:
        cells = [
            Cell.of(record) for path in options.read for record in json.loads(path.read_text())
        ]
    else:
        started = time.monotonic()
        sources = gathered(
            options.work, options.source, max(*options.tracks, *TRACKS), options.workers
        )
        cells = []
        for seed in range(options.first_seed, options.first_seed + options.seeds):
            for n_tracks in options.tracks:
                cells += climb(options.work, sources, n_tracks, options.listeners, seed)
                if options.json:
                    options.json.write_text(json.dumps([cell.record() for cell in cells]))
        print(f"{len(cells)} rungs in {time.monotonic() - started:.0f} s\n")
    print(table(cells))
    if options.plot:
        drawn(cells, options.plot)


if __name__ == "__main__":
    main()
