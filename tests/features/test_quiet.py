"""Bars and log lines of transformers on the terminal of a Python user."""

import os
import subprocess
import sys
from pathlib import Path

from ponticello.library import Library

CODE = """
import sys
from pathlib import Path
from transformers.utils import logging
from ponticello import HTCL
from ponticello.evaluate.retrieval import retrieval_figures
from ponticello.storage.layout import open_library
from ponticello.train.semantic import train_semantic

root = Path(sys.argv[1])
model = HTCL.from_pretrained(root / "runs" / "semantic")
model.save_pretrained(root / "copy")
HTCL.from_settings(model.settings)
train_semantic(open_library(root, ["semantic.max_steps=2"]), "short", retrieval_figures)
assert logging.is_progress_bar_enabled()
assert logging.get_verbosity() == logging.WARNING
"""


def test_loading_saving_and_training_print_nothing(trained_copy: Library) -> None:
    """In a process of its own: here, conftest.py hides the bars."""
    hidden = ("HF_HUB_DISABLE_PROGRESS_BARS", "TRANSFORMERS_VERBOSITY")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    result = subprocess.run(
        [sys.executable, "-c", CODE, str(trained_copy.folder.root)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        cwd=Path(__file__).parents[2],
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
