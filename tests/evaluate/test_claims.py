"""Every sentence, word for word, from figures made up for it; and none that the numbers do not
allow.
"""

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ponticello.evaluate.claims import SEMANTIC_MARGIN, derive_claims, is_kept
from ponticello.evaluate.results import (
    RANDOM,
    STAGE_ONE,
    STAGE_TWO,
    Difference,
    EvaluationInfo,
    Figure,
    Section,
)

NAN = float("nan")
ABOUT = EvaluationInfo(
    "demo",
    "0.1",
    "tiny",
    {},
    60,
    80,
    900,
    "Whole artists.",
    "0",
    (0,),
    "evaluate",
    is_simulated=False,
)
COLD, TEXT = "next_tracks_cold", "text_to_audio"


def _change(
    value: tuple[float, float, float],
    p_holm: float,
    task: str = COLD,
    section: Section = "preference",
    against: str = STAGE_ONE,
    n: int = 312,
    method: str = STAGE_TWO,
) -> Difference:
    metric = "NDCG@10" if section == "preference" else "R@10"
    return Difference(section, task, metric, method, against, *value, n, p_holm / 2, p_holm)


def _figures(
    changes: list[Difference], of_record: bool = True, higher_is_better: bool = True
) -> list[Figure]:
    """The other method always has 0.352, and the method what the change adds."""
    sign = 1 if higher_is_better else -1
    figures = []
    for c in changes:
        for method, value in ((c.method, 0.352 + sign * c.value), (c.against, 0.352)):
            figures.append(
                Figure(
                    c.section,
                    c.task,
                    c.metric,
                    method,
                    value,
                    0.3,
                    0.4,
                    c.n,
                    NAN,
                    of_record,
                    higher_is_better,
                )
            )
    return figures[::-1]  # so that the first change decides what its method has


def _said(
    *changes: Difference, about: EvaluationInfo = ABOUT, n_clusters: dict[str, int] | None = None
) -> list[str]:
    return derive_claims(_figures(list(changes)), list(changes), about, n_clusters)


GAIN, LOSS, UNCLEAR = (0.058, 0.028, 0.086), (-0.058, -0.086, -0.028), (0.012, -0.01, 0.034)


def test_a_gain_in_taste_is_told_with_its_numbers() -> None:
    assert _said(_change(GAIN, 0.003)) == [
        'Stage two against stage one. Shown: taste gained on "next tracks, cold". Not measured: '
        "meaning.",
        "On next tracks, cold (312 queries): stage two finds more than stage one: NDCG@10 0.410 "
        "against 0.352, "
        "a gain of 0.058 [0.028, 0.086], Holm p = 0.003.",
    ]


def test_a_loss_in_taste_is_told_as_plainly() -> None:
    assert _said(_change(LOSS, 0.0002)) == [
        'Stage two against stage one. Shown: taste lost on "next tracks, cold". Not measured: '
        "meaning.",
        "On next tracks, cold (312 queries): stage two is worse than stage one: NDCG@10 0.294 "
        "against 0.352, "
        "a loss of 0.058 [0.028, 0.086], Holm p < 0.001.",
    ]


@pytest.mark.parametrize(
    ("value", "p_holm"), [(GAIN, 0.05), (LOSS, 0.06), (UNCLEAR, 0.001), ((0.01, 0.0, 0.02), 0.01)]
)
def test_what_interval_or_test_does_not_allow_is_no_difference(
    value: tuple[float, float, float], p_holm: float
) -> None:
    said = _said(_change(value, p_holm))
    assert said[0] == (
        'Stage two against stage one. Shown: nothing. Not shown: taste gained or lost on "next '
        'tracks, cold". '
        "Not measured: meaning."
    )
    assert "no difference between stage two and stage one is shown: NDCG@10 " in said[1]


def test_no_difference_is_told_with_the_change_and_its_interval() -> None:
    assert _said(_change(UNCLEAR, 0.4))[1] == (
        "On next tracks, cold (312 queries): no difference between stage two and stage one is "
        "shown: "
        "NDCG@10 0.364 against 0.352, a change of 0.012 [-0.010, 0.034], Holm p = 0.400."
    )


