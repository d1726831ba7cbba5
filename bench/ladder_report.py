"""What the data ladder says: its rungs as records, as tables, and as a picture of gains over the
front end's own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from ponticello.metrics.bootstrap import Interval, bootstrap_mean

ROUNDS = 1000
# What is shown of which vectors, by its name in `measured.ResolvedQuery`. Tags are read off the
# audio vectors of the kept model
# and off the served ones, which may hold the text and with it the tags.
SHOWN = (
    ("taste, NDCG@10", "served", "cold NDCG@10"),
    ("taste, AUC", "served", "cold AUC"),
    ("tags, probe AUC", "audio", "machine_tags probe"),
    ("tags, served vectors", "served", "machine_tags probe"),
    ("tags, neighbours", "audio", "same machine_tags"),
    ("neighbours, served", "served", "same machine_tags"),
    ("text to audio, R@10", "audio", "text R@10"),
)
OF_TRACKS = (
    "same machine_tags",
    "text R@10",
)  # whose queries are test tracks, those of one artist drawn together
PANELS = (
    ("Taste: new tracks for a listener", "gain in NDCG@10", SHOWN[0]),
    ("Meaning: tags read off the vectors", "gain in ROC-AUC", SHOWN[2]),
    ("Meaning: a text finds its track", "gain in R@10", SHOWN[6]),
)
COLOURS = ("#d9a400", "#d1495b", "#2a7f9e", "#22223b")
MARKS = "osD^"
LEAST_REACH = 0.03  # of a panel, up and down: a flat line looks flat
START = "start"
Measured = dict[str, np.ndarray]


@dataclass(frozen=True)
class Cell:
    """One rung with one seed.

    alpha, vector: what is served, said: why. measured: {"audio", "served"}: of the kept model.
    start: the front end's own vectors, on the axes of the tower; others: what else could be started
    from, by name. clusters: of test tracks.
    """

    n_tracks: int
    n_listeners: int
    seed: int
    n_pairs: int
    alpha: float
    vector: str
    said: str
    measured: dict[str, Measured]
    start: Measured
    others: dict[str, Measured]
    clusters: list[str]

    def record(self) -> dict[str, Any]:
        """The same in what JSON knows."""
        kinds, others = (
            {name: _listed(found) for name, found in own.items()}
            for own in (self.measured, self.others)
        )
        return {**self.__dict__, "measured": kinds, "start": _listed(self.start), "others": others}

    @classmethod
    def of(cls, record: dict[str, Any]) -> "Cell":
        """What `record` gave."""
        kinds, others = (
            {name: _arrays(found) for name, found in record[own].items()}
            for own in ("measured", "others")
        )
        return cls(
            **{**record, "measured": kinds, "start": _arrays(record["start"]), "others": others}
        )

    def beside(self, name: str) -> Measured:
        """What is compared with: "start", or one of `others`."""
        return self.start if name == START else self.others[name]


def gain(cells: Sequence[Cell], kind: str, metric: str, against: str = START) -> Interval:
    """The mean of what is served less the front end's own over all seeds' queries of one rung,
    paired, with interval.

    kind: of vectors, a key of `measured`, or "start" for where the rung started. against: as in
    `Cell.beside`. Nans where nothing is measured.
    """
    gaps, clusters = [], []
    for cell in cells:
        own = (cell.start if kind == START else cell.measured[kind]).get(metric)
        other = cell.beside(against).get(metric)
        if own is None or other is None:
            continue
        gaps.append(own - other)
        names = cell.clusters if metric in OF_TRACKS else range(len(own))
        clusters += [f"{cell.seed} {name}" for name in names]
    if not gaps:
        return Interval(float("nan"), float("nan"), float("nan"))
    numbers = np.unique(clusters, return_inverse=True)[1]
    return bootstrap_mean(np.concatenate(gaps), numbers, ROUNDS, 0)


def falls_below(found: Interval) -> bool:
    """Whether a gain is a loss that its interval does not explain."""
    return found.high < 0


def rungs(cells: Sequence[Cell]) -> dict[tuple[int, int], list[Cell]]:
    """The cells of each (tracks, listeners), in order."""
    names = sorted({(cell.n_tracks, cell.n_listeners) for cell in cells})
    return {
        name: [cell for cell in cells if (cell.n_tracks, cell.n_listeners) == name]
        for name in names
    }


def table(cells: Sequence[Cell]) -> str:
    """Markdown: the gain of what is served over the front end's own on every rung; then where the
    rungs started.
    """
    lines = [
        "| tracks | listeners | pairs | served | " + " | ".join(name for name, _, _ in SHOWN) + " |"
    ]
    lines.append("|---" * (len(SHOWN) + 4) + "|")
    for (n_tracks, n_listeners), own in rungs(cells).items():
        gains = [_cell(gain(own, kind, metric)) for _, kind, metric in SHOWN]
        kept = ", ".join(f"{cell.alpha:g} {cell.vector}" if cell.alpha else START for cell in own)
        n_pairs = f"{np.mean([cell.n_pairs for cell in own]):,.0f}"
        lines.append(
            f"| {n_tracks:,} | {n_listeners:,} | {n_pairs} | {kept} | " + " | ".join(gains) + " |"
        )
    counts = [f"Minus {name}: {_n_below(cells, name)}." for name in (START, *cells[0].others)]
    return "\n\n".join(["\n".join(lines), "\n".join(counts), _starts(cells)])


def _n_below(cells: Sequence[Cell], against: str) -> str:
    """How many figures of all rungs are below what they are compared with, and which."""
    found = {
        f"{name} at {n_tracks:,} x {n_listeners:,}": gain(own, kind, metric, against)
        for (n_tracks, n_listeners), own in rungs(cells).items()
        for name, kind, metric in SHOWN
    }
    measured = {name: one for name, one in found.items() if not np.isnan(one.mean)}
    below = [name for name, one in measured.items() if falls_below(one)]
    named = f" ({'; '.join(below)})" if below else ""
    return f"{len(below)} of {len(measured)} figures are below it by more than the interval{named}"


def drawn(cells: Sequence[Cell], path: Path) -> None:
    """Writes the picture: gains over the front end's own vectors by listeners, a line for each
    number of tracks.
    """
    matplotlib.use("Agg")
    from matplotlib import pyplot

    style: Any = {
        "svg.hashsalt": "ladder",
        "svg.fonttype": "none",
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    with matplotlib.rc_context(style):
        figure, axes = pyplot.subplots(1, len(PANELS), figsize=(11, 3.7), layout="constrained")
        for axis, (title, label, (_, kind, metric)) in zip(axes, PANELS, strict=True):
            _draw_panel(axis, cells, kind, metric)
            axis.set(title=title, ylabel=label, xlabel="simulated listeners learned from")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="outside lower center", ncols=len(COLOURS) + 1, frameon=False
        )
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=110)
        pyplot.close(figure)


def _draw_panel(axis: Any, cells: Sequence[Cell], kind: str, metric: str) -> None:
    from matplotlib.ticker import NullLocator

    axis.axhline(0, color="#666", linewidth=0.9, label="the front end's own vectors")
    sizes = sorted({cell.n_tracks for cell in cells})
    for number, n_tracks in enumerate(sizes):
        found = {
            n_listeners: gain(own, kind, metric)
            for (own_tracks, n_listeners), own in rungs(cells).items()
            if own_tracks == n_tracks
        }
        # Beside each other rather than on each other, so that every interval is seen.
        places = [n_listeners * 1.09 ** (number - (len(sizes) - 1) / 2) for n_listeners in found]
        means = np.array([one.mean for one in found.values()])
        ends = np.array([[one.mean - one.low, one.high - one.mean] for one in found.values()]).T
        look = {
            "color": COLOURS[number % len(COLOURS)],
            "marker": MARKS[number % len(MARKS)],
            "markersize": 3.5,
        }
        bars = {"linewidth": 1.3, "elinewidth": 0.9, "capsize": 2}
        axis.errorbar(
            places, means, np.nan_to_num(ends), label=f"{n_tracks:,} tracks", **look, **bars
        )
    ticks = sorted({cell.n_listeners for cell in cells})
    axis.set_xscale("log")
    axis.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axis.xaxis.set_minor_locator(NullLocator())
    low, high = axis.get_ylim()
    axis.set_ylim(min(low, -LEAST_REACH), max(high, LEAST_REACH))
    axis.grid(axis="y", color="#ddd", linewidth=0.6)
    axis.set_axisbelow(True)


def _starts(cells: Sequence[Cell]) -> str:
    """By number of tracks, the figures of where all its rungs start, and what those are more than
    other beginnings.
    """
    metrics = list(dict.fromkeys(metric for _, _, metric in SHOWN))
    lines = ["| tracks | | " + " | ".join(metrics) + " |", "|---" * (len(metrics) + 2) + "|"]
    for n_tracks in sorted({cell.n_tracks for cell in cells}):
        own = list({cell.seed: cell for cell in cells if cell.n_tracks == n_tracks}.values())
        values = [
            [cell.start[metric] for cell in own if metric in cell.start] for metric in metrics
        ]
        means = [f"{np.nanmean(np.concatenate(found)):.3f}" if found else "" for found in values]
        lines.append(f"| {n_tracks:,} | {START} | " + " | ".join(means) + " |")
        for name in own[0].others:
            gains = [_cell(gain(own, START, metric, name)) for metric in metrics]
            lines.append(f"| {n_tracks:,} | {START} minus {name} | " + " | ".join(gains) + " |")
    return "\n".join(lines)


def _cell(found: Interval) -> str:
    if np.isnan(found.mean):
        return ""
    if found.mean == found.low == found.high == 0:
        return "0"
    text = f"{found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"
    return f"**{text}**" if falls_below(found) else text


def _listed(found: Measured) -> dict[str, list[float]]:
    return {name: np.round(values, 6).tolist() for name, values in found.items()}


def _arrays(found: dict[str, list[float]]) -> Measured:
    return {name: np.array(values, dtype=np.float64) for name, values in found.items()}
