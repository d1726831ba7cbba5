"""Sentences that the intervals and the corrected tests of an evaluation allow.

A method is called better or worse if Holm's p is below 0.05 and the 95 % interval excludes 0. A
test without a result never shows that meaning is kept: the interval must exclude a loss larger than
the margin.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TypeAlias

from ponticello.evaluate.report.tables import display_name
from ponticello.evaluate.results import (
    RANDOM,
    SIGNIFICANT,
    Difference,
    EvaluationInfo,
    Figure,
    Section,
)

SEMANTIC_MARGIN = 0.01  # of the metric of record: the largest loss that counts as kept
UNCLEAR = ("unclear", "kept or lost")  # verdicts without a result
FEW = 10  # independent queries; a claim from fewer is marked

FigureKey: TypeAlias = tuple[Section, str, str, str]  # section, task, metric, method
Figures: TypeAlias = Mapping[FigureKey, Figure]


def derive_claims(
    figures: Sequence[Figure],
    differences: Sequence[Difference],
    about: EvaluationInfo,
    n_clusters: Mapping[str, int] | None = None,
) -> list[str]:
    """Returns sentences on the differences in metrics of record: a verdict, then task by task.

    figures: at least those of the methods that `differences` compare. n_clusters: the number of
    independent queries by task, where queries have clusters; without it every query counts.
    """
    by_key = {_figure_key(figure): figure for figure in figures}
    of_record = []
    stages = []
    few = {}
    for change in differences:
        if by_key[_figure_key(change)].of_record:
            of_record.append(change)
            if change.is_of_stages:
                stages.append(change)
                few[change.task] = _few([change], n_clusters or {})
    sentences = [_verdict(stages, about, few)] if stages else []
    for _, group in groupby(of_record, key=lambda change: _figure_key(change)[:3]):
        changes = list(group)
        for change in changes:
            if not change.is_of_stages:
                continue
            sentences.append(_stages_compared(change, by_key, about) + few[change.task])
            if change.section == "semantic":
                sentences.append(_semantic_kept(change, about) + few[change.task])
        rivals = [change for change in changes if not change.is_of_stages]
        if rivals:
            sentence = _rivals_compared(rivals, by_key, about)
            sentences.append(sentence + _few(rivals, n_clusters or {}))
    return sentences


def is_kept(difference: Difference) -> bool:
    """Whether the interval excludes a loss larger than SEMANTIC_MARGIN."""
    return difference.low > -SEMANTIC_MARGIN


def _figure_key(row: Figure | Difference) -> FigureKey:
    return row.section, row.task, row.metric, row.method


def _verdict(stages: Sequence[Difference], about: EvaluationInfo, few: Mapping[str, str]) -> str:
    """Returns one sentence on preference and semantic tasks together.

    Each `kept` must hold by itself, so it needs no correction.
    """
    is_simulated = any(_is_simulated(change, about) for change in stages)
    taste = "taste of simulated listeners" if is_simulated else "taste"
    kept = f"meaning kept within {SEMANTIC_MARGIN}"
    words_of = {
        "gained": f"{taste} gained",
        "lost": f"{taste} lost",
        "kept": kept,
        "meaning lost": "meaning lost",
        "unclear": f"{taste} gained or lost",
        "kept or lost": kept,
    }
    tasks: defaultdict[str, list[str]] = defaultdict(list)
    for change in stages:
        mark = " (little evidence)" if few[change.task] else ""
        tasks[_verdict_on(change)].append(f'"{display_name(change.task)}"{mark}')
    sections = {change.section for change in stages}
    shown: list[str] = []
    not_shown: list[str] = []
    for verdict, words in words_of.items():
        if tasks[verdict]:
            phrases = not_shown if verdict in UNCLEAR else shown
            phrases.append(f"{words} on {_and(tasks[verdict])}")
    seeds = f" (mean of {len(about.seeds)} seeds)" if len(about.seeds) > 1 else ""
    sentences = [f"Stage two against stage one{seeds}.", f"Shown: {'; '.join(shown) or 'nothing'}."]
    if not_shown:
        sentences.append(f"Not shown: {'; '.join(not_shown)}.")
    if "preference" not in sections:
        sentences.append("Not measured: taste.")
    if "semantic" not in sections:
        sentences.append("Not measured: meaning.")
    return " ".join(sentences)


def _verdict_on(change: Difference) -> str:
    if change.section == "preference":
        if change.is_better:
            return "gained"
        return "lost" if change.is_worse else "unclear"
    if is_kept(change):
        return "kept"
    return "meaning lost" if change.is_worse else "kept or lost"


def _stages_compared(change: Difference, figures: Figures, about: EvaluationInfo) -> str:
    stage_two = figures[_figure_key(change)]
    stage_one = figures[(change.section, change.task, change.metric, change.against)]
    values = f"{change.metric} {_number(stage_two.value)} against {_number(stage_one.value)}"
    if change.is_better:
        gains = "finds more than" if change.section == "preference" else "is better than"
        verdict = f"stage two {gains} stage one: {values}, a gain of {_interval(change)}"
    elif change.is_worse:
        verdict = f"stage two is worse than stage one: {values}, a loss of {_interval(change, -1)}"
    else:
        direction = "" if stage_two.higher_is_better else " (above 0 is better)"
        verdict = (
            f"no difference between stage two and stage one is shown: {values}, "
            f"a change of {_interval(change)}{direction}"
        )
    return f"{_on(change, about)}: {verdict}, {_p(change)}."


def _semantic_kept(change: Difference, about: EvaluationInfo) -> str:
    """Returns a sentence on the largest loss that the interval does not exclude, rounded up."""
    start = (
        f"Meaning kept? {_on(change, about)}: the change of {change.metric} is {_interval(change)}"
    )
    if math.isnan(change.low):
        return f"{start}, so no loss is excluded."
    if change.low >= 0:
        bound = "a loss is excluded at 95 %"
    else:
        # Rounded first, as 0.028 x 1000 is a little above 28.
        loss = max(1, math.ceil(round(-1000 * change.low, 6))) / 1000
        bound = f"a loss larger than {loss:.3f} is excluded at 95 %"
    kept = f"kept within {SEMANTIC_MARGIN}, " if is_kept(change) else ""
    return f"{start}: {kept}{bound}."


def _rivals_compared(rivals: Sequence[Difference], figures: Figures, about: EvaluationInfo) -> str:
    """Returns a sentence on one method against all others, in one task."""
    widest = max(rivals, key=lambda change: change.n)
    phrases = []
    beaten = []
    ahead = []
    level = []
    for change in rivals:
        name = display_name(change.against)
        if change.n < widest.n:
            name += f" ({_counted(change.n, 'query', 'queries')})"
        if change.against == RANDOM:
            is_shown = "is shown" if change.is_better or change.is_worse else "is not shown"
            side = "below" if change.is_worse else "above"
            phrases.append(f"it {is_shown} to be {side} chance")
        elif change.is_better:
            beaten.append(name)
        elif change.is_worse:
            ahead.append(name)
        else:
            level.append(name)
    if beaten:
        phrases.append(f"it is shown to beat {_and(beaten)}")
    if ahead:
        phrases.append(f"{_and(ahead)} {'is' if len(ahead) == 1 else 'are'} shown to beat it")
    if level:
        phrases.append(f"it is not shown to differ from {_and(level)}")
    value = _number(figures[_figure_key(widest)].value)
    has = f"{display_name(widest.method)} has {widest.metric} {value}"
    return f"{_on(widest, about)}: {has}; {'; '.join(phrases)}."


def _few(changes: Sequence[Difference], n_clusters: Mapping[str, int]) -> str:
    """Returns a sentence if fewer than FEW independent queries are behind the changes."""
    n_queries = max(change.n for change in changes)
    n = min(n_queries, n_clusters.get(changes[0].task, n_queries))
    if n >= FEW:
        return ""
    if n == n_queries:
        counted = _counted(n, "query", "queries")
    else:
        counted = _counted(n, "independent group", "independent groups")
    return f" Only {counted}: this is little evidence."


def _on(change: Difference, about: EvaluationInfo) -> str:
    """Returns `On next tracks, cold (312 queries, simulated listeners, mean of 5 seeds)`."""
    details = [_counted(change.n, "query", "queries")]
    if _is_simulated(change, about):
        details.append("simulated listeners")
    if len(about.seeds) > 1:
        details.append(f"mean of {len(about.seeds)} seeds")
    return f"On {display_name(change.task)} ({', '.join(details)})"


def _is_simulated(change: Difference, about: EvaluationInfo) -> bool:
    return change.section == "preference" and (about.is_simulated or change.is_simulated)


def _counted(n: int, singular: str, plural: str) -> str:
    return f"{n} {singular if n == 1 else plural}"


def _interval(change: Difference, sign: int = 1) -> str:
    """Returns `0.058 [0.028, 0.086]`; with sign -1 that of the loss."""
    value = _number(sign * change.value)
    if math.isnan(change.low):
        return f"{value} (no interval)"
    low, high = sorted((sign * change.low, sign * change.high))
    return f"{value} [{_number(low)}, {_number(high)}]"


def _number(value: float) -> str:
    """Returns three decimals; one for large numbers, and one digit of very small ones."""
    if abs(value) >= 10:
        return f"{value:.1f}"
    if 0 < abs(value) < 0.0005:
        return f"{value:.1g}"
    return f"{value + 0.0:.3f}"  # + 0.0 turns -0.0 into 0.0


def _p(change: Difference) -> str:
    if math.isnan(change.p_holm):
        return "not tested"
    if change.p_holm < 0.001:
        return "Holm p < 0.001"
    rounded = f"{change.p_holm:.3f}"
    if change.p_holm < SIGNIFICANT <= float(rounded):
        return f"Holm p < {SIGNIFICANT}"
    return f"Holm p = {rounded}"


def _and(names: Sequence[str]) -> str:
    """Returns `a, b and c`."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"
