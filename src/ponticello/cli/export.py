"""export: a run's towers, and the index, as files for other programs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ponticello.cli.console import HERE, JsonOption, LibraryOption, open_folder, print_json

if TYPE_CHECKING:
    import polars as pl

    from ponticello.library import Folder


def register(app: typer.Typer) -> None:
    """Adds this file's command."""
    app.command("export")(export)


def export(
    onnx: Annotated[
        Path | None, typer.Option("--onnx", help="The new folder for audio.onnx, text.onnx and what they need.")
    ] = None,
    vectors: Annotated[
        Path | None, typer.Option("--vectors", help="The Parquet file for the vectors, a row a track.")
    ] = None,
    listeners: Annotated[
        Path | None, typer.Option("--listeners", help="The Parquet file for the listeners' profiles, a row each.")
    ] = None,
    library: LibraryOption = HERE,
    run: Annotated[
        str | None, typer.Option(help="The run whose model --onnx is; else 'preference' if finished, or 'semantic'.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Writes vectors and profiles as Parquet, or both towers as ONNX. The towers are run beside PyTorch first.

    \b
    Example:
    ponticello export --vectors tracks.parquet --listeners listeners.parquet -L my-library
    ponticello export --onnx towers -L my-library
    """
    from ponticello.errors import ConfigError

    if onnx is None and vectors is None and listeners is None:
        raise ConfigError("say what to write: --vectors FILE, --listeners FILE, --onnx FOLDER, or several of them")
    folder = open_folder(library)
    said: dict[str, Any] = {}
    if vectors is not None or listeners is not None:
        said |= _write_tables(folder, vectors, listeners, as_json)
    if onnx is not None:
        said |= _write_towers(folder, onnx, run, as_json)
    if as_json:
        print_json(said)


def _write_tables(folder: "Folder", vectors: Path | None, listeners: Path | None, as_json: bool) -> dict[str, Any]:
    """Writes what is asked for of the live index; gives what --json says of it."""
    from ponticello.api import Library

    library = Library(folder)
    said: dict[str, Any] = {}
    if vectors is not None:
        said["vectors"] = _write_table(library.track_vectors(), vectors, "tracks", as_json)
    if listeners is not None:
        said["listeners"] = _write_table(library.listener_vectors(), listeners, "listeners", as_json)
    return said


def _write_table(table: "pl.DataFrame", path: Path, what: str, as_json: bool) -> dict[str, Any]:
    from ponticello.library import replacing

    with replacing(path) as temporary:
        table.write_parquet(temporary)
    shape = " + ".join(f"{name} ({kind.shape[0]})" for name, kind in table.schema.items() if hasattr(kind, "shape"))
    if not as_json:
        typer.echo(f"{table.height:,} {what}: {shape}; in {path}")
    return {"file": str(path), "n_rows": table.height, "columns": table.columns}


def _write_towers(folder: "Folder", onnx: Path, run: str | None, as_json: bool) -> dict[str, Any]:
    """Writes a run's towers; gives what --json says of them."""
    from ponticello.model.htcl import HTCL
    from ponticello.model.onnx_export import export_onnx
    from ponticello.model.space import space_id
    from ponticello.train.finished import is_finished

    name = run or ("preference" if is_finished(folder.run("preference")) else "semantic")
    place = folder.run(name)
    space = space_id(place)
    done = export_onnx(HTCL.from_pretrained(place), onnx, space)
    largest = max(done.audio_difference, done.text_difference)
    if not as_json:
        typer.echo(f"run {name!r} (space {space}) as ONNX, within {largest:.0e} of PyTorch; in {done.folder}")
    return {
        "folder": str(done.folder),
        "run": name,
        "space_id": space,
        "audio_difference": done.audio_difference,
        "text_difference": done.text_difference,
    }
