"""export, export-explorer, import-weights: vectors, models and pages for other programs."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ponticello.cli.options import (
    HERE,
    JsonOption,
    LibraryOption,
    open_library,
    print_json,
    progress,
)

if TYPE_CHECKING:
    import polars as pl


def register(app: typer.Typer) -> None:
    """Adds the commands of this file."""
    app.command("export")(export)
    app.command("export-explorer")(export_explorer)
    app.command("import-weights")(import_weights)


def export(
    onnx: Annotated[
        Path | None,
        typer.Option("--onnx", help="The new folder for audio.onnx, text.onnx and what they need."),
    ] = None,
    vectors: Annotated[
        Path | None,
        typer.Option("--vectors", help="The Parquet file for the vectors, a row per track."),
    ] = None,
    listeners: Annotated[
        Path | None,
        typer.Option("--listeners", help="The Parquet file for profiles, a row per listener."),
    ] = None,
    library: LibraryOption = HERE,
    run: Annotated[
        str | None,
        typer.Option(
            help="The run for --onnx; else 'preference' if it is finished, or 'semantic'."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Writes vectors and profiles as Parquet, or both towers as ONNX, compared with PyTorch.

    \b
    Example:
    ponticello export --vectors tracks.parquet --listeners listeners.parquet -L my-library
    ponticello export --onnx towers -L my-library
    """
    from ponticello.errors import ConfigError

    if onnx is None and vectors is None and listeners is None:
        raise ConfigError(
            "say what to write: --vectors FILE, --listeners FILE, --onnx FOLDER, or several of them"
        )
    opened = open_library(library)
    record: dict[str, Any] = {}
    lines = []
    if vectors is not None:
        table = opened.export_vectors(vectors)
        record["vectors"] = _table_record(table, vectors)
        lines.append(f"{table.height:,} tracks: {_vector_sizes(table)}; in {vectors}")
    if listeners is not None:
        table = opened.export_listeners(listeners)
        record["listeners"] = _table_record(table, listeners)
        lines.append(f"{table.height:,} listeners: {_vector_sizes(table)}; in {listeners}")
    if onnx is not None:
        towers = opened.export_onnx(onnx, run)
        record |= {**asdict(towers), "folder": str(towers.folder)}
        largest = max(towers.audio_difference, towers.text_difference)
        lines.append(
            f"run {towers.run!r} (space {towers.space_id}) as ONNX, within {largest:.0e} of "
            f"PyTorch; in {towers.folder}"
        )
    if as_json:
        print_json(record)
        return
    for line in lines:
        typer.echo(line)


def _table_record(table: "pl.DataFrame", path: Path) -> dict[str, Any]:
    return {"file": str(path), "n_rows": table.height, "columns": table.columns}


def _vector_sizes(table: "pl.DataFrame") -> str:
    sizes = []
    for name, dtype in table.schema.items():
        if hasattr(dtype, "shape"):
            sizes.append(f"{name} ({dtype.shape[0]})")
    return " + ".join(sizes)


def export_explorer(
    target: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="The folder to write: new, empty or an earlier export."),
    ],
    library: LibraryOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Writes the explorer as a folder of files that needs no service: similar songs, maps, lists.

    \b
    Example:
    ponticello export-explorer my-page -L my-library
    python3 -m http.server --directory my-page --bind 127.0.0.1
    """
    from functools import partial

    from ponticello.serve.static_export import export_explorer as write_explorer

    opened = open_library(library)
    with progress("tracks") as report:
        result = write_explorer(opened, target, partial(report, "neighbours"))
    if as_json:
        print_json(
            {
                "folder": str(result.folder),
                "n_tracks": result.n_tracks,
                "n_indexed": result.n_indexed,
                "n_bytes": result.n_bytes,
            }
        )
        return
    n_outside = result.n_tracks - result.n_indexed
    note = f", {n_outside:,} of them not in the index" if n_outside else ""
    size = f"{result.n_bytes / 1e6:,.1f} MB"
    typer.echo(f"{result.n_tracks:,} tracks to explore{note}, {size}; in {result.folder}")


def import_weights(
    weights: Annotated[
        Path, typer.Argument(help="A .pth or .safetensors file in the released layout.")
    ],
    folder: Annotated[Path, typer.Argument(help="The model folder to write.")],
    tokenizer: Annotated[
        str | None,
        typer.Option(help="The tokenizer to save with it: a local folder or a hub name."),
    ] = "bert-base-multilingual-uncased",
    heads: Annotated[int, typer.Option(min=1, help="Attention heads of the audio tower.")] = 12,
    text_heads: Annotated[int, typer.Option(min=1, help="Attention heads of the text tower.")] = 12,
    allow_download: Annotated[
        bool, typer.Option("--allow-download", help="Fetch the tokenizer if it is not installed.")
    ] = False,
) -> None:
    """Converts released weights to a model folder. A .pth file is read without running its code.

    \b
    Example:
    ponticello import-weights model-20.pth runs/released --tokenizer ./mbert
    """
    from ponticello.model.released import import_released

    model, new_parameters = import_released(
        weights,
        n_heads=heads,
        text_heads=text_heads,
        tokenizer=tokenizer or None,
        allow_download=allow_download,
    )
    model.save_pretrained(folder)
    note = ""
    if new_parameters:
        note = f"; not in the file, so newly initialised: {', '.join(new_parameters)}"
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    typer.echo(f"{n_parameters:,} parameters in {folder}{note}")
