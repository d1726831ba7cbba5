"""The `ponticello` command: its command groups and its error handling.

Each command imports what it needs when it runs, so that --help stays quick. A `\\b` line in a
command's docstring keeps --help from wrapping the paragraph below it, such as an example.
"""

import logging
import os
import sys
from collections.abc import Callable

import typer

from ponticello.cli import output
from ponticello.cli.demo import demo
from ponticello.cli.evaluate import evaluate
from ponticello.cli.export import export, export_explorer, import_weights
from ponticello.cli.imports import import_dataset, import_history, import_tracks, init, scan
from ponticello.cli.maintenance import doctor, forget_user
from ponticello.cli.pairs import mine_pairs
from ponticello.cli.prepare import prepare, tag
from ponticello.cli.search import QUERY_COMMANDS, audience, embed, query_command
from ponticello.cli.serve import serve
from ponticello.cli.train import train
from ponticello.errors import PonticelloError, Stopped

INTERRUPTED = 130  # typer's exit code for Ctrl-C: 128 + SIGINT
TERMINATED = 143  # 128 + SIGTERM

app = typer.Typer(
    name="ponticello",
    help="Music vectors that join the meaning of music with what listeners prefer.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _add_commands(*commands: Callable[..., None]) -> None:
    for command in commands:
        app.command()(command)


_add_commands(init, scan, import_tracks, import_history, import_dataset, prepare, tag, mine_pairs)
app.add_typer(train, name="train")
_add_commands(embed)
for method, argument, description in QUERY_COMMANDS:
    app.command(method, help=description)(query_command(method, argument))
_add_commands(audience, serve, evaluate, export, export_explorer, import_weights)
_add_commands(doctor, forget_user, demo)


def main() -> None:
    """Runs the command line; errors that a user can mend are one line, with exit code 1."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("transformers").setLevel(logging.ERROR)
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        app()
    except Stopped as stop:
        print(stop, file=sys.stderr)
        sys.exit(TERMINATED)
    except (PonticelloError, OSError) as error:
        message = " ".join(str(error).splitlines())
        print(f"error: {output.strip_control_chars(message)}", file=sys.stderr)
        sys.exit(1)
    except SystemExit as end:
        if end.code == INTERRUPTED:
            print("stopped; run the same command again to continue", file=sys.stderr)
        raise
