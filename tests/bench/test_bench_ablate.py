"""bench/ablate.py: its settings exist, and its tables show what was measured."""

import numpy as np

import ablate
from measured import table
from ponticello.config import Config


def test_settings_of_a_row_are_settings_there_are() -> None:
    for changes in ablate.VARIANTS.values():
        Config.from_preset("tiny", changes)


def test_a_row_tells_its_mean_and_its_paired_difference() -> None:
    """Two worlds of three listeners: 0.5 on average, each 0.1 above the default, so the interval is
    that number.
    """
    own, default = np.array([0.4, 0.5, 0.6]), np.array([0.3, 0.4, 0.5])
    metrics = ("cold NDCG@10", "cold AUC")
    world = {"default": dict.fromkeys(metrics, default), "a row": dict.fromkeys(metrics, own)}
    lines = table([world, world], "default").splitlines()
    assert lines[2] == "| default | 0.400 | 0.400 |"
    assert lines[3] == "| a row | 0.500 [+0.100, +0.100] | 0.500 [+0.100, +0.100] |"


def test_an_ablation_leaves_a_cell_empty_where_nothing_was_measured() -> None:
    measured = {
        "stage two": {"cold AUC": np.array([0.8, 0.9])},
        "text only": {"same genres": np.array([0.5, 0.7])},
    }
    lines = table([measured], "stage two").splitlines()
    assert lines[0] == "| | cold AUC | same genres |"
    assert lines[2] == "| stage two | 0.850 |  |"
    assert lines[3] == "| text only |  | 0.600 |"
