"""Fair timings: the cases of one comparison in turn, A B A B ..., and ratios run by run.

A machine's speed drifts, so only what was timed next to each other is compared.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from time import perf_counter


@dataclass(frozen=True)
class Timed:
    """Seconds of each case, a number a run. The same run of two cases was timed side by side."""

    seconds: Mapping[str, list[float]]

    def median(self, case: str) -> float:
        """s."""
        return median(self.seconds[case])

    def ratio(self, case: str, of: str) -> tuple[float, float, float]:
        """How many times as long as `of` a case takes: least, median and most over the runs."""
        ratios = sorted(
            one / other for one, other in zip(self.seconds[case], self.seconds[of], strict=True)
        )
        return ratios[0], median(ratios), ratios[-1]


def in_turn(cases: Mapping[str, Callable[[], object]], runs: int) -> Timed:
    """Each case once unmeasured, then all in turn, `runs` times."""
    for case in cases.values():
        case()
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(runs):
        for name, case in cases.items():
            start = perf_counter()
            case()
            seconds[name].append(perf_counter() - start)
    return Timed(seconds)


def said(ratio: tuple[float, float, float]) -> str:
    """A ratio as a cell: 2.31 [2.20, 2.40]."""
    least, middle, most = ratio
    return f"{middle:.2f} [{least:.2f}, {most:.2f}]"
