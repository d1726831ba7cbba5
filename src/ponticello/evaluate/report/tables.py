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

from ponticello.evaluate.results import Difference, EvaluationInfo, Figure, Section

METHOD_NAMES = {
    "random": "random",
    "majority": "majority",
    "popularity": "popularity",
    "activity": "activity",
    "stage_one": "stage one",
    "stage_two": "stage two",
    "stage_one_fused": "stage one, fused",
    "stage_two_fused": "stage two, fused",
    "mel_statistics": "mel statistics",
    "musicnn": "MusiCNN",
    "front_end": "front end",
    "text": "text only",
    "item_knn": "item-kNN",
    "ease": "EASE",
    "als": "ALS",
    "sasrec": "SASRec",
    "sasrec_content": "SASRec on content",
    "content_knn": "content-kNN",
    "vectors_to_factors": "vectors to factors",
    "vectors_text_to_factors": "vectors and text to factors",
}
_TASK_NAMES = {
    "text_to_audio": "text to audio",
    "audio_to_text": "audio to text",
    "next_tracks_warm": "next tracks, warm",
    "next_tracks_cold": "next tracks, cold",
    "pairs_cold": "pairs, cold",
    "playlists_cold": "playlists, cold",
    "playlists_warm": "playlists, warm",
    "audience_cold": "audience, cold",
    "space": "the space",
    "neighbours_kept": "neighbours kept from stage one",
    "weights": "weights",
    "blend": "dial",
}
_NAMES = METHOD_NAMES | _TASK_NAMES
SECTION_NAMES: dict[Section, str] = {
    "semantic": "meaning",
    "preference": "taste",
    "integrity": "integrity",
    "tradeoff": "front",
}
_LABEL_TASKS = {
    "probe": "probe",
    "zero_shot": "zero-shot tags",
    "music_to_music": "music to music",
}
_STRATA = {
    "most_played": "among the 20% most played",
    "less_played": "among the others",
    "known_artist": "by an artist heard before",
    "new_artist": "by a new artist",
}
SIMULATED_MARK = ", SIMULATED listeners"
MAX_LENGTH = 60


def display_name(identifier: str) -> str:
    """Returns how a method or a task is written in a report; other names are returned unchanged.

    >>> display_name("stage_two_fused"), display_name("probe:genres")
    ('stage two, fused', 'probe: genres')
    >>> display_name("lists:next_tracks_warm"), display_name("next_tracks_warm:most_played")
    ('lists of next tracks, warm', 'next tracks, warm, among the 20% most played')
    """
    kind, _, subject = identifier.partition(":")
    if kind in _LABEL_TASKS and subject:
        return f"{_LABEL_TASKS[kind]}: {subject}"
    if kind == "lists" and subject:
        return f"lists of {display_name(subject)}"
    if subject in _STRATA:
        return f"{display_name(kind)}, {_STRATA[subject]}"
    return _NAMES.get(identifier, identifier)


def display_metric(metric: str) -> str:
    """Returns how a metric is written in a report; that of a trade-off names its task too.

    >>> display_metric("next_tracks_cold:NDCG@10")
    'next tracks, cold, NDCG@10'
    """
    task, _, name = metric.rpartition(":")
    return f"{display_name(task)}, {name}" if task in _NAMES else metric


def display_task(row: "Figure | Difference | Table") -> str:
    """Returns how a task is written in a report, with a mark where its listeners are simulated."""
    return display_name(row.task) + (SIMULATED_MARK if row.is_simulated else "")


def slug(text: str) -> str:
    """Lower-case ASCII letters, digits and single hyphens, at most MAX_LENGTH of them, never none.

    >>> slug("preference next_tracks_cold")
    'preference-next-tracks-cold'
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

    section: Section
    task: str
    methods: list[str]
    metrics: list[str]
    cells: dict[tuple[str, str], Figure]  # (method, metric) -> figure

    @property
    def figures(self) -> list[Figure]:
        """Every figure of the table."""
        return list(self.cells.values())

    @property
    def is_simulated(self) -> bool:
        """Whether the listeners behind every figure are simulated."""
        return all(figure.is_simulated for figure in self.figures)

    @property
    def record(self) -> str | None:
        """The metric of record, if the task has one."""
        return next((figure.metric for figure in self.figures if figure.of_record), None)

    def column(self, metric: str) -> list[Figure]:
        """The figures of one metric, in the order of methods."""
        return [
            self.cells[method, metric] for method in self.methods if (method, metric) in self.cells
        ]

    def metric_heading(self, metric: str) -> str:
        """The metric as it is written, marked where only some metrics are of simulated listeners."""
        is_marked = self.column(metric)[0].is_simulated and not self.is_simulated
        return display_metric(metric) + (SIMULATED_MARK if is_marked else "")


def tables_of(figures: Sequence[Figure]) -> list[Table]:
    """One table a (section, task), in order of first appearance."""
    groups: dict[tuple[Section, str], list[Figure]] = {}
    for figure in figures:
        groups.setdefault((figure.section, figure.task), []).append(figure)
    return [
        Table(
            section,
            task,
            list(dict.fromkeys(figure.method for figure in group)),
            list(dict.fromkeys(figure.metric for figure in group)),
            {(figure.method, figure.metric): figure for figure in group},
        )
        for (section, task), group in groups.items()
    ]


def is_ranked(column: Sequence[Figure]) -> bool:
    """True where values may be called better or worse: in the sections semantic and preference, two methods
    with intervals.

    A number of a whole (coverage, effective rank) has no interval, and more of it is not always
    better.
    """
    return (
        sum(
            _has_interval(figure) and figure.section in ("semantic", "preference")
            for figure in column
        )
        >= 2
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
    if not (tested.is_better or tested.is_worse):
        return "no clear change"
    direction = "better" if tested.is_better else "worse"
    return f"{direction}, not tested" if isnan(difference.p_holm) else direction


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
