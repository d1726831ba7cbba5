"""Summaries to report on: a small whole one, one whose every text is hostile, one that is empty."""

from dataclasses import replace
from math import nan

import numpy as np
import pytest

from ponticello.evaluate.results import (
    Difference,
    EvaluationInfo,
    Figure,
    Measurements,
    Scores,
    Section,
    Summary,
)

ABOUT = EvaluationInfo(
    library="game music",
    version="0.1.0",
    preset="tiny",
    runs={"stage_one": "runs/semantic", "stage_two": "runs/preference"},
    n_tracks=1565,
    n_listeners=312,
    n_events=48211,
    held_out="Whole artists are held out.",
    splits_sha256="9f2c1e7ab4d0c55e",
    seeds=(7, 8),
    command="ponticello evaluate -L my-library",
    is_simulated=False,
)
HOSTILE = (
    "</td><script>alert('1')</script>\"|&amp;\\input{x}$x_1^2$ %#~ "
    "[a](b) ---\n: yes\u202e\x00\ud800 `c` *d* ünï 🎵"
)


def figure(
    task: str,
    metric: str,
    method: str,
    value: float,
    half: float = 0.05,
    of_record: bool = False,
    section: Section = "preference",
) -> Figure:
    """A figure with the interval value ± half, of 12 queries; a median rank is better when it is
    lower.
    """
    return Figure(
        section,
        task,
        metric,
        method,
        value,
        value - half,
        value + half,
        12,
        0.01,
        of_record,
        metric != "median rank",
    )


def _figures() -> list[Figure]:
    found = []
    for method, value in (("random", 1 / 12), ("stage_one", 0.5), ("stage_two", 0.4)):
        found.append(figure("text_to_audio", "R@10", method, value, 0.07, True, "semantic"))
        found.append(
            figure("text_to_audio", "median rank", method, 1 / value, 0.5, False, "semantic")
        )
    for method, value in (("popularity", 0.1 + 0.2), ("stage_one", nan), ("stage_two", 0.7)):
        found.append(figure("next tracks", "NDCG@10", method, value, 0.02, True))
    found.append(
        Figure(
            "preference",
            "next tracks",
            "coverage",
            "stage_two",
            0.25,
            nan,
            nan,
            1565,
            nan,
            False,
            True,
        )
    )
    found.append(
        Figure(
            "integrity",
            "space",
            "mean cosine",
            "stage_two",
            -0.125,
            nan,
            nan,
            1565,
            nan,
            False,
            True,
        )
    )
    for task in ("weights", "blend"):
        for position, meaning, taste in (
            ("0.00", 0.5, 0.3),
            ("0.50", 0.48, 0.6),
            ("1.00", 0.4, 0.7),
        ):
            found.append(figure(task, "R@10", position, meaning, section="tradeoff"))
            found.append(figure(task, "NDCG@10", position, taste, section="tradeoff"))
    return found


@pytest.fixture
def summary() -> Summary:
    differences = [
        Difference(
            "semantic",
            "text_to_audio",
            "R@10",
            "stage_two",
            "stage_one",
            -0.1,
            -0.15,
            -0.05,
            12,
            0.0004,
            0.0012,
        ),
        Difference(
            "semantic",
            "text_to_audio",
            "median rank",
            "stage_two",
            "stage_one",
            -0.5,
            -1.0,
            0.5,
            12,
            nan,
            nan,
        ),
        Difference(
            "preference",
            "next tracks",
            "NDCG@10",
            "stage_two",
            "popularity",
            0.4,
            0.35,
            0.45,
            12,
            0.02,
            0.04,
        ),
    ]
    claims = [
        "Stage two finds more: 0.700 against 0.300, a gain of 0.400 [0.350, 0.450].",
        "Meaning was lost.",
    ]
    return Summary(ABOUT, _figures(), differences, claims, ["A note."])


@pytest.fixture
def evaluations() -> list[Measurements]:
    """Seeds 7 and 8: 12 queries of two methods, one score missing, clusters in one task only."""
    found = []
    for seed in ABOUT.seeds:
        generator = np.random.default_rng(seed)
        queries = [f"q{number}" for number in range(12)]
        scores = {method: generator.random(12) for method in ("stage_one", "stage_two")}
        scores["stage_two"][3] = nan
        clusters = [f"artist {number // 2}" for number in range(12)]
        meaning = Scores("semantic", "text_to_audio", "R@10", queries, clusters, scores, True)
        found.append(
            Measurements(
                [
                    meaning,
                    Scores("preference", "next tracks", "NDCG@10", queries, None, scores, True),
                ]
            )
        )
    return found


@pytest.fixture
def simulated(summary: Summary) -> Summary:
    return replace(summary, about=replace(summary.about, is_simulated=True))


@pytest.fixture
def hostile() -> Summary:
    """Every text is HOSTILE: it would be markup in every format we write."""
    about = replace(
        ABOUT, library=HOSTILE, version=HOSTILE, preset=HOSTILE, held_out=HOSTILE, command=HOSTILE
    )
    about = replace(about, splits_sha256=HOSTILE, runs={HOSTILE: HOSTILE})
    places: list[tuple[Section, str]] = [
        ("semantic", "a"),
        ("preference", "b"),
        ("preference", "c"),
    ]
    figures = [
        figure(
            f"{task}{HOSTILE}", HOSTILE, f"{method}{HOSTILE}", 0.5, of_record=True, section=section
        )
        for section, task in places
        for method in ("one", "two")
    ]
    difference = Difference(
        "preference", HOSTILE, HOSTILE, HOSTILE, HOSTILE, 0.1, 0.05, 0.15, 12, 0.01, 0.01
    )
    return Summary(about, figures, [difference], [HOSTILE], [HOSTILE])


@pytest.fixture
def empty() -> Summary:
    return Summary(replace(ABOUT, seeds=(7,), runs={}), [], [], [], [])
