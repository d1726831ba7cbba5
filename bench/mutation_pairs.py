"""How many changes to the rules of mining the tests see: one operator, number or branch at a time.

    make mutation-pairs                      # or: python bench/mutation_pairs.py --sample 200 --jobs 2 --json FILE

The rules are queries to DuckDB, whose threads do not outlive a fork, so each change is tried by a pytest of its own
(cosmic-ray), on a copy of the sources a job. There are some 600; `--sample` draws among them with `--seed`, 0 tries
all. A change seen is one that makes a test fail or does not end in time. Prints Markdown and every change not seen.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import TestOutcome, WorkerOutcome, WorkItem, WorkResult

ROOT = Path(__file__).parents[1]
FILES = [f"src/ponticello/data/{name}.py" for name in ("pairs", "caps", "candidates", "evidence")]
TESTS = [f"tests/data/test_{name}.py" for name in ("pairs", "negatives", "engine")]
LIMIT_S = 600  # of one change's tests, which take some 60 s where none fails
PYTEST = ["-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--hypothesis-profile=unshrunk", "--hypothesis-seed=0"]


def copied(root: Path) -> Path:
    """A copy of what the tests need, with the settings of cosmic-ray."""
    for name in ("src", "tests", "bench", "demo"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", root)
    command = " ".join([sys.executable, *PYTEST, *TESTS, "-k", "'not spark'"])
    settings = {"module-path": FILES, "timeout": LIMIT_S, "excluded-modules": [], "test-command": command}
    lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
    text = "\n".join(["[cosmic-ray]", *lines, "[cosmic-ray.distributor]", 'name = "local"'])
    (root / "changes.toml").write_text(text + "\n", encoding="utf-8")
    return root


def drawn(root: Path, sample: int, seed: int, job: int, jobs: int) -> int:
    """Leaves to this job its share of the changes drawn; how many there are in all."""
    subprocess.run(["cosmic-ray", "init", "changes.toml", "changes.sqlite"], cwd=root, check=True)
    with use_db(root / "changes.sqlite", WorkDB.Mode.open) as session:
        items = sorted(session.work_items, key=_place)
        chosen = random.Random(seed).sample(items, min(sample, len(items))) if sample else items
        mine = {item.job_id for item in chosen[job::jobs]}
        for item in items:
            if item.job_id not in mine:
                session.set_result(item.job_id, WorkResult(worker_outcome=WorkerOutcome.SKIPPED))
    return len(items)


def tried(root: Path) -> list[tuple[str, bool, str]]:
    """(file, whether it was seen, the change) of each change tried in `root`."""
    with use_db(root / "changes.sqlite", WorkDB.Mode.open) as session:
        results = dict(session.results)
        return [
            (item.mutations[0].module_path.name, results[item.job_id].test_outcome != TestOutcome.SURVIVED, text)
            for item in sorted(session.work_items, key=_place)
            if item.job_id in results and results[item.job_id].worker_outcome != WorkerOutcome.SKIPPED
            for text in [_changed(results[item.job_id].diff or "")]
        ]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sample", type=int, default=200, help="changes tried; 0: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--json", type=Path, help="every change")
    options = parser.parse_args()
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    with TemporaryDirectory() as temporary:
        roots = [copied(Path(temporary) / str(job)) for job in range(options.jobs)]
        for job, root in enumerate(roots):
            n_all = drawn(root, options.sample, options.seed, job, options.jobs)
        running = [
            subprocess.Popen(["cosmic-ray", "exec", "changes.toml", "changes.sqlite"], cwd=root, env=_env(root))
            for root in roots
        ]
        codes = [process.wait() for process in running]
        if any(codes):
            raise SystemExit("cosmic-ray did not end as it should")
        found = [each for root in roots for each in tried(root)]
    if options.json:
        options.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
    in_all, seen = Counter(name for name, _, _ in found), Counter(name for name, is_seen, _ in found if is_seen)
    print(f"{len(found)} of {n_all} changes, seed {options.seed}\n\n| file | tried | seen by a test |\n|---|---|---|")
    for name in (Path(file).name for file in FILES):
        print(f"| `data/{name}` | {in_all[name]} | {seen[name] / max(in_all[name], 1):.1%} |")
    print(f"| all | {len(found)} | {seen.total() / max(len(found), 1):.1%} |\n")
    print("\n\n".join(f"{name}\n{text}" for name, is_seen, text in found if not is_seen))


def _place(item: WorkItem) -> tuple[str, str, int]:
    change = item.mutations[0]
    return str(change.module_path), change.operator_name, change.occurrence


def _changed(diff: str) -> str:
    """The lines of a diff that differ."""
    return "\n".join(line for line in diff.splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---"))


def _env(root: Path) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(str(root / name) for name in ("src", "tests", "bench")),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
        "POLARS_MAX_THREADS": "1",
    }


if __name__ == "__main__":
    main()
