"""How long Ponticello makes one wait before anything is done: `import ponticello` and `ponticello --help`.

python bench/startup.py [--runs 11]

Each run is a fresh interpreter. The runs of all rows alternate, so that other work falls on each alike;
the first round, which fills the file cache, is not counted. The first two rows are floors: Python alone, and the
library the command line is made with.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

COMMANDS = {
    "python alone": ["-c", "pass"],
    "import typer": ["-c", "import typer"],
    "import ponticello": ["-c", "import ponticello"],
    "ponticello --help": ["-m", "ponticello", "--help"],
}
WANTED_S = {"import ponticello": 0.3, "ponticello --help": 0.4}


def seconds_of(arguments: list[str]) -> float:
    """Wall-clock seconds of a fresh interpreter with these arguments."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def medians(n_runs: int, seconds: Callable[[list[str]], float] = seconds_of) -> dict[str, float]:
    """{row: median seconds of `n_runs` alternating runs}, the first round left out."""
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(n_runs + 1):
        for name, arguments in COMMANDS.items():
            times[name].append(seconds(arguments))
    return {name: statistics.median(found[1:]) for name, found in times.items()}


def main() -> None:
    """Prints a line a row, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=11)
    parser.add_argument("--json", action="store_true", dest="as_json")
    options = parser.parse_args()
    found = medians(options.runs)
    if options.as_json:
        print(json.dumps(found, indent=1))
        return
    for name, seconds in found.items():
        wanted = f", wanted {WANTED_S[name]:.1f} s" if name in WANTED_S else ""
        print(f"{name:<18} {seconds:.3f} s{wanted}")


if __name__ == "__main__":
    main()
