"""export, export-explorer, import-weights: vectors, models and pages for other programs."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option

from ponticello.cli import options, output


def export(
    onnx: Annotated[
        Path | None,
        Option("--onnx", help="The new folder for audio.onnx, text.onnx and what they need."),
    ] = None,
    vectors: Annotated[
        Path | None, Option("--vectors", help="The Parquet file for the vectors, a row per track.")
    ] = None,
    listeners: Annotated[
        Path | None,
        Option("--listeners", help="The Parquet file for profiles, a row per listener."),
    ] = None,
    library: options.LibraryPath = options.HERE,
    run: Annotated[
        str | None,
        Option(help="The run for --onnx; else 'preference' if it is finished, or 'semantic'."),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Writes vectors and profiles as Parquet, or both towers as ONNX, compared with PyTorch.

    \b
    Example:
    ponticello export --vectors tracks.parquet --listeners listeners.parquet -L my-library
    ponticello export --onnx towers -L my-library
    """
    import polars as pl

    from ponticello.errors import ConfigError

    if onnx is None and vectors is None and listeners is None:
        raise ConfigError(
            "say what to write: --vectors FILE, --listeners FILE, --onnx FOLDER, or several of them"
        )
    opened = options.open_library(library)
    record: dict[str, Any] = {}
    lines = []
    for option, file, write, rows in (
        ("vectors", vectors, opened.export_vectors, "tracks"),
        ("listeners", listeners, opened.export_listeners, "listeners"),
    ):
        if file is None:
            continue
        table = write(file)
        record[option] = {"file": str(file), "n_rows": table.height, "columns": table.columns}
        sizes = []
        for name, dtype in table.schema.items():
            if isinstance(dtype, pl.Array):
                sizes.append(f"{name} ({dtype.shape[0]})")
        lines.append(f"{table.height:,} {rows}: {' + '.join(sizes)}; in {file}")
    if onnx is not None:
        towers = opened.export_onnx(onnx, run)
        record |= {**asdict(towers), "folder": str(towers.folder)}
        largest = max(towers.audio_difference, towers.text_difference)
        lines.append(
            f"run {towers.run!r} (space {towers.space_id}) as ONNX, within {largest:.0e} of "
            f"PyTorch; in {towers.folder}"
        )
    output.print_outcome(as_json, record, lines)


def export_explorer(
    target: Annotated[
        Path, Argument(metavar="DIR", help="The folder to write: new, empty or an earlier export.")
    ],
    library: options.LibraryPath = options.HERE,
    as_json: options.Json = False,
) -> None:
    """Writes the explorer as a folder of files that needs no service: similar songs, maps, lists.

    \b
    Example:
    ponticello export-explorer my-page -L my-library
    python3 -m http.server --directory my-page --bind 127.0.0.1
    """
    from functools import partial

    from ponticello.serve.static_export import export_explorer as write_explorer

    opened = options.open_library(library)
    with output.progress("tracks") as report:
        result = write_explorer(opened, target, partial(report, "neighbours"))
    n_outside = result.n_tracks - result.n_indexed
    note = f", {n_outside:,} of them not in the index" if n_outside else ""
    size = f"{result.n_bytes / 1e6:,.1f} MB"
    line = f"{result.n_tracks:,} tracks to explore{note}, {size}; in {result.folder}"
    output.print_outcome(as_json, {**asdict(result), "folder": str(result.folder)}, [line])


def import_weights(
    weights: Annotated[Path, Argument(help="A .pth or .safetensors file in the released layout.")],
    folder: Annotated[Path, Argument(help="The model folder to write.")],
    tokenizer: Annotated[
        str | None, Option(help="The tokenizer to save with it: a local folder or a hub name.")
    ] = "bert-base-multilingual-uncased",
    heads: Annotated[int, Option(min=1, help="Attention heads of the audio tower.")] = 12,
    text_heads: Annotated[int, Option(min=1, help="Attention heads of the text tower.")] = 12,
    allow_download: Annotated[
        bool, Option("--allow-download", help="Fetch the tokenizer if it is not installed.")
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
