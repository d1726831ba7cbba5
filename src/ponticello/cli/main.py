"""The `ponticello` command: its command groups and its error handling.

Each command imports what it needs when it runs, so that --help stays quick. A `\\b` line in a
command's docstring keeps --help from wrapping the paragraph below it, such as an example.
"""

import logging
import os
import sys

import typer

from ponticello.cli import (
    demo,
    evaluate,
    export,
    imports,
    maintenance,
    pairs,
    prepare,
    search,
    serve,
    train,
)
from ponticello.cli.options import strip_control_chars
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
for group in (
    imports,
    prepare,
    pairs,
    train,
    search,
    serve,
    evaluate,
    export,
    maintenance,
    demo,
):
    group.register(app)


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
        print(f"error: {strip_control_chars(' '.join(str(error).splitlines()))}", file=sys.stderr)
        sys.exit(1)
    except SystemExit as end:
        if end.code == INTERRUPTED:
            print("stopped; run the same command again to continue", file=sys.stderr)
        raise
