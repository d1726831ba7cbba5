"""How figures are arranged and written in a report: names, tables, numbers, verdicts.

Text from data (names of libraries, tracks, labels) may hold anything: `strip_control_chars` makes
it one printable line, and each kind of file escapes it in its own way.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import chain
from math import isnan
from typing import Literal

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

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
    "served": "as served",
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
    "profile": "profile, tuned",
    "content_to_als": "content to ALS",
    "mlp_to_als": "MLP to ALS",
    "feature_ials": "feature-aware iALS",
    "profile_and_als": "profile + content to ALS",
}
_NAMES = METHOD_NAMES | {
    "text_to_audio": "text to audio",
    "audio_to_text": "audio to text",
    "next_tracks_warm": "next tracks, warm",
    "next_tracks_cold": "next tracks, cold",
    "pairs_cold": "pairs, cold",
    "playlists_cold": "playlists, cold",
    "playlists_warm": "playlists, warm",
    "audience_cold": "audience, cold",
    "words_preference": "words, preference",
    "space": "the space",
    "neighbours_kept": "neighbours kept from stage one",
    "weights": "weights",
    "blend": "dial",
}
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


def display_section_task(row: Figure | Difference) -> str:
    """Returns how a section and its task are written in a report."""
    return f"{SECTION_NAMES[row.section]}: {display_task(row)}"


def display_methods(difference: Difference) -> str:
    """Returns how the two methods of a difference are written in a report."""
    return f"{display_name(difference.method)} minus {display_name(difference.against)}"


def slug(text: str) -> str:
    """Returns lower-case ASCII letters, digits and single hyphens, from 1 to MAX_LENGTH.

    >>> slug("preference next_tracks_cold")
    'preference-next-tracks-cold'
    """
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:MAX_LENGTH].rstrip("-") or "task"


def distinct_slugs(texts: Sequence[str], taken: Iterable[str] = ()) -> list[str]:
    """Returns a slug for each text; a slug that is taken already gets a number.

    >>> distinct_slugs(["a b", "a-b"])
    ['a-b', 'a-b-2']
    """
    used = set(taken)
    slugs = []
    for text in texts:
        start = slug(text)
        name = start
        suffix = 2
        while name in used:
            name = f"{start}-{suffix}"
            suffix += 1
        used.add(name)
        slugs.append(name)
    return slugs


Standing = Literal["best", "level", ""]


@dataclass(frozen=True)
class Table:
    """All figures of one task; methods and metrics in order of first appearance.

    A pair of method and metric may lack a figure.
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

    @property
    def record_column(self) -> list[Figure]:
        """The figures of the metric of record, in the order of methods."""
        return self.column(self.record or "")

    @property
    def record_rises(self) -> bool:
        """Whether a higher value of the metric of record is better."""
        return self.record_column[0].higher_is_better

    @property
    def unmeasured(self) -> list[str]:
        """The methods, as written in a report, that have no value in the metric of record."""
        figures = self.record_column
        return [display_name(figure.method) for figure in figures if isnan(figure.value)]

    @property
    def has_intervals(self) -> bool:
        """Whether any figure has an interval."""
        return any(map(interval, self.figures))

    @property
    def has_spreads(self) -> bool:
        """Whether any figure has a standard deviation over seeds."""
        return any(map(spread, self.figures))

    @property
    def standings(self) -> "dict[str, dict[str, Standing]]":
        """The result of `rank_methods` by metric."""
        return {metric: rank_methods(self.column(metric)) for metric in self.metrics}

    def column(self, metric: str) -> list[Figure]:
        """The figures of one metric, in the order of methods."""
        figures = [self.cells.get((method, metric)) for method in self.methods]
        return list(filter(None, figures))

    def metric_heading(self, metric: str) -> str:
        """Returns the metric's display text, marked where only some have simulated listeners."""
        is_marked = self.column(metric)[0].is_simulated and not self.is_simulated
        return display_metric(metric) + (SIMULATED_MARK if is_marked else "")


def tables_of(figures: Sequence[Figure]) -> list[Table]:
    """Returns one table per (section, task), in order of first appearance."""
    tables: dict[tuple[Section, str], Table] = {}
    for figure in figures:
        key = (figure.section, figure.task)
        table = tables.setdefault(key, Table(figure.section, figure.task, [], [], {}))
        if figure.method not in table.methods:
            table.methods.append(figure.method)
        if figure.metric not in table.metrics:
            table.metrics.append(figure.metric)
        table.cells[figure.method, figure.metric] = figure
    return list(tables.values())


def is_ranked(column: Sequence[Figure]) -> bool:
    """Returns whether the values of a column may be called better or worse.

    True for the sections semantic and preference with at least two intervals. A number of a whole
    (coverage, effective rank) has no interval, and more of it is not always better.
    """
    with_interval = [figure for figure in column if interval(figure)]
    return len(with_interval) > 1 and with_interval[0].section in ("semantic", "preference")


