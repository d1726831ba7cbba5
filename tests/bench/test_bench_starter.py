"""The recipe of the starter model: the teachers' scores and the training texts."""

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ponticello.features.musicnn import N_TAGS, tag_names
from ponticello.features.musicnn_frontend import FRAME_SIZE, TAGGER_SIZE

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> Any:
    """bench/starter_recipe.py as a module."""
    return _imported("starter_recipe", monkeypatch)


def _imported(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCH))  # the scripts find each other as when they are run
    return importlib.import_module(name)


def test_a_tag_that_both_taggers_know_gets_the_mean_of_their_standard_scores(recipe: Any) -> None:
    """Two tracks: `jazz` of one tagger says 1 and -1; of `rock` one says 1 and -1, the other
    nothing at all.
    """
    means = np.full((2, FRAME_SIZE), 0.5)
    first_taggram = TAGGER_SIZE - N_TAGS
    for tag in ("jazz", "rock"):
        means[:, first_taggram + tag_names("msd").index(tag)] = (0.9, 0.1)
    scores = recipe.tag_scores(means)
    tags = recipe.known_tags()
    assert scores.shape == (2, len(tags))
    assert scores[:, tags.index("jazz")].tolist() == pytest.approx([1, -1])
    assert scores[:, tags.index("rock")].tolist() == pytest.approx([0.5, -0.5])
    assert not np.delete(scores, [tags.index("jazz"), tags.index("rock")], axis=1).any()


def test_training_texts_are_the_same_each_time_and_of_five_kinds(recipe: Any) -> None:
    heard = recipe.Heard(np.zeros((2, FRAME_SIZE)), [["rock", "metal", "guitar"], ["jazz"]])
    words = [f"word{number}" for number in range(20)]
    kinds = recipe.training_texts(heard, words, np.random.default_rng(3))
    assert kinds == recipe.training_texts(heard, words, np.random.default_rng(3))
    assert sorted(kinds[0]) == sorted(words)
    assert {len(text.split()) for text in kinds[1]} == {2}
    assert {"rock", "rock music", "a rock track"} <= set(kinds[3])
    assert len(kinds[4]) == recipe.N_OWN  # the second track has too few tags to choose from
    assert all(
        {"rock", "metal", "guitar"} >= set(text.replace(",", "").split()) - {"and", "music"}
        for text in kinds[4]
    )
