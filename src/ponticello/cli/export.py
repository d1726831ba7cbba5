"""export: a run's towers, and the index, as files for other programs.

export-explorer: the explorer as a folder that any file server can show.

import-weights: the weights of the paper's authors as one of our model folders.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ponticello.cli.options import (
    HERE,
    JsonOption,
    LibraryOption,
    open_folder,
    print_json,
    progress,
)

if TYPE_CHECKING:
    import polars as pl

    from ponticello.storage.layout import LibraryPaths


def _register_export(app: typer.Typer) -> None:
    """Adds this file's command."""
    app.command("export")(export)


def export(
    onnx: Annotated[
        Path | None,
        typer.Option("--onnx", help="The new folder for audio.onnx, text.onnx and what they need."),
    ] = None,
    vectors: Annotated[
        Path | None,
        typer.Option("--vectors", help="The Parquet file for the vectors, a row a track."),
    ] = None,
    listeners: Annotated[
        Path | None,
        typer.Option(
            "--listeners", help="The Parquet file for the listeners' profiles, a row each."
        ),
    ] = None,
    library: LibraryOption = HERE,
    run: Annotated[
        str | None,
        typer.Option(
            help="The run whose model --onnx is; else 'preference' if finished, or 'semantic'."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Writes vectors and profiles as Parquet, or both towers as ONNX. The towers are run beside
    PyTorch first.

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
    folder = open_folder(library)
    said: dict[str, Any] = {}
    if vectors is not None or listeners is not None:
        said |= _write_tables(folder, vectors, listeners, as_json)
    if onnx is not None:
        said |= _write_towers(folder, onnx, run, as_json)
    if as_json:
        print_json(said)


def _write_tables(
    folder: "LibraryPaths", vectors: Path | None, listeners: Path | None, as_json: bool
) -> dict[str, Any]:
    """Writes what is asked for of the live index; gives what --json says of it."""
    from ponticello.library import Library

    library = Library(folder)
    said: dict[str, Any] = {}
    if vectors is not None:
        said["vectors"] = _write_table(library.track_vectors(), vectors, "tracks", as_json)
    if listeners is not None:
        said["listeners"] = _write_table(
            library.listener_vectors(), listeners, "listeners", as_json
        )
    return said


def _write_table(table: "pl.DataFrame", path: Path, what: str, as_json: bool) -> dict[str, Any]:
    from ponticello.storage.files import atomic_write

    with atomic_write(path) as temporary:
        table.write_parquet(temporary)
    shape = " + ".join(
        f"{name} ({kind.shape[0]})" for name, kind in table.schema.items() if hasattr(kind, "shape")
    )
    if not as_json:
        typer.echo(f"{table.height:,} {what}: {shape}; in {path}")
    return {"file": str(path), "n_rows": table.height, "columns": table.columns}


def _write_towers(
    folder: "LibraryPaths", onnx: Path, run: str | None, as_json: bool
) -> dict[str, Any]:
    """Writes a run's towers; gives what --json says of them."""
    from ponticello.model.htcl import HTCL
    from ponticello.model.onnx import export_onnx
    from ponticello.model.saving import space_id
    from ponticello.train.runs import is_finished

    name = run or ("preference" if is_finished(folder.run("preference")) else "semantic")
    place = folder.run(name)
    space = space_id(place)
    done = export_onnx(HTCL.from_pretrained(place), onnx, space)
    largest = max(done.audio_difference, done.text_difference)
    if not as_json:
        typer.echo(
            f"run {name!r} (space {space}) as ONNX, within {largest:.0e} of PyTorch; in {done.folder}"
        )
    return {
        "folder": str(done.folder),
        "run": name,
        "space_id": space,
        "audio_difference": done.audio_difference,
        "text_difference": done.text_difference,
    }


def _register_export_explorer(app: typer.Typer) -> None:
    """Adds this file's command."""
    app.command("export-explorer")(export_explorer)


def export_explorer(
    target: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="The folder to write: new, empty or an earlier export."),
    ],
    library: LibraryOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Writes the explorer as a folder: similar songs, maps, dial and lists without the service.

    \b
    Example:
    ponticello export-explorer my-page -L my-library
    python3 -m http.server --directory my-page --bind 127.0.0.1
    """
    from ponticello.library import Library
    from ponticello.serve.static_export import export_explorer as write

    with progress("neighbours", "tracks") as report:
        done = write(Library.open(library), target, report)
    if as_json:
        values = {"n_tracks": done.n_tracks, "n_indexed": done.n_indexed, "n_bytes": done.n_bytes}
        print_json({"folder": str(done.folder), **values})
        return
    left_out = done.n_tracks - done.n_indexed
    note = f", {left_out:,} of them not in the index" if left_out else ""
    size = f"{done.n_bytes / 1e6:,.1f} MB"
    typer.echo(f"{done.n_tracks:,} tracks to explore{note}, {size}; in {done.folder}")


def _register_released(app: typer.Typer) -> None:
    """Adds this file's command."""
    app.command("import-weights")(import_weights)


def import_weights(
    weights: Annotated[
        Path, typer.Argument(help="A .pth or .safetensors file in the released layout.")
    ],
    folder: Annotated[Path, typer.Argument(help="The model folder to write.")],
    tokenizer: Annotated[
        str | None, typer.Option(help="Whose tokenizer to save beside: a local folder or hub name.")
    ] = "bert-base-multilingual-uncased",
    heads: Annotated[int, typer.Option(min=1, help="Attention heads of the audio tower.")] = 12,
    text_heads: Annotated[int, typer.Option(min=1, help="Attention heads of the text tower.")] = 12,
    allow_download: Annotated[
        bool, typer.Option("--allow-download", help="Fetch the tokenizer if it is not here.")
    ] = False,
) -> None:
    """Turns released weights into a model. A .pth file is read without running code, in a process
    of its own.

    \b
    Example:
    ponticello import-weights model-20.pth runs/released --tokenizer ./mbert
    """
    from ponticello.model.released import import_released as convert

    model, fresh = convert(
        weights,
        n_heads=heads,
        text_heads=text_heads,
        tokenizer=tokenizer or None,
        allow_download=allow_download,
    )
    model.save_pretrained(folder)
    note = f"; not in the file, so fresh: {', '.join(fresh)}" if fresh else ""
    typer.echo(f"{sum(p.numel() for p in model.parameters()):,} parameters in {folder}{note}")


def register(app: typer.Typer) -> None:
    """Adds this file's commands."""
    _register_export(app)
    _register_export_explorer(app)
    _register_released(app)
