"""demo: everything once, on real music with simulated listeners, in minutes."""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ponticello.cli.evaluate import compare, measure, print_summary
from ponticello.cli.options import print_results
from ponticello.cli.pairs import print_mined
from ponticello.cli.prepare import step_progress
from ponticello.cli.search import embed_folder

if TYPE_CHECKING:
    from ponticello.storage.layout import LibraryPaths

DATA = Path(__file__).parents[3] / "demo"  # beside the source; a wheel does not carry the music
SEARCHES = (
    "heavy metal with electric guitars",
    "calm ambient space music",
    "jazz",
    "fast electronic dance music",
    "acoustic folk from an old village",
)
LABELS = ["game", "machine_tags"]
# All but SASRec, whose tuning takes as long as all the rest; `ponticello evaluate` adds it.
BASELINES = [
    "item_knn",
    "ease",
    "als",
    "content_knn",
    "vectors_to_factors",
    "vectors_text_to_factors",
]


def register(app: typer.Typer) -> None:
    """Adds this file's command."""
    app.command("demo")(demo)


def demo(
    library: Annotated[Path, typer.Option("--library", "-L", help="The library to make.")] = Path(
        "demo-library"
    ),
    data: Annotated[
        Path,
        typer.Option(
            help="The folder with tracks.csv and audio/.", show_default="the source's demo/"
        ),
    ] = DATA,
) -> None:
    """Runs everything on the built-in music. Both stages, before and after, five searches.

    \b
    Example:
    ponticello demo --library demo-library
    """
    from ponticello.errors import LibraryError
    from ponticello.evaluate.report.write import write_report
    from ponticello.evaluate.retrieval import retrieval_figures
    from ponticello.evaluate.validation import score_on_validation
    from ponticello.features.prepare import prepare_library
    from ponticello.pairs.mine import mine_library, refresh_splits
    from ponticello.storage.layout import SETTINGS_FILE, create_library, open_library
    from ponticello.tracks.catalog import import_tracks
    from ponticello.train.preference import train_preference
    from ponticello.train.semantic import train_semantic

    started = time.monotonic()
    if not (data / "tracks.csv").is_file():
        raise LibraryError(
            f"{data} has no tracks.csv: get the source with its demo/ folder, and pass --data demo"
        )
    if not (library / SETTINGS_FILE).is_file():
        create_library(library, "tiny")
    # The starter model was made from these tracks too: from it, what is held out here would not be
    # unheard.
    folder = open_library(
        library,
        ["semantic.init_from_pretrained=false", f"evaluate.baselines={json.dumps(BASELINES)}"],
    )
    _say("1/6", "the catalogue")
    imported = import_tracks(folder, data / "tracks.csv")
    with step_progress() as report:
        prepared = prepare_library(folder, on_progress=report)
    with folder.lock():
        refresh_splits(folder)
    typer.echo(
        f"{imported.n_total} tracks of game music, {prepared.n_new} prepared; licences: {data / 'ATTRIBUTION.md'}"
    )
    _say(
        "2/6",
        "SIMULATED listeners: nobody real listened; tastes are planted, and partly cannot be heard",
    )
    _simulate(folder)
    _say("3/6", "pairs of tracks that the SIMULATED listeners confirmed")
    with folder.lock():
        print_mined(mine_library(folder), folder)
    _say("4/6", "stage one (audio meets text), then stage two (pairs bend the space toward taste)")
    train_semantic(folder, "semantic", retrieval_figures)
    two = train_preference(
        folder, "preference", "semantic", retrieval_figures, scorer=score_on_validation(folder)
    )
    if two.selection:
        typer.echo(two.selection["sentence"])
    _say("5/6", "vectors, and what they are worth on tracks and days that training never saw")
    embed_folder(folder, "semantic", "preference")
    by_seed = compare(folder, "semantic", "preference", LABELS, (), 1)
    summary, evaluations = measure(folder, by_seed, "ponticello demo")
    print_summary(summary, write_report(folder.report, summary, evaluations)[0])
    _say("6/6", "five searches")
    _search(folder)
    typer.echo(
        f"\nlibrary {folder.root}\nreport  {folder.report / 'index.html'}\nmodel   {folder.run('preference')}"
    )
    typer.echo(f"listen: ponticello serve -L {library} --open   (both maps, the dial, every song)")
    typer.echo(f"try:    ponticello search 'slow and sad' -L {library} --blend 0.3")
    typer.echo(
        f"more:   ponticello evaluate -L {library} --label machine_tags   (with SASRec, minutes longer)"
    )
    typer.echo(
        f"done in {time.monotonic() - started:.0f} s. The taste figures come from SIMULATED listeners."
    )


def _say(step: str, what: str) -> None:
    typer.echo(f"\n== {step} {what}")


def _simulate(folder: "LibraryPaths") -> None:
    """Simulated listening over what can be heard in the catalogue, saved beside the library's
    tables and imported.
    """
    import numpy as np

    from ponticello.datasets.simulated import audible_traits, simulate_listeners
    from ponticello.features.store import FeatureStore
    from ponticello.listening.log import import_interactions
    from ponticello.tracks.catalog import read_tracks

    traits = audible_traits(read_tracks(folder), FeatureStore(folder.mels))
    log = simulate_listeners(
        list(traits), np.stack(list(traits.values())), folder.config.simulation
    )
    table = folder.root / "simulated-listening.csv"
    log.write_csv(table)
    done = import_interactions(folder, table)
    typer.echo(
        f"{done.n_total:,} simulated events of {log['user_id'].n_unique()} simulated listeners, in {table}"
    )


def _search(folder: "LibraryPaths") -> None:
    from ponticello.library import Library

    library = Library(folder)
    for text in SEARCHES:
        typer.echo(f"\n{text!r}")
        print_results(library.search(text, k=5, blend=0.0, per_artist=2), as_json=False)
