"""export: a run's towers as files for other programs."""

from pathlib import Path
from typing import Annotated

import typer

from ponticello.cli.console import HERE, JsonOption, LibraryOption, open_folder, print_json


def register(app: typer.Typer) -> None:
    """Adds this file's command."""
    app.command("export")(export)


def export(
    onnx: Annotated[Path, typer.Option("--onnx", help="The new folder for audio.onnx, text.onnx and what they need.")],
    library: LibraryOption = HERE,
    run: Annotated[
        str | None, typer.Option(help="The run whose model it is; else 'preference' if finished, or 'semantic'.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Writes both towers as ONNX. They are run beside PyTorch at several sizes first.

    \b
    Example:
    ponticello export --onnx towers -L my-library
    """
    from ponticello.model.htcl import HTCL
    from ponticello.model.onnx_export import export_onnx
    from ponticello.search.embed import space_id
    from ponticello.train.run import is_finished

    folder = open_folder(library)
    name = run or ("preference" if is_finished(folder.run("preference")) else "semantic")
    place = folder.run(name)
    space = space_id(place)
    done = export_onnx(HTCL.from_pretrained(place), onnx, space)
    if as_json:
        print_json(
            {
                "folder": str(done.folder),
                "run": name,
                "space_id": space,
                "audio_difference": done.audio_difference,
                "text_difference": done.text_difference,
            }
        )
        return
    largest = max(done.audio_difference, done.text_difference)
    typer.echo(f"run {name!r} (space {space}) as ONNX, within {largest:.0e} of PyTorch; in {done.folder}")
