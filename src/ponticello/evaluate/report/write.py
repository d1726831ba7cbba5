"""Writes every file of a report: a page to read, tables for papers and programs, plots, a card."""

import json
from collections.abc import Sequence
from pathlib import Path

from ponticello.evaluate.report.data import as_record, write_figures, write_queries
from ponticello.evaluate.report.html import as_page
from ponticello.evaluate.report.latex import as_latex
from ponticello.evaluate.report.markdown import as_markdown, model_card
from ponticello.evaluate.report.plots import Plots, plots_of
from ponticello.evaluate.results import Measurements, Summary
from ponticello.storage.files import atomic_write


def write_report(folder: Path, summary: Summary, evaluations: Sequence[Measurements]) -> list[Path]:
    """Writes all files of the report to `folder`, replacing an earlier one; returns their paths.

    The page comes first. The same input gives the same bytes. evaluations: what `summary` was
    computed from, one per seed in the order of `summary.about.seeds`.
    """
    plots = plots_of(summary)
    texts = {
        "index.html": as_page(summary, plots),
        "evaluation.md": as_markdown(summary),
        "evaluation.json": json.dumps(as_record(summary), indent=1, allow_nan=False) + "\n",
        "tables.tex": as_latex(summary),
        "model-card.md": model_card(summary),
    }
    for name, text in texts.items():
        with atomic_write(folder / name) as temporary:
            temporary.write_bytes(text.encode("utf-8"))
    with atomic_write(folder / "figures.csv") as temporary:
        write_figures(temporary, summary.figures)
    with atomic_write(folder / "queries.parquet") as temporary:
        write_queries(temporary, summary.about.seeds, evaluations)
    paths = [folder / name for name in texts]
    paths += [folder / "figures.csv", folder / "queries.parquet"]
    paths += _write_plots(folder / "plots", plots)
    return paths


def _write_plots(folder: Path, plots: Plots) -> list[Path]:
    """Writes the plots to a new folder, so that no plot of an earlier report remains."""
    svgs = []
    pngs = []
    with atomic_write(folder) as temporary:
        temporary.mkdir()
        for plot in plots.all:
            (temporary / f"{plot.name}.svg").write_bytes(plot.svg)
            (temporary / f"{plot.name}.png").write_bytes(plot.png)
            svgs.append(folder / f"{plot.name}.svg")
            pngs.append(folder / f"{plot.name}.png")
    return svgs + pngs
