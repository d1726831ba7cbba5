"""Bars and log lines of transformers on the terminal of a Python user."""

import os
import subprocess
import sys

from ponticello.library import Library

CODE = """
import sys
from transformers.utils import logging
from ponticello import HTCL, Config
logging.set_verbosity_info()
model = HTCL.from_pretrained(sys.argv[1])
model.save_pretrained(sys.argv[2])
HTCL.from_settings(model.settings)
assert logging.is_progress_bar_enabled()
assert logging.get_verbosity() == logging.INFO
"""


def test_loading_and_saving_a_model_prints_nothing(trained: Library, tmp_path: object) -> None:
    """In a process of its own: here, conftest.py hides the bars."""
    run = str(trained.folder.run("semantic"))
    hidden = ("HF_HUB_DISABLE_PROGRESS_BARS", "TRANSFORMERS_VERBOSITY")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    result = subprocess.run(
        [sys.executable, "-c", CODE, run, f"{tmp_path}/copy"],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
