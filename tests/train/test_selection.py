"""Selection of the saved weights: a significant gain, semantic metrics kept, or stage one."""

import json
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import pytest
import torch

from ponticello.config import PreferenceConfig
from ponticello.model.htcl import HTCL
from ponticello.train.selection import (
    SelectionResult,
    ValidationScores,
    is_significant_gain,
    select_weights,
)

STEADY = [0.10, 0.12, 0.08, 0.11, 0.09]  # gains of five listeners: mean 0.1, standard error 0.007
SPLIT = [0.9, -0.4, 0.8, -0.7, -0.1]  # the same mean; standard error 0.32
Gains = dict[float, dict[str, Sequence[float]]]


@pytest.fixture(scope="module")
def ends(text_encoder_folder: object) -> tuple[HTCL, HTCL]:
    """Two models of one layout, all of whose text head weights are 0 and 1: a position between is
    told by them.
    """
    from ponticello.config import Config

    config = Config.from_preset("tiny", {"text": {"name": str(text_encoder_folder)}})
    start, end = HTCL.from_settings(config), HTCL.from_settings(config)
    end.load_state_dict(start.state_dict())
    for model, value in ((start, 0.0), (end, 1.0)):
        with torch.no_grad():
            for weight in model.text_head.parameters():
                weight.fill_(value)
    return start, end


def chosen(
    ends: tuple[HTCL, HTCL],
    gains: Gains,
    meaning: dict[float, float] | None = None,
    settings: PreferenceConfig | None = None,
) -> tuple[float, SelectionResult]:
    """(alpha of the kept model's weights, the selection) for listeners' gains over stage one by
    position and vector.
    """

    def score(model: HTCL) -> ValidationScores:
        alpha = position(model)
        own = {kind: 0.5 + np.array(values) for kind, values in gains.get(alpha, {}).items()}
        told = {kind: {"R@10": (meaning or {}).get(alpha, 0.4)} for kind in ("audio", "fused")}
        return ValidationScores(told, {k: float(v.mean()) for k, v in own.items()}, own)

    settings = settings or PreferenceConfig()
    kept, selection = select_weights(*ends, score, settings)
    return position(kept), selection


def position(model: HTCL) -> float:
    return round(float(next(iter(model.text_head.parameters())).detach().flatten()[0]), 4)


def along(audio: Sequence[float], fused: Sequence[float]) -> Gains:
    """Gains that grow from nothing at stage one to these at stage two."""
    return {
        alpha: {
            "audio": [alpha * gain for gain in audio],
            "fused": [alpha * gain for gain in fused],
        }
        for alpha in (0.0, 0.25, 0.5, 0.75, 1.0)
    }


def test_the_highest_taste_that_is_sure_is_kept(ends: tuple[HTCL, HTCL]) -> None:
    alpha, selection = chosen(ends, along(STEADY, [2 * gain for gain in STEADY]))
    assert (alpha, selection.alpha, selection.vector, selection.n_users) == (1.0, 1.0, "fused", 5)
    assert selection.sentence() == (
        "kept: 100% of the way to stage two, fused vectors; preference of 5 validation listeners "
        "0.500 -> 0.700, "
        "R@10 0.400 -> 0.400"
    )


def test_a_gain_that_few_listeners_disagree_about_leaves_stage_one(ends: tuple[HTCL, HTCL]) -> None:
    """Audio and fused gain 0.1 on the mean of five, like STEADY, but with a standard error three
    times that.
    """
    alpha, selection = chosen(ends, along(SPLIT, SPLIT))
    assert (alpha, selection.alpha, selection.vector) == (0.0, 0.0, "audio")
    assert selection.sentence() == (
        "not served: no gain in preference within max_semantic_drop exceeds one standard error "
        "over 5 validation listeners (stage one 0.500, best 0.600)"
    )
    assert not selection.is_served


