"""The `ponticello` command: its groups, and what a failure looks like.

Nothing heavy is imported here; each command imports what it needs when it runs.
"""

import logging
import os
import sys

import typer

from ponticello.cli import ask, demo, evaluate, prepare, released, tables, train
from ponticello.errors import PonticelloError

app = typer.Typer(
    name="ponticello",
    help="Music vectors that bridge what music means and what listeners like.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for group in (tables, prepare, train, ask, evaluate, released, demo):
    group.register(app)


def main() -> None:
    """Runs the command line; an error a user can act on becomes one line and exit code 1."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("transformers").setLevel(logging.ERROR)
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # one bar is enough, and it is ours
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        app()
    except PonticelloError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("stopped; run the same command again to go on", file=sys.stderr)
        sys.exit(130)