def rank_methods(column: Sequence[Figure]) -> dict[str, Standing]:
    """Returns {method: "best" or "level"} of one metric; empty where `is_ranked` is False.

    "best" has the best measured value, which is no claim; equal values are all best. "level": the
    interval overlaps that of the best.
    """
    if not is_ranked(column):
        return {}
    sign = 1.0 if column[0].higher_is_better else -1.0
    candidates = [figure for figure in column if interval(figure)]
    best = max(candidates, key=lambda figure: sign * figure.value)
    standings: dict[str, Standing] = {}
    for figure in candidates:
        if figure.value == best.value:
            standings[figure.method] = "best"
        elif figure.low <= best.high and figure.high >= best.low:
            standings[figure.method] = "level"
    return standings


NOT_MEASURED = "-"
SIMULATED = (
    "SIMULATED listeners: no real person listened. The figures of taste show only the taste that "
    "the simulation planted."
)
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff\ufffe\uffff]"
)


def strip_control_chars(text: str) -> str:
    """Replaces control characters, lone surrogates and direction marks by spaces.

    >>> strip_control_chars("two\\nlines")
    'two lines'
    """
    return _UNPRINTABLE.sub(" ", text)


def number(value: float, metric: str) -> str:
    """Formats `value` with three decimals; with one for ranks and from 100 on; a dash for nan."""
    if isnan(value):
        return NOT_MEASURED
    n_decimals = 1 if metric == "median rank" or abs(value) >= 100 else 3
    return f"{value + 0.0:.{n_decimals}f}"  # + 0.0 turns -0.0 into 0.0


def interval(figure: Figure | Difference) -> str:
    """Formats `[0.380, 0.441]` with the decimals of the value; "" where there is no interval."""
    if isnan(figure.value) or isnan(figure.low) or isnan(figure.high):
        return ""
    decimals = len(number(figure.value, figure.metric).partition(".")[2])
    return f"[{figure.low + 0.0:.{decimals}f}, {figure.high + 0.0:.{decimals}f}]"


def spread(figure: Figure | Difference) -> str:
    """Formats `± 0.012`, the standard deviation over seeds; "" with one seed."""
    if isinstance(figure, Difference) or isnan(figure.value) or isnan(figure.seed_sd):
        return ""
    return f"± {number(figure.seed_sd, figure.metric)}"


def methods_of(tables: Sequence[Table]) -> list[str]:
    """Returns the methods of all tables, in order of first appearance."""
    return list(dict.fromkeys(chain.from_iterable(table.methods for table in tables)))


def format_value(figure: Figure | Difference) -> str:
    """Formats `0.412 [0.380, 0.441] ± 0.012`: value, 95 % interval, spread over seeds."""
    texts = [number(figure.value, figure.metric), interval(figure), spread(figure)]
    return " ".join(filter(None, texts))


def format_p(p: float) -> str:
    """Formats a p value with three decimals; a dash where no test was made."""
    if isnan(p):
        return NOT_MEASURED
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def verdict(difference: Difference) -> str:
    """Returns the claim about a difference that its interval and corrected test allow.

    "better" and "worse" need an interval without 0 and, where it was tested, a Holm p below
    `SIGNIFICANT`; otherwise the verdict adds "not tested".
    """
    if isnan(difference.value) or isnan(difference.low) or isnan(difference.high):
        return "not known"
    tested = replace(difference, p_holm=0.0) if isnan(difference.p_holm) else difference
    if not (tested.is_better or tested.is_worse):
        return "no clear change"
    direction = "better" if tested.is_better else "worse"
    return f"{direction}, not tested" if isnan(difference.p_holm) else direction


def format_count(figures: Sequence[Figure]) -> str:
    """Formats the number of queries or rows behind `figures`: `312`, `290 to 312`."""
    counts = sorted({figure.n for figure in figures})
    if len(counts) < 2:
        return f"{sum(counts):,}"
    return f"{counts[0]:,} to {counts[-1]:,}"


def format_seeds(about: EvaluationInfo) -> str:
    """Formats `seed 7`, or `mean of 3 seeds (1, 2, 3)`."""
    seeds = ", ".join(map(str, about.seeds)) or "not stated"
    if len(about.seeds) < 2:
        return f"seed {seeds}"
    return f"mean of {len(about.seeds)} seeds ({seeds})"


def background(about: EvaluationInfo) -> list[tuple[str, str]]:
    """Returns data, split, seeds and command as (name, text); `about.runs` has the runs."""
    mark = "SIMULATED " if about.is_simulated else ""
    listeners = f"{about.n_listeners:,} {mark}listeners"
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


@cache
def report_template(name: str, **filters: Callable[[str], str]) -> Template:
    """Returns a template of the report; the public names of this module are its globals."""
    environment = Environment(
        loader=PackageLoader("ponticello.evaluate", "report"),
        autoescape=name.endswith(".html"),
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters.update(filters)
    public = {key: value for key, value in globals().items() if not key.startswith("_")}
    return environment.get_template(name, globals=public)