def test_what_could_not_be_tested_shows_nothing() -> None:
    change = _change((0.2, NAN, NAN), NAN, n=1)
    assert _said(change)[1] == (
        "On next tracks, cold (1 query): no difference between stage two and stage one is shown: "
        "NDCG@10 0.552 against 0.352, a change of 0.200 (no interval), not tested. "
        "Only 1 query: this is little evidence."
    )


def test_meaning_is_kept_only_within_the_margin_the_interval_excludes() -> None:
    """A low end of -0.0098 lies above -0.01; the loss is rounded up."""
    assert _said(_change((0.001, -0.0098, 0.012), 0.9, TEXT, "semantic")) == [
        'Stage two against stage one. Shown: meaning kept within 0.01 on "text to audio". Not '
        "measured: taste.",
        "On text to audio (312 queries): no difference between stage two and stage one is shown: "
        "R@10 0.353 against 0.352, a change of 0.001 [-0.010, 0.012], Holm p = 0.900.",
        "Meaning kept? On text to audio (312 queries): the change of R@10 is 0.001 [-0.010, "
        "0.012]: "
        "kept within 0.01, a loss larger than 0.010 is excluded at 95 %.",
    ]


def test_a_wide_interval_does_not_show_that_meaning_is_kept() -> None:
    said = _said(_change((-0.012, -0.0501, 0.03), 1.0, TEXT, "semantic"))
    assert said[0].endswith(
        'Shown: nothing. Not shown: meaning kept within 0.01 on "text to audio". Not measured: '
        "taste."
    )
    assert said[2] == (
        "Meaning kept? On text to audio (312 queries): the change of R@10 is -0.012 [-0.050, "
        "0.030]: "
        "a loss larger than 0.051 is excluded at 95 %."
    )


def test_the_largest_loss_not_excluded_is_never_rounded_down_nor_up_without_need() -> None:
    for low, bound in (
        (-0.028, "0.028"),
        (-0.0281, "0.029"),
        (-0.05, "0.050"),
        (-0.00001, "0.001"),
    ):
        said = _said(_change((0.1, low, 0.2), 1.0, TEXT, "semantic"))
        assert f"a loss larger than {bound} is excluded" in said[2]


def test_meaning_gained_and_lost_and_unknown() -> None:
    gained = _said(_change(GAIN, 0.01, TEXT, "semantic"))
    assert 'Shown: meaning kept within 0.01 on "text to audio".' in gained[0]
    assert "stage two is better than stage one: R@10 0.410 against 0.352, a gain of" in gained[1]
    assert gained[2].endswith("0.058 [0.028, 0.086]: kept within 0.01, a loss is excluded at 95 %.")
    lost = _said(_change(LOSS, 0.01, TEXT, "semantic"))
    assert 'Shown: meaning lost on "text to audio".' in lost[0]
    assert "Not shown" not in lost[0]
    assert lost[2].endswith(
        "-0.058 [-0.086, -0.028]: a loss larger than 0.086 is excluded at 95 %."
    )
    unknown = _said(_change((0.0, NAN, NAN), 1.0, TEXT, "semantic"))
    assert 'Shown: nothing. Not shown: meaning kept within 0.01 on "text to audio".' in unknown[0]
    assert unknown[2].endswith("the change of R@10 is 0.000 (no interval), so no loss is excluded.")


def test_a_sure_but_small_loss_of_meaning_is_kept_within_the_margin_and_still_told() -> None:
    said = _said(_change((-0.004, -0.007, -0.001), 0.01, TEXT, "semantic"))
    assert 'Shown: meaning kept within 0.01 on "text to audio".' in said[0]
    assert "stage two is worse than stage one" in said[1]


def test_the_first_sentence_joins_both_sides_over_all_tasks() -> None:
    said = _said(
        _change((0.0, -0.04, 0.04), 1.0, TEXT, "semantic"),
        _change((0.0, -0.004, 0.004), 1.0, "audio_to_text", "semantic"),
        _change(GAIN, 0.003),
        _change(GAIN, 0.003, "next_tracks_warm"),
        _change(GAIN, 0.003, "audience"),
        _change(LOSS, 0.003, "playlists"),
        _change(UNCLEAR, 0.3, "similar tracks"),
    )
    assert said[0] == (
        "Stage two against stage one. "
        'Shown: taste gained on "next tracks, cold", "next tracks, warm" and "audience"; taste '
        'lost on "playlists"; '
        'meaning kept within 0.01 on "audio to text". '
        'Not shown: taste gained or lost on "similar tracks"; meaning kept within 0.01 on "text to '
        'audio".'
    )


