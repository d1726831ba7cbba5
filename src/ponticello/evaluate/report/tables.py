"""How numbers, verdicts and the background of an evaluation are put into words; every kind of file
uses these.

Text that comes from data (names of libraries, tracks, labels) may hold anything.
`strip_control_chars` makes it one printable line; each kind of file then escapes it in its own way.

Names for files and anchors, made of text that may hold anything.

Figures arranged to be read: one table a task, methods down, metrics across, and which values lead a
column.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import isfinite, isnan
from typing import Literal

from ponticello.evaluate.claims import is_better, is_worse
from ponticello.evaluate.results import SIMULATED_SUFFIX, Difference, EvaluationInfo, Figure, Side

MAX_LENGTH = 60


def slug(text: str) -> str:
    """Lower-case ASCII letters, digits and single hyphens, at most MAX_LENGTH of them, never none.

    >>> slug("taste next tracks, cold")
    'taste-next-tracks-cold'
    """
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:MAX_LENGTH].rstrip("-") or "task"


def distinct_slugs(texts: Sequence[str], taken: Iterable[str] = ()) -> list[str]:
    """A slug for each text; one that is taken already gets a number.

    >>> distinct_slugs(["a b", "a-b"])
    ['a-b', 'a-b-2']
    """
    used, found = set(taken), []
    for text in texts:
        start = name = slug(text)
        number = 2
        while name in used:
            name, number = f"{start}-{number}", number + 1
        used.add(name)
        found.append(name)
    return found


Standing = Literal["best", "level", ""]


@dataclass(frozen=True)
class Table:
    """All figures of one task; methods and metrics in order of first appearance, not every pair has
    a figure.
    """

    side: Side
    task: str
    methods: list[str]
    metrics: list[str]
    cells: dict[tuple[str, str], Figure]  # (method, metric) -> figure

    @property
    def figures(self) -> list[Figure]:
        """Every figure of the table."""
        return list(self.cells.values())

    @property
    def record(self) -> str | None:
        """The metric of record, if the task has one."""
        return next((figure.metric for figure in self.figures if figure.of_record), None)

    def column(self, metric: str) -> list[Figure]:
        """The figures of one metric, in the order of methods."""
        return [
            self.cells[method, metric] for method in self.methods if (method, metric) in self.cells
        ]


def tables_of(figures: Sequence[Figure]) -> list[Table]:
    """One table a (side, task), in order of first appearance."""
    groups: dict[tuple[Side, str], list[Figure]] = {}
    for figure in figures:
        groups.setdefault((figure.side, figure.task), []).append(figure)
    return [
        Table(
            side,
            task,
            list(dict.fromkeys(figure.method for figure in group)),
            list(dict.fromkeys(figure.metric for figure in group)),
            {(figure.method, figure.metric): figure for figure in group},
        )
        for (side, task), group in groups.items()
    ]


def is_ranked(column: Sequence[Figure]) -> bool:
    """True where values may be called better or worse: on the sides meaning and taste, two methods
    with intervals.

    A number of a whole (coverage, effective rank) has no interval, and more of it is not always
    better.
    """
    return (
        sum(_has_interval(figure) and figure.side in ("meaning", "taste") for figure in column) >= 2
    )


def rank_methods(column: Sequence[Figure]) -> dict[str, Standing]:
    """Method -> "best" for the best value of one metric, "level" where the interval overlaps the
    best one's.

    "best" is what was measured, not a claim: a method that is level may be as good. Equal values
    are all best. Where `is_ranked` is False, nobody stands anywhere.
    """
    if not is_ranked(column):
        return {}
    sign = 1.0 if column[0].higher_is_better else -1.0
    ranked = [figure for figure in column if _has_interval(figure)]
    best = max(ranked, key=lambda figure: sign * figure.value)
    found: dict[str, Standing] = {}
    for figure in ranked:
        if figure.value == best.value:
            found[figure.method] = "best"
        elif figure.low <= best.high and figure.high >= best.low:
            found[figure.method] = "level"
    return found


def _has_interval(figure: Figure) -> bool:
    return not (isnan(figure.value) or isnan(figure.low) or isnan(figure.high))


NOT_MEASURED = "-"
SIMULATED = "SIMULATED listeners: nobody real listened. What is found is the taste that was planted, and nothing else."
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff\ufffe\uffff]"
)


def strip_control_chars(text: str) -> str:
    """`text` on one line: control characters, lone surrogates and marks that turn the direction
    become spaces.

    >>> clean("two\\nlines")
    'two lines'
    """
    return _UNPRINTABLE.sub(" ", text)


def number(value: float, metric: str) -> str:
    """`value` with three decimals, one for ranks and from 100 on; a dash for nan."""
    if isnan(value):
        return NOT_MEASURED
    return f"{value + 0.0:.{1 if metric == 'median rank' or abs(value) >= 100 else 3}f}"


def interval(figure: Figure | Difference) -> str:
    """`[0.380, 0.441]` with the decimals of the value, or nothing where there is no interval."""
    if isnan(figure.value) or isnan(figure.low) or isnan(figure.high):
        return ""
    decimals = len(number(figure.value, figure.metric).partition(".")[2])
    return f"[{figure.low + 0.0:.{decimals}f}, {figure.high + 0.0:.{decimals}f}]"


def spread(figure: Figure | Difference) -> str:
    """`± 0.012`, the standard deviation over seeds, or nothing with one seed."""
    if isinstance(figure, Difference) or isnan(figure.value) or isnan(figure.seed_sd):
        return ""
    return f"± {number(figure.seed_sd, figure.metric)}"


def format_value(figure: Figure | Difference) -> str:
    """`0.412 [0.380, 0.441] ± 0.012`: value, 95 % interval, spread over seeds; a dash for what was
    not measured.
    """
    parts = (number(figure.value, figure.metric), interval(figure), spread(figure))
    return " ".join(part for part in parts if part)


def format_p(p: float) -> str:
    """A p value with three decimals; a dash where nothing was tested."""
    if isnan(p):
        return NOT_MEASURED
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def verdict(difference: Difference) -> str:
    """What the interval and the corrected test allow to say of a difference.

    "better" and "worse" need an interval without 0 and, where it was tested, a Holm p below
    `SIGNIFICANT`; where it was not tested, the word says so.
    """
    if isnan(difference.value) or isnan(difference.low) or isnan(difference.high):
        return "not known"
    tested = replace(difference, p_holm=0.0) if isnan(difference.p_holm) else difference
    if not (is_better(tested) or is_worse(tested)):
        return "no clear change"
    direction = "better" if is_better(tested) else "worse"
    return f"{direction}, not tested" if isnan(difference.p_holm) else direction


def without_suffix(task: str) -> str:
    """The task without the words that its listeners are simulated, for places that say so once for
    all.
    """
    return strip_control_chars(task).removesuffix(SIMULATED_SUFFIX)


def format_count(figures: list[Figure]) -> str:
    """How many queries or rows are behind `figures`: `312`, `290 to 312`."""
    counts = sorted({figure.n for figure in figures})
    return (
        " to ".join(f"{count:,}" for count in dict.fromkeys((counts[0], counts[-1])))
        if counts
        else "0"
    )


def format_seeds(about: EvaluationInfo) -> str:
    """`seed 7`, or `mean of 3 seeds (1, 2, 3)`."""
    listed = ", ".join(str(seed) for seed in about.seeds) or "not stated"
    return (
        f"seed {listed}" if len(about.seeds) < 2 else f"mean of {len(about.seeds)} seeds ({listed})"
    )


def background(about: EvaluationInfo) -> list[tuple[str, str]]:
    """What is behind the numbers, as (name, text); the runs are apart, in `about.runs`."""
    listeners = (
        f"{about.n_listeners:,} SIMULATED listeners"
        if about.is_simulated
        else f"{about.n_listeners:,} listeners"
    )
    rows = [
        ("Library", about.library),
        ("Data", f"{about.n_tracks:,} tracks, {listeners}, {about.n_events:,} events"),
        ("Held out", about.held_out),
        ("Splits, SHA-256", about.splits_sha256),
        ("Seeds", format_seeds(about)),
        ("Preset", about.preset),
        ("Ponticello", about.version),
        ("Command", about.command),
    ]
    return [(name, strip_control_chars(text)) for name, text in rows]


def finite_or_none(value: object) -> object:
    """nan and the infinities as None, which every format can hold; anything else as it is."""
    return None if isinstance(value, float) and not isfinite(value) else value
