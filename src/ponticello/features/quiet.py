"""Keeps progress bars and log lines of transformers from the user's terminal."""

from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars
from transformers.utils import logging


@contextmanager
def hide_transformers_output() -> Iterator[None]:
    """Hides bars ("Loading weights", downloads) and warnings; restores the settings afterwards."""
    verbosity = logging.get_verbosity()
    has_bars = logging.is_progress_bar_enabled()
    has_hub_bars = not are_progress_bars_disabled()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if has_bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
        if not has_hub_bars:
            disable_progress_bars()