def test_rivals_are_sorted_by_what_is_shown_and_chance_stands_apart() -> None:
    said = _said(
        _change(GAIN, 0.003, against=RANDOM),
        _change(GAIN, 0.003, against="popularity"),
        _change(GAIN, 0.003, against="raw mel"),
        _change(LOSS, 0.003, against="ease"),
        _change(UNCLEAR, 0.3, against="als", n=11),
        _change(GAIN, 0.3, against="ease"),
        _change(GAIN, 0.3, against="kNN"),
    )
    assert said == [
        "On next tracks, cold (312 queries): stage two has NDCG@10 0.410; it is shown to be above "
        "chance; "
        "it is shown to beat popularity and raw mel; EASE is shown to beat it; "
        "it is not shown to differ from ALS (11 queries), EASE and kNN."
    ]


@pytest.mark.parametrize(
    ("value", "p_holm", "words"),
    [
        (UNCLEAR, 0.001, "it is not shown to be above chance"),
        (GAIN, 0.05, "it is not shown to be above chance"),
        (LOSS, 0.001, "it is shown to be below chance"),
    ],
)
def test_above_chance_is_said_only_when_shown(
    value: tuple[float, float, float], p_holm: float, words: str
) -> None:
    assert _said(_change(value, p_holm, against=RANDOM))[0].endswith(f"; {words}.")


def test_without_stage_two_stage_one_is_compared_with_the_rivals() -> None:
    said = _said(
        _change(GAIN, 0.003, against=RANDOM, method=STAGE_ONE),
        _change(LOSS, 0.003, against="ease", method=STAGE_ONE),
        _change(LOSS, 0.003, against="als", method=STAGE_ONE),
    )
    assert said == [
        "On next tracks, cold (312 queries): stage one has NDCG@10 0.410; it is shown to be above "
        "chance; "
        "EASE and ALS are shown to beat it."
    ]


def test_every_taste_sentence_says_that_listeners_are_simulated_and_no_other_does() -> None:
    changes = [
        _change(UNCLEAR, 0.9, TEXT, "semantic"),
        replace(_change(GAIN, 0.003), is_simulated=True),
        replace(_change(GAIN, 0.003, against="ease"), is_simulated=True),
    ]
    for about in (ABOUT, replace(ABOUT, is_simulated=True)):  # the mark of the task is enough
        verdict, meaning, kept, stages, rivals = _said(*changes, about=about)
        assert 'taste of simulated listeners gained on "next tracks, cold"' in verdict
        assert stages.startswith(
            "On next tracks, cold (312 queries, simulated listeners): stage two finds more"
        )
        assert rivals.startswith(
            "On next tracks, cold (312 queries, simulated listeners): stage two has"
        )
        assert "simulated" not in meaning + kept
    unnamed = _said(_change(GAIN, 0.003), about=replace(ABOUT, is_simulated=True))
    assert all("simulated listeners" in sentence for sentence in unnamed)


def test_several_seeds_are_said_in_every_sentence() -> None:
    about = replace(ABOUT, seeds=(3, 4, 5, 6, 7))
    said = _said(_change(GAIN, 0.003), _change(GAIN, 0.3, against="ease"), about=about)
    assert [sentence.count("mean of 5 seeds") for sentence in said] == [1, 1, 1]
    assert said[1].startswith("On next tracks, cold (312 queries, mean of 5 seeds): ")


def test_few_queries_or_groups_of_them_are_called_little_evidence() -> None:
    assert not any("little evidence" in sentence for sentence in _said(_change(GAIN, 0.003, n=10)))
    few = _said(_change(GAIN, 0.003, n=9), _change(GAIN, 0.003, against=RANDOM, n=9))
    assert 'gained on "next tracks, cold" (little evidence).' in few[0]
    assert [
        sentence.endswith(". Only 9 queries: this is little evidence.") for sentence in few[1:]
    ] == [True, True]
    grouped = _said(_change(GAIN, 0.003), n_clusters={COLD: 7})
    assert grouped[1].endswith(
        "Holm p = 0.003. Only 7 independent groups: this is little evidence."
    )
    assert _said(_change(GAIN, 0.003), n_clusters={COLD: 312, TEXT: 2}) == _said(
        _change(GAIN, 0.003)
    )


