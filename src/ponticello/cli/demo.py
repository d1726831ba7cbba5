"""demo: the whole pipeline in minutes, on real music with simulated listeners."""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from ponticello.cli import output
from ponticello.cli.evaluate import evaluation_text, print_step
from ponticello.cli.pairs import mining_lines

if TYPE_CHECKING:
    from ponticello.library import Library

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
    "profile",
    "content_to_als",
    "mlp_to_als",
    "feature_ials",
    "profile_and_als",
]


def demo(
    library: Annotated[Path, Option("--library", "-L", help="The library to create.")] = Path(
        "demo-library"
    ),
    data: Annotated[
        Path,
        Option(help="The folder with tracks.csv and audio/.", show_default="the source's demo/"),
    ] = DATA,
) -> None:
    """Runs the whole pipeline on the built-in music: both stages, an evaluation, five searches.

    \b
    Example:
    ponticello demo --library demo-library
    """
    started = time.monotonic()
    opened = _open(library, data)
    folder = opened.folder
    typer.echo("\n== 1/6 the catalogue")
    imported = opened.import_tracks(data / "tracks.csv")
    with output.progress("tracks") as report:
        prepared = opened.prepare(on_progress=report)
    typer.echo(
        f"{imported.n_total} tracks of game music, {prepared.n_new} prepared; "
        f"licences: {data / 'ATTRIBUTION.md'}"
    )
    typer.echo("\n== 2/6 SIMULATED listeners: no real listening; their tastes are partly inaudible")
    _simulate(opened)
    typer.echo("\n== 3/6 pairs of tracks that the SIMULATED listeners confirmed")
    typer.echo("\n".join(mining_lines(opened.mine_pairs(), folder)))
    typer.echo("\n== 4/6 stage one (audio with text), then stage two (a preference space)")
    _train(opened)
    typer.echo("\n== 5/6 vectors, and their quality on tracks and days that training never saw")
    with output.progress("tracks") as report:
        embedded = opened.embed(on_progress=report)
    if embedded.one_space:
        typer.echo(embedded.one_space)
    evaluation = opened.evaluate(labels=LABELS, command="ponticello demo", on_progress=print_step)
    typer.echo(evaluation_text(evaluation))
    typer.echo("\n== 6/6 five searches")
    for text in SEARCHES:
        typer.echo(f"\n{text!r}")
        output.print_results(opened.search(text, k=5, per_artist=2), as_json=False)
    typer.echo(
        f"\nlibrary {folder.root}\n"
        f"report  {folder.report / 'index.html'}\n"
        f"model   {folder.run('preference')}\n"
        f"listen: ponticello serve -L {library} --open   (maps, the blend, every song)\n"
        f"try:    ponticello search 'slow and sad' -L {library} --blend 0.3\n"
        f"more:   ponticello evaluate -L {library} --label machine_tags   "
        "(with SASRec, minutes longer)\n"
        f"done in {time.monotonic() - started:.0f} s. "
        "The preference figures come from SIMULATED listeners."
    )


def _open(library: Path, data: Path) -> "Library":
    from ponticello.errors import LibraryError
    from ponticello.library import Library
    from ponticello.storage.layout import SETTINGS_FILE

    if not (data / "tracks.csv").is_file():
        raise LibraryError(
            f"{data} has no tracks.csv: get the source with its demo/ folder, and pass --data demo"
        )
    if not (library / SETTINGS_FILE).is_file():
        Library.create(library, "tiny")
    # The starter model was trained on these tracks too, so that tracks held out here are not new
    # to it.
    baselines = f"evaluate.baselines={json.dumps(BASELINES)}"
    return Library.open(library, ["semantic.init_from_pretrained=false", baselines])


def _train(library: "Library") -> None:
    with output.progress("steps") as report:
        library.train_semantic(on_progress=report)
    with output.progress("steps") as report:
        run = library.train_preference(on_progress=report)
    if run.selection:
        typer.echo(run.selection["sentence"])


def _simulate(library: "Library") -> None:
    """Imports simulated listening, by what can be heard in the catalogue, and keeps its table."""
    import numpy as np

    from ponticello.datasets.simulated import audible_traits, simulate_listeners
    from ponticello.features.store import FeatureStore

    folder = library.folder
    traits = audible_traits(library.tracks, FeatureStore(folder.mels))
    vectors = np.stack(list(traits.values()))
    log = simulate_listeners(list(traits), vectors, folder.config.simulation)
    table = folder.root / "simulated-listening.csv"
    log.write_csv(table)
    result = library.import_history(table, pseudonyms=False)
    typer.echo(
        f"{result.n_total:,} simulated events of {log['user_id'].n_unique()} simulated listeners, "
        f"in {table}"
    )
