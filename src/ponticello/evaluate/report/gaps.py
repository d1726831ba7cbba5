"""The page's part about differences: stage two against stage one, then against every other method, task by task."""

from collections.abc import Iterator, Sequence
from math import isnan

from ponticello.evaluate.figures import SIGNIFICANT, STAGE_ONE, STAGE_TWO, Difference
from ponticello.evaluate.report.markup import details, row, scrolling_table, text
from ponticello.evaluate.report.tasks import minus
from ponticello.evaluate.report.words import interval, number, p_shown, verdict

_SIGNS = {"better": "▲", "worse": "▼"}


def gap_tables(differences: Sequence[Difference]) -> Iterator[str]:
    """The tables of all differences; above 0 is better for the method named first."""
    if not differences:
        return
    yield (
        "<p>Paired by query; above 0 is better. p is of a sign-flip test, Holm p is corrected for all tests of this "
        f"report. “Better” and “worse” need an interval without 0 and a Holm p below {SIGNIFICANT}; what was not "
        "tested says so.</p>"
    )
    between, rivals = [], dict[tuple[str, str], list[Difference]]()
    for difference in differences:
        if (difference.method, difference.against) == (STAGE_TWO, STAGE_ONE):
            between.append(difference)
        else:
            rivals.setdefault((difference.side, difference.task), []).append(difference)
    tested = [difference for difference in between if not isnan(difference.p)]
    others = [difference for difference in between if isnan(difference.p)]
    if between:
        yield "<h3>Stage two minus stage one</h3>"
    if tested:
        yield from _table("Metrics of record, which were tested.", tested, "Stage two minus stage one")
    if others:
        body = _table("Without a test.", others, "Stage two minus stage one in other metrics")
        yield from details(f"Other metrics, not tested: {len(others)}", body)
    if rivals:
        yield "<h3>Against the other methods, in metrics of record</h3>"
    for (side, task), found in rivals.items():
        body = _table("One row a rival.", found, f"Differences on {task}", is_named_by_methods=True)
        yield from details(f"{text(f'{side}: {task}')} {_tally(found)}", body)


def _table(caption: str, found: Sequence[Difference], label: str, is_named_by_methods: bool = False) -> list[str]:
    """One row a difference, named by its task or by its two methods."""
    names = [f"{d.method} minus {d.against}" if is_named_by_methods else f"{d.side}: {d.task}" for d in found]
    rows = (row(text(name), _cells(difference)) for name, difference in zip(names, found, strict=True))
    first = "Methods" if is_named_by_methods else "Task"
    header = [first, "Metric", "Difference", "95&nbsp;% interval", "Queries", "p", "Holm p", "Verdict"]
    return scrolling_table(caption, header, rows, label)


def _cells(difference: Difference) -> Iterator[str]:
    yield f"<td>{text(difference.metric)}</td>"
    for cell in (number(difference.value, difference.metric), interval(difference) or "-"):
        yield f"<td>{minus(cell)}</td>"
    yield f"<td>{difference.n:,}</td>"
    for p in (difference.p, difference.p_holm):
        yield f"<td>{text(minus(p_shown(p)))}</td>"
    said = verdict(difference)
    kind = f" {said}" if said in _SIGNS else ""
    sign = f'<span aria-hidden="true">{_SIGNS[said]}</span> ' if said in _SIGNS else ""
    yield f'<td class="verdict{kind}">{sign}{said}</td>'


def _tally(differences: Sequence[Difference]) -> str:
    """How many rivals are shown to be beaten, and how many are shown to be ahead."""
    said = [verdict(difference) for difference in differences]
    return (
        f'<span class="tally">better than {said.count("better")}, worse than {said.count("worse")} '
        f"of {len(said)}</span>"
    )
