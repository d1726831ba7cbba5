"""How numbers, verdicts and the background of an evaluation are put into words; every kind of file uses these.

Text that comes from data (names of libraries, tracks, labels) may hold anything. `clean` makes it one printable line;
each kind of file then escapes it in its own way.
"""

import re
from dataclasses import replace
from math import isfinite, isnan

from ponticello.evaluate.claims import is_better, is_worse
from ponticello.evaluate.figures import SIMULATED_SUFFIX, About, Difference, Figure

NOT_MEASURED = "-"
SIMULATED = "SIMULATED listeners: nobody real listened. What is found is the taste that was planted, and nothing else."
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff\ufffe\uffff]")


def clean(text: str) -> str:
    """`text` on one line: control characters, lone surrogates and marks that turn the direction become spaces.

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


def shown(figure: Figure | Difference) -> str:
    """`0.412 [0.380, 0.441] ± 0.012`: value, 95 % interval, spread over seeds; a dash for what was not measured."""
    parts = (number(figure.value, figure.metric), interval(figure), spread(figure))
    return " ".join(part for part in parts if part)


def p_shown(p: float) -> str:
    """A p value with three decimals; a dash where nothing was tested."""
    if isnan(p):
        return NOT_MEASURED
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def verdict(difference: Difference) -> str:
    """What the interval and the corrected test allow to say of a difference.

    "better" and "worse" need an interval without 0 and, where it was tested, a Holm p below `SIGNIFICANT`; where
    it was not tested, the word says so.
    """
    if isnan(difference.value) or isnan(difference.low) or isnan(difference.high):
        return "not known"
    tested = replace(difference, p_holm=0.0) if isnan(difference.p_holm) else difference
    if not (is_better(tested) or is_worse(tested)):
        return "no clear change"
    direction = "better" if is_better(tested) else "worse"
    return f"{direction}, not tested" if isnan(difference.p_holm) else direction


def without_suffix(task: str) -> str:
    """The task without the words that its listeners are simulated, for places that say so once for all."""
    return clean(task).removesuffix(SIMULATED_SUFFIX)


def n_shown(figures: list[Figure]) -> str:
    """How many queries or rows are behind `figures`: `312`, `290 to 312`."""
    counts = sorted({figure.n for figure in figures})
    return " to ".join(f"{count:,}" for count in dict.fromkeys((counts[0], counts[-1]))) if counts else "0"


def seeds_shown(about: About) -> str:
    """`seed 7`, or `mean of 3 seeds (1, 2, 3)`."""
    listed = ", ".join(str(seed) for seed in about.seeds) or "not stated"
    return f"seed {listed}" if len(about.seeds) < 2 else f"mean of {len(about.seeds)} seeds ({listed})"


def background(about: About) -> list[tuple[str, str]]:
    """What is behind the numbers, as (name, text); the runs are apart, in `about.runs`."""
    listeners = (
        f"{about.n_listeners:,} SIMULATED listeners" if about.is_simulated else f"{about.n_listeners:,} listeners"
    )
    rows = [
        ("Library", about.library),
        ("Data", f"{about.n_tracks:,} tracks, {listeners}, {about.n_events:,} events"),
        ("Held out", about.held_out),
        ("Splits, SHA-256", about.splits_sha256),
        ("Seeds", seeds_shown(about)),
        ("Preset", about.preset),
        ("Ponticello", about.version),
        ("Command", about.command),
    ]
    return [(name, clean(text)) for name, text in rows]


def finite_or_none(value: object) -> object:
    """nan and the infinities as None, which every format can hold; anything else as it is."""
    return None if isinstance(value, float) and not isfinite(value) else value