def test_numbers_never_look_like_what_they_are_not() -> None:
    """A p just below 0.05 is not shown as 0.050, nor an end just above 0 as 0.000; ranks need fewer
    digits.
    """
    assert _said(_change((0.1, 0.0003, 0.2), 0.0499))[1].endswith(
        "a gain of 0.100 [0.0003, 0.200], Holm p < 0.05."
    )
    assert _said(_change((-0.0, -12.34, 0.2), 0.0504))[1].endswith(
        "a change of 0.000 [-12.3, 0.200], Holm p = 0.050."
    )


def test_a_lower_metric_that_is_better_says_which_way_is_up() -> None:
    changes = [_change((-3.0, -7.0, 1.0), 0.3, TEXT, "semantic")]
    said = derive_claims(_figures(changes, higher_is_better=False), changes, ABOUT)
    assert (
        "R@10 3.352 against 0.352, a change of -3.000 [-7.000, 1.000] (above 0 is better), Holm"
        in said[1]
    )
    better = [_change((3.0, 1.0, 7.0), 0.001, TEXT, "semantic")]
    said = derive_claims(_figures(better, higher_is_better=False), better, ABOUT)
    assert (
        "stage two is better than stage one: R@10 -2.648 against 0.352, a gain of 3.000 [1.000, "
        "7.000]" in said[1]
    )


def test_metrics_not_of_record_and_empty_evaluations_claim_nothing() -> None:
    changes = [_change(GAIN, 0.001)]
    assert derive_claims(_figures(changes, of_record=False), changes, ABOUT) == []
    assert derive_claims([], [], ABOUT) == []


ends = st.floats(-0.2, 0.2) | st.sampled_from([0.0, -SEMANTIC_MARGIN, NAN])
p_values = st.floats(0.0, 1.0) | st.sampled_from([0.0, 0.049, 0.05, NAN])


@given(
    st.lists(
        st.tuples(ends, ends, p_values, st.integers(1, 40), st.booleans()), min_size=1, max_size=4
    ),
    st.lists(st.tuples(ends, ends, p_values), max_size=4),
)
def test_no_sentence_says_more_than_interval_and_test_allow(
    stages: list[tuple[float, float, float, int, bool]], rivals: list[tuple[float, float, float]]
) -> None:
    changes = []
    for i, (one, other, p, n, is_taste) in enumerate(stages):
        low, high = sorted((one, other))
        changes.append(
            _change(
                ((low + high) / 2, low, high),
                p,
                f"task{i}",
                "preference" if is_taste else "semantic",
                n=n,
            )
        )
    for i, (one, other, p) in enumerate(rivals):
        low, high = sorted((one, other))
        changes.append(_change(((low + high) / 2, low, high), p, "rivals", against=f"rival{i}"))
    said = _said(*changes)
    shown = said[0].split("Not shown:")[0]
    for change in changes[: len(stages)]:
        own = " ".join(
            sentence for sentence in said[1:] if re.search(rf"On {change.task} ", sentence)
        )
        may_gain = change.p_holm < 0.05 and change.low > 0
        may_lose = change.p_holm < 0.05 and change.high < 0
        assert (" a gain of " in own) == may_gain == change.is_better
        assert (" a loss of " in own) == ("is worse than" in own) == may_lose == change.is_worse
        assert ("finds more than" in own or "is better than" in own) == may_gain
        assert ("no difference between" in own) == (not may_gain and not may_lose)
        assert is_kept(change) == (change.low > -0.01)
        if change.section == "semantic":
            assert ("kept within 0.01" in own) == is_kept(change)
            assert (change.task in shown) == (is_kept(change) or may_lose)
        else:
            assert (change.task in shown) == (may_gain or may_lose)
    for change in changes[len(stages) :]:
        beaten, ahead = (
            re.search(words, said[-1])
            for words in (r"to beat (rival[^;.]*)", r"; (rival[^;]*) shown to b")
        )
        assert (change.against in (beaten[1] if beaten else "")) == (
            change.p_holm < 0.05 and change.low > 0
        )
        assert (change.against in (ahead[1] if ahead else "")) == (
            change.p_holm < 0.05 and change.high < 0
        )
