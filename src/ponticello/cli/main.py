"""The `ponticello` command: its groups, and what a failure looks like.

Nothing heavy is imported here; each command imports what it needs when it runs. A `\\b` line in a
command's docstring keeps the paragraph under it from being wrapped in --help, so that an example
can be copied.
"""

import logging
import os
import sys

import typer

from ponticello.cli import demo, evaluate, export, pairs, prepare, serve, train
from ponticello.cli import export as export_explorer
from ponticello.cli import export as released
from ponticello.cli import imports as datasets
from ponticello.cli import imports as history
from ponticello.cli import imports as scan
from ponticello.cli import imports as tables
from ponticello.cli import maintenance as doctor
from ponticello.cli import maintenance as forget
from ponticello.cli import search as ask
from ponticello.cli.options import strip_control_chars
from ponticello.errors import PonticelloError, Stopped

INTERRUPTED = 130  # the exit code typer makes of Ctrl-C: 128 + SIGINT
TERMINATED = 143  # 128 + SIGTERM

app = typer.Typer(
    name="ponticello",
    help="Music vectors that bridge what music means and what listeners like.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for group in (
    scan,
    tables,
    history,
    datasets,
    prepare,
    pairs,
    train,
    ask,
    serve,
    evaluate,
    export,
    export_explorer,
    forget,
    released,
    demo,
    doctor,
):
    group.register(app)


def main() -> None:
    """Runs the command line; an error a user can act on becomes one line and exit code 1."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("transformers").setLevel(logging.ERROR)
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # one bar is enough, and it is ours
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
            print("stopped; run the same command again to go on", file=sys.stderr)
        raise
