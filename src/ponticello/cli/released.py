"""import-released: the weights of the paper's authors as one of our model folders."""

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Adds this file's command."""
    app.command("import-released")(import_released)


def import_released(
    weights: Annotated[Path, typer.Argument(help="A .pth or .safetensors file in the released layout.")],
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
    """Turns released weights into a model. A .pth file is read without running code, in a process of its own.

    \b
    Example:
    ponticello import-released model-20.pth runs/released --tokenizer ./bert-base-multilingual-uncased
    """
    from ponticello.model.released import import_released as convert

    model, fresh = convert(
        weights, n_heads=heads, text_heads=text_heads, tokenizer=tokenizer or None, allow_download=allow_download
    )
    model.save_pretrained(folder)
    note = f"; not in the file, so fresh: {', '.join(fresh)}" if fresh else ""
    typer.echo(f"{sum(p.numel() for p in model.parameters()):,} parameters in {folder}{note}")