def test_fused_vectors_of_stage_one_alone_are_served(ends: tuple[HTCL, HTCL]) -> None:
    """They differ from the audio vectors of the semantic space."""
    gains = along([-gain for gain in STEADY], [-gain for gain in STEADY])
    alpha, selection = chosen(ends, {**gains, 0.0: {"audio": [0.0] * 5, "fused": STEADY}})
    assert (alpha, selection.alpha, selection.vector, selection.is_served) == (0, 0, "fused", True)
    assert selection.sentence().startswith(
        "kept: stage one, fused vectors; preference of 5 validation listeners 0.500 -> 0.600"
    )


def test_a_gain_that_stands_out_is_taken_before_a_larger_one_that_is_not(
    ends: tuple[HTCL, HTCL],
) -> None:
    alpha, selection = chosen(ends, along(STEADY, [2 * gain for gain in SPLIT]))
    assert (alpha, selection.vector) == (1.0, "audio")


def test_meaning_beyond_the_budget_is_not_paid_for_taste(ends: tuple[HTCL, HTCL]) -> None:
    alpha, _ = chosen(ends, along(STEADY, STEADY), {0.5: 0.391, 0.75: 0.389, 1.0: 0.3})
    assert alpha == 0.5


def test_fresh_heads_are_kept_whole_or_not_at_all(ends: tuple[HTCL, HTCL]) -> None:
    """What would be kept halfway otherwise: see the test before."""
    fresh = PreferenceConfig(reset_heads=True)
    meaning = {0.5: 0.391, 0.75: 0.389, 1.0: 0.3}
    alpha, selection = chosen(ends, along(STEADY, STEADY), meaning, fresh)
    assert alpha == 0.0
    assert {candidate.alpha for candidate in selection.candidates} == {0.0, 1.0}
    assert chosen(ends, along(STEADY, STEADY), settings=fresh)[0] == 1.0


def test_a_loss_of_taste_leaves_stage_one(ends: tuple[HTCL, HTCL]) -> None:
    assert chosen(ends, along([-gain for gain in STEADY], [-gain for gain in STEADY]))[0] == 0.0


def test_without_a_listener_to_ask_stage_one_stays(ends: tuple[HTCL, HTCL]) -> None:
    alpha, selection = chosen(ends, {})
    assert (alpha, selection.alpha, selection.n_users) == (0.0, 0.0, 0)
    assert selection.sentence() == "not served: the validation window has no listener to score"


def test_the_selection_is_recorded_as_json(ends: tuple[HTCL, HTCL]) -> None:
    record = json.loads(json.dumps(asdict(chosen(ends, along(STEADY, STEADY))[1])))
    assert list(record) == [
        "alpha",
        "vector",
        "candidates",
        "max_semantic_drop",
        "n_users",
    ]
    assert [one["alpha"] for one in record["candidates"][::2]] == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert record["candidates"][5] == {
        "alpha": 0.5,
        "vector": "fused",
        "semantic": {"R@10": 0.4},
        "preference": pytest.approx(0.55),
    }


def test_what_stands_out_is_told_by_the_one_sided_t_test() -> None:
    """Gains -1, 1, 1.5: mean 0.5, deviation 1.323, standard error 0.764, t = 0.65; the 84 % point
    for 2 is 1.31.

    Nine such gains, three of each: deviation 1.146, standard error 0.382, t = 1.31 against 1.06.
    """
    gains = np.array([-1.0, 1.0, 1.5])
    assert not is_significant_gain(gains, np.zeros(3), 0.84)
    assert is_significant_gain(np.repeat(gains, 3), np.zeros(9), 0.84)
    assert not is_significant_gain(np.zeros(9), np.repeat(gains, 3), 0.84)


def test_one_listener_and_missing_listeners_prove_nothing() -> None:
    assert not is_significant_gain(np.array([1.0]), np.array([0.0]), 0.84)
    assert not is_significant_gain(np.array([1.0, np.nan]), np.array([0.0, 0.0]), 0.84)
    assert not is_significant_gain(np.full(3, 0.5), np.full(3, 0.5), 0.84)
