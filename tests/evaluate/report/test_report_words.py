"""What is said of a number: its digits, its interval, and no more than interval and test allow."""

from dataclasses import replace
from math import nan

import pytest

from ponticello.evaluate.report.tables import (
    background,
    format_count,
    format_p,
    format_seeds,
    format_value,
    strip_control_chars,
    verdict,
)
from ponticello.evaluate.results import Difference, Figure, Summary


def _figure(
    value: float, low: float = nan, high: float = nan, metric: str = "R@1", seed_sd: float = nan
) -> Figure:
    return Figure(
        "semantic", "text_to_audio", metric, "random", value, low, high, 12, seed_sd, False, True
    )


def _difference(low: float, high: float, p_holm: float) -> Difference:
    return Difference(
        "preference", "cold", "AUC", "stage_two", "stage_one", 0.05, low, high, 12, p_holm, p_holm
    )


@pytest.mark.parametrize(
    ("figure", "wanted"),
    [
        (_figure(0.41249, 0.38, 0.4415), "0.412 [0.380, 0.442]"),
        (_figure(0.41249, 0.38, 0.4415, seed_sd=0.0123), "0.412 [0.380, 0.442] ± 0.012"),
        (_figure(0.5), "0.500"),
        (_figure(-0.0), "0.000"),
        (_figure(nan, 0.1, 0.2, seed_sd=0.1), "-"),
        (_figure(12.0, 3.0, 40.0, "median rank"), "12.0 [3.0, 40.0]"),
        (_figure(123.456, 99.0, 140.0), "123.5 [99.0, 140.0]"),
        (_difference(-0.1, 0.2, 0.5), "0.050 [-0.100, 0.200]"),
    ],
)
def test_number_is_shown_with_its_interval_and_its_spread_over_seeds(
    figure: Figure, wanted: str
) -> None:
    assert format_value(figure) == wanted


@pytest.mark.parametrize(
    ("low", "high", "p_holm", "wanted"),
    [
        (0.01, 0.2, 0.049, "better"),
        (-0.2, -0.01, 0.001, "worse"),
        (0.01, 0.2, 0.05, "no clear change"),
        (-0.2, -0.01, 1.0, "no clear change"),
        (-0.1, 0.1, 0.001, "no clear change"),
        (0.0, 0.1, 0.001, "no clear change"),
        (-0.1, 0.0, nan, "no clear change"),
        (0.0, 0.0, nan, "no clear change"),
        (0.01, 0.2, nan, "better, not tested"),
        (-0.2, -0.01, nan, "worse, not tested"),
        (nan, nan, 0.001, "not known"),
    ],
)
def test_verdict_needs_both_the_interval_and_the_corrected_test(
    low: float, high: float, p_holm: float, wanted: str
) -> None:
    assert verdict(_difference(low, high, p_holm)) == wanted


@pytest.mark.parametrize(
    ("p", "wanted"), [(nan, "-"), (0.0004, "<0.001"), (0.0123, "0.012"), (1.0, "1.000")]
)
def test_p_value_has_three_decimals(p: float, wanted: str) -> None:
    assert format_p(p) == wanted


def test_clean_text_is_one_printable_line_that_utf_8_can_hold() -> None:
    assert strip_control_chars("a\nb\x00c\u2028d\u202ee\ud800f\x85g") == "a b c d e f g"
    assert strip_control_chars("ünï 🎵 日本") == "ünï 🎵 日本"


def test_count_of_queries_is_a_range_where_methods_differ() -> None:
    assert format_count([_figure(0.1), _figure(0.2)]) == "12"
    assert format_count([replace(_figure(0.1), n=1290), _figure(0.2)]) == "12 to 1,290"
    assert format_count([]) == "0"


def test_background_names_data_split_seeds_and_command(
    summary: Summary, simulated: Summary
) -> None:
    rows = dict(background(summary.about))
    assert rows["Data"] == "1,565 tracks, 312 listeners, 48,211 events"
    assert rows["Splits, SHA-256"] == "9f2c1e7ab4d0c55e"
    assert rows["Seeds"] == "mean of 2 seeds (7, 8)"
    assert rows["Command"] == "ponticello evaluate -L my-library"
    assert (
        dict(background(simulated.about))["Data"]
        == "1,565 tracks, 312 SIMULATED listeners, 48,211 events"
    )
    assert format_seeds(replace(summary.about, seeds=(7,))) == "seed 7"
