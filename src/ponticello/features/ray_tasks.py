"""Runs tasks on a Ray cluster, in workers that keep what they have loaded.

Ray is an extra. Its processes exchange pickles, so a cluster must be reachable by trusted users
only. No pickle is stored.
"""

import logging
import os
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ponticello.errors import ConfigError, PonticelloError

Task = Callable[[int], int]


def uses_ray(engine: str) -> bool:
    """Returns whether `engine` is "ray" rather than "here", this machine.

    Raises ConfigError for other names, and if Ray is not installed.
    """
    if engine not in ("here", "ray"):
        raise ConfigError(f"engine {engine!r} must be here or ray")
    if engine == "here":
        return False
    try:
        import ray.data  # noqa: F401
    except ImportError:
        raise ConfigError("engine ray needs an extra; run: pip install 'ponticello[ray]'") from None
    return True


def run_on_ray(load_task: Callable[[], Task], tasks: Sequence[int]) -> Iterator[int]:
    """Yields the result of each task as it ends, in any order.

    load_task: called once per worker, returns the function that runs a task; picklable. A worker
        has one core. A task whose worker is lost runs again elsewhere, so it must be repeatable.

    An error in a task is raised here, as PonticelloError, and ends the run. RAY_ADDRESS names the
    cluster; without it, Ray is started on this machine for the time of the run.
    """
    if not tasks:
        return
    with connect_ray() as ray:
        items = [{"task": task} for task in tasks]
        dataset = ray.data.from_items(items, override_num_blocks=len(tasks))
        n_cpus = max(1, int(ray.cluster_resources().get("CPU", 1)))
        pool = ray.data.ActorPoolStrategy(min_size=1, max_size=min(len(tasks), n_cpus))
        results = dataset.map(_Worker, fn_constructor_args=(load_task,), compute=pool, num_cpus=1)
        for row in results.iter_rows():
            if row["error"]:
                raise PonticelloError(row["error"])
            yield int(row["result"])


class _Worker:
    """An actor. It returns errors as results, because Ray retries a task that raises forever."""

    def __init__(self, load_task: Callable[[], Task]) -> None:
        self._load_task = load_task
        self._task: Task | None = None

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        try:
            self._task = self._task or self._load_task()
            return {"result": self._task(int(row["task"])), "error": ""}
        except PonticelloError as error:
            return {"result": 0, "error": str(error)}
        except Exception:
            message = f"a worker failed at task {row['task']}:\n{traceback.format_exc()}"
            return {"result": 0, "error": message}


@contextmanager
def connect_ray() -> Iterator[Any]:
    """Connects to Ray or starts it, as `run_on_ray`; an existing connection is kept open."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # Ray sends usage statistics by default
    # Ray warns at each run about how its own data library starts workers.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import ray
        import ray.data

        was_connected = ray.is_initialized()
        if not was_connected:
            options = {"log_to_driver": False, "logging_level": logging.ERROR}
            if os.environ.get("RAY_ADDRESS"):
                ray.init(**options)
            else:
                ray.init("local", include_dashboard=False, _node_ip_address="127.0.0.1", **options)
        ray.data.DataContext.get_current().enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        try:
            yield ray
        finally:
            if not was_connected:
                ray.shutdown()
