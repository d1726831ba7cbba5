"""Writes the report: a page to read, tables for papers and machines, plots, and the model's card."""

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from ponticello.errors import DataError
from ponticello.evaluate.report.data import as_cells, as_frame, as_record, write_queries
from ponticello.evaluate.report.html import as_page
from ponticello.evaluate.report.latex import as_latex
from ponticello.evaluate.report.markdown import as_markdown, model_card
from ponticello.evaluate.report.plots import Plots, plots_of
from ponticello.evaluate.results import Measurements, Summary
from ponticello.storage.files import atomic_write


def write_report(folder: Path, summary: Summary, evaluations: Sequence[Measurements]) -> list[Path]:
    """Writes all files of the report to `folder`, replacing an earlier one; gives their paths, the
    page first.

    evaluations: what `summary` was drawn from, one a seed in the order of `summary.about.seeds`;
    DataError for another
        number of them.
    The same input gives the same bytes.
    """
    seeds = summary.about.seeds
    if len(evaluations) != len(seeds):
        raise DataError(
            f"a report needs one evaluation a seed; found {len(evaluations)} for {len(seeds)} seeds"
        )
    plots = plots_of(summary)
    texts = {
        "index.html": as_page(summary, plots),
        "evaluation.md": as_markdown(summary),
        "evaluation.json": json.dumps(as_record(summary), indent=1, allow_nan=False) + "\n",
        "tables.tex": as_latex(summary),
        "model-card.md": model_card(summary),
    }
    writers: dict[str, Callable[[Path], object]] = {
        **{name: partial(_write_text, text=text) for name, text in texts.items()},
        "figures.csv": as_cells(as_frame(summary.figures)).write_csv,
        "queries.parquet": partial(write_queries, seeds=seeds, evaluations=evaluations),
    }
    for name, write in writers.items():
        with atomic_write(folder / name) as temporary:
            write(temporary)
    return [*(folder / name for name in writers), *_write_plots(folder / "plots", plots)]


def _write_text(path: Path, text: str) -> None:
    path.write_bytes(text.encode("utf-8"))


def _write_plots(folder: Path, plots: Plots) -> list[Path]:
    """The folder is replaced as a whole, so that no plot of an earlier report stays."""
    contents = {f"{plot.name}.svg": plot.drawing.svg for plot in plots.all}
    contents |= {f"{plot.name}.png": plot.drawing.png for plot in plots.all}
    with atomic_write(folder) as temporary:
        temporary.mkdir()
        for name, content in contents.items():
            (temporary / name).write_bytes(content)
    return [folder / name for name in contents]
