"""The evaluation as files: JSON and CSV of every number, and a Markdown table a person reads."""

import csv
import json
from dataclasses import asdict, fields
from itertools import groupby
from pathlib import Path

from ponticello.evaluate.figures import Evaluation, Figure
from ponticello.library import replacing


def write_report(folder: Path, evaluation: Evaluation) -> list[Path]:
    """Writes evaluation.json, evaluation.csv and evaluation.md to `folder`; gives their paths."""
    paths = [folder / f"evaluation.{suffix}" for suffix in ("json", "csv", "md")]
    with replacing(paths[0]) as temporary:
        temporary.write_text(json.dumps(as_record(evaluation), indent=1) + "\n", encoding="utf-8")
    with replacing(paths[1]) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [name.name for name in fields(Figure)])
        writer.writeheader()
        writer.writerows(asdict(figure) for figure in (*evaluation.figures, *evaluation.differences))
    with replacing(paths[2]) as temporary:
        temporary.write_text(as_markdown(evaluation), encoding="utf-8")
    return paths


def as_record(evaluation: Evaluation) -> dict[str, object]:
    """The evaluation as plain lists and dicts; a figure that could not be measured is null."""
    return {
        "figures": [_plain(figure) for figure in evaluation.figures],
        "differences": [_plain(figure) for figure in evaluation.differences],
        "notes": evaluation.notes,
    }


def as_markdown(evaluation: Evaluation) -> str:
    """One table a task: methods down, metrics across, each with its interval."""
    lines = ["# Meaning and taste", "", *(f"- {note}" for note in evaluation.notes), ""]
    for (side, task), group in groupby(evaluation.figures, key=lambda figure: (figure.side, figure.task)):
        lines += [f"## {side}: {task}", "", *_table(list(group)), ""]
    if evaluation.differences:
        lines += [
            "## Stage two minus stage one (paired)",
            "",
            "| side | task | metric | change | |",
            "|---|---|---|---|---|",
        ]
        lines += [f"| {d.side} | {d.task} | {d.metric} | {shown(d)} | {verdict(d)} |" for d in evaluation.differences]
    return "\n".join(lines) + "\n"


def shown(figure: Figure) -> str:
    """`0.412 [0.380, 0.441]`, or a dash for what was not measured."""
    if figure.value != figure.value:
        return "-"
    digits = 1 if figure.metric == "median rank" or abs(figure.value) >= 100 else 3
    interval = "" if figure.low != figure.low else f" [{figure.low:.{digits}f}, {figure.high:.{digits}f}]"
    return f"{figure.value:.{digits}f}{interval}"


def verdict(difference: Figure) -> str:
    """What the interval of a difference allows to say."""
    if difference.low != difference.low:
        return "not known"
    if difference.low > 0:
        return "better"
    return "worse" if difference.high < 0 else "no clear change"


def _table(figures: list[Figure]) -> list[str]:
    metrics = list(dict.fromkeys(figure.metric for figure in figures))
    cells = {(figure.method, figure.metric): shown(figure) for figure in figures}
    lines = ["| method | " + " | ".join(metrics) + " |", "|---" * (len(metrics) + 1) + "|"]
    for method in dict.fromkeys(figure.method for figure in figures):
        lines.append(f"| {method} | " + " | ".join(cells.get((method, metric), "-") for metric in metrics) + " |")
    return lines


def _plain(figure: Figure) -> dict[str, object]:
    return {name: None if value != value else value for name, value in asdict(figure).items()}
