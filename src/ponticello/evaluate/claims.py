"""Sentences a paper could print: only what the interval and the corrected test both allow.

Better or worse is said where Holm's p is below 0.05 and the 95 % interval excludes 0. That meaning
is kept is never
concluded from a test that found nothing: the interval must exclude a loss larger than the margin.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TypeAlias

from ponticello.evaluate.report.tables import display_name
from ponticello.evaluate.results import (
    RANDOM,
    SIGNIFICANT,
    STAGE_ONE,
    STAGE_TWO,
    Difference,
    EvaluationInfo,
    Figure,
    Section,
)

MEANING_MARGIN = 0.01  # of the metric of record: the loss of meaning the project allows stage two
FEW = 10  # independent queries below which a sentence says that they are few

Name: TypeAlias = tuple[Section, str, str, str]  # section, task, metric, method
Figures: TypeAlias = Mapping[Name, Figure]


def derive_claims(
    figures: Sequence[Figure],
    differences: Sequence[Difference],
    about: EvaluationInfo,
    n_clusters: Mapping[str, int] | None = None,
) -> list[str]:
    """What `differences` of metrics of record show, as sentences: first the verdict on both sides,
    then task by task.

    figures: those of the methods that `differences` compare, at least. n_clusters: task ->
    independent queries, where queries lie in clusters; without it every query counts. Nothing
    compared gives no sentence.
    """
    by_name = {
        (figure.section, figure.task, figure.metric, figure.method): figure for figure in figures
    }
    of_record = [change for change in differences if by_name[_key(change)].of_record]
    stages = [
        change for change in of_record if (change.method, change.against) == (STAGE_TWO, STAGE_ONE)
    ]
    few = {change.task: _few([change], n_clusters or {}) for change in stages}
    sentences = [_verdict(stages, about, few)] if stages else []
    for _, group in groupby(
        of_record, key=lambda change: (change.section, change.task, change.metric)
    ):
        changes = list(group)
        for change in changes:
            if change in stages:
                sentences.append(_stages_compared(change, by_name, about) + few[change.task])
                if change.section == "semantic":
                    sentences.append(_meaning_kept(change, about) + few[change.task])
        rivals = [change for change in changes if change.against != STAGE_ONE]
        if rivals:
            sentences.append(
                _rivals_compared(rivals, by_name, about) + _few(rivals, n_clusters or {})
            )
    return sentences


def is_kept(difference: Difference) -> bool:
    """Whether the interval excludes a loss larger than MEANING_MARGIN."""
    return difference.low > -MEANING_MARGIN


def _verdict(stages: Sequence[Difference], about: EvaluationInfo, few: Mapping[str, str]) -> str:
    """One sentence on taste and meaning together. Each `kept` must hold by itself, so it needs no
    correction.
    """
    taste = [change for change in stages if change.section == "preference"]
    meaning = [change for change in stages if change.section == "semantic"]
    whose = (
        "taste of simulated listeners"
        if any(_is_simulated(change, about) for change in taste)
        else "taste"
    )
    kept = f"meaning kept within {MEANING_MARGIN}"
    lost = [change for change in meaning if change.is_worse and not is_kept(change)]
    shown = [
        (f"{whose} gained", [change for change in taste if change.is_better]),
        (f"{whose} lost", [change for change in taste if change.is_worse]),
        (kept, [change for change in meaning if is_kept(change)]),
        ("meaning lost", lost),
    ]
    not_shown = [
        (
            f"{whose} gained or lost",
            [change for change in taste if not change.is_better and not change.is_worse],
        ),
        (kept, [change for change in meaning if not is_kept(change) and change not in lost]),
    ]
    seeds = f" (mean of {len(about.seeds)} seeds)" if len(about.seeds) > 1 else ""
    parts = [f"Stage two against stage one{seeds}.", f"Shown: {_listed(shown, few) or 'nothing'}."]
    parts += [f"Not shown: {_listed(not_shown, few)}."] if _listed(not_shown, few) else []
    unmeasured = [side for side, changes in (("taste", taste), ("meaning", meaning)) if not changes]
    parts += [f"Not measured: {side}." for side in unmeasured]
    return " ".join(parts)


def _listed(what: Sequence[tuple[str, Sequence[Difference]]], few: Mapping[str, str]) -> str:
    parts = []
    for words, changes in what:
        tasks = [
            f'"{display_name(change.task)}"' + (" (little evidence)" if few[change.task] else "")
            for change in changes
        ]
        parts += [f"{words} on {_and(tasks)}"] if tasks else []
    return "; ".join(parts)


def _stages_compared(change: Difference, figures: Figures, about: EvaluationInfo) -> str:
    two, one = (
        figures[_key(change)],
        figures[(change.section, change.task, change.metric, change.against)],
    )
    finds = "finds more than" if change.section == "preference" else "is better than"
    values = f"{change.metric} {_number(two.value)} against {_number(one.value)}"
    if change.is_better:
        verdict = f"stage two {finds} stage one: {values}, a gain of {_interval(change)}"
    elif change.is_worse:
        verdict = f"stage two is worse than stage one: {values}, a loss of {_interval(change, -1)}"
    else:
        direction = "" if two.higher_is_better else " (above 0 is better)"
        verdict = f"no difference between stage two and stage one is shown: {values}, a change of {_interval(change)}"
        verdict += direction
    return f"{_on(change, about)}: {verdict}, {_p(change)}."


def _meaning_kept(change: Difference, about: EvaluationInfo) -> str:
    """The largest loss the interval does not exclude, rounded away from 0."""
    start = (
        f"Meaning kept? {_on(change, about)}: the change of {change.metric} is {_interval(change)}"
    )
    if math.isnan(change.low):
        return f"{start}, so no loss is excluded."
    if change.low >= 0:
        bound = "a loss is excluded at 95 %"
    else:
        loss = (
            max(1, math.ceil(round(-1000 * change.low, 6))) / 1000
        )  # round: 0.028 x 1000 is a little above 28
        bound = f"a loss larger than {loss:.3f} is excluded at 95 %"
    return f"{start}: {f'kept within {MEANING_MARGIN}, ' if is_kept(change) else ''}{bound}."


def _rivals_compared(rivals: Sequence[Difference], figures: Figures, about: EvaluationInfo) -> str:
    widest = max(rivals, key=lambda change: change.n)
    method, parts = widest.method, []

    def named(changes: Sequence[Difference]) -> str:
        fewer = {
            c.against: f" ({_counted(c.n, 'query', 'queries')})" for c in changes if c.n < widest.n
        }
        return _and([display_name(c.against) + fewer.get(c.against, "") for c in changes])

    for change in rivals:
        if change.against == RANDOM:
            is_shown = "is shown" if change.is_better or change.is_worse else "is not shown"
            parts.append(f"it {is_shown} to be {'below' if change.is_worse else 'above'} chance")
    others = [change for change in rivals if change.against != RANDOM]
    beaten = [change for change in others if change.is_better]
    ahead = [change for change in others if change.is_worse]
    level = [change for change in others if not change.is_better and not change.is_worse]
    parts += [f"it is shown to beat {named(beaten)}"] if beaten else []
    parts += (
        [f"{named(ahead)} {'is' if len(ahead) == 1 else 'are'} shown to beat it"] if ahead else []
    )
    parts += [f"it is not shown to differ from {named(level)}"] if level else []
    has = f"{display_name(method)} has {widest.metric} {_number(figures[_key(widest)].value)}"
    return f"{_on(widest, about)}: {has}; {'; '.join(parts)}."


def _key(change: Difference) -> Name:
    return change.section, change.task, change.metric, change.method


def _few(changes: Sequence[Difference], n_clusters: Mapping[str, int]) -> str:
    n_queries = max(change.n for change in changes)
    n = min(n_queries, n_clusters.get(changes[0].task, n_queries))
    what = (
        _counted(n, "query", "queries")
        if n == n_queries
        else _counted(n, "independent group", "independent groups")
    )
    return f" Only {what}: this is little evidence." if n < FEW else ""


def _on(change: Difference, about: EvaluationInfo) -> str:
    """`On next tracks, cold (312 queries, simulated listeners, mean of 5 seeds)`."""
    parts = [_counted(change.n, "query", "queries")]
    parts += ["simulated listeners"] if _is_simulated(change, about) else []
    parts += [f"mean of {len(about.seeds)} seeds"] if len(about.seeds) > 1 else []
    return f"On {display_name(change.task)} ({', '.join(parts)})"


def _counted(n: int, one: str, several: str) -> str:
    return f"{n} {one if n == 1 else several}"


def _is_simulated(change: Difference, about: EvaluationInfo) -> bool:
    return change.section == "preference" and (about.is_simulated or change.is_simulated)


def _interval(change: Difference, sign: int = 1) -> str:
    """`0.058 [0.028, 0.086]`; with sign -1 that of the loss."""
    value = _number(sign * change.value)
    if math.isnan(change.low):
        return f"{value} (no interval)"
    low, high = sorted((sign * change.low, sign * change.high))
    return f"{value} [{_number(low)}, {_number(high)}]"


def _number(value: float) -> str:
    """Three decimals; fewer for large numbers, and one digit of what would otherwise look like 0."""
    if abs(value) >= 10:
        return f"{value:.1f}"
    return (
        f"{value:.1g}" if 0 < abs(value) < 0.0005 else f"{value + 0.0:.3f}"
    )  # + 0.0 so that -0.0 has no sign


def _p(change: Difference) -> str:
    if math.isnan(change.p_holm):
        return "not tested"
    if change.p_holm < 0.001:
        return "Holm p < 0.001"
    rounded = f"{change.p_holm:.3f}"
    return (
        f"Holm p < {SIGNIFICANT}"
        if change.p_holm < SIGNIFICANT <= float(rounded)
        else f"Holm p = {rounded}"
    )


def _and(names: Sequence[str]) -> str:
    """`a, b and c`."""
    return " and ".join([*([", ".join(names[:-1])] if len(names) > 1 else []), *names[-1:]])
