"""The same tasks on many machines: Ray gives them out one by one, to workers that keep what they
have loaded.

Ray is an extra, and sends what it calls between its own processes as pickles: who may reach the
cluster may run code on it. Nothing of ours is kept that way.
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
    """Whether `engine` is "ray", not "here", this process and its own; ConfigError for others, or
    without Ray.
    """
    if engine not in ("here", "ray"):
        raise ConfigError(f"engine {engine!r} must be here or ray")
    if engine == "ray":
        try:
            import ray.data  # noqa: F401
        except ImportError:
            raise ConfigError(
                "engine ray needs an extra; run: pip install 'ponticello[ray]'"
            ) from None
    return engine == "ray"


def run_on_ray(begin: Callable[[], Task], tasks: Sequence[int]) -> Iterator[int]:
    """What each task gives, as they end, in any order.

    begin: called once in each worker, gives the function that does a task; it must survive
    pickling. A worker has one
        core. A task whose worker or machine is lost is done again elsewhere, so that doing it twice
        must do no harm.
    An error in a task is raised here, as PonticelloError, and ends the others. RAY_ADDRESS says
    where Ray runs, as for any of its programs; without it, it is started on this machine, for this
    machine alone, and ended afterwards.
    """
    if not tasks:
        return
    with connect_ray() as ray:
        data = ray.data.from_items(
            [{"task": task} for task in tasks], override_num_blocks=len(tasks)
        )
        n_cpus = max(1, int(ray.cluster_resources().get("CPU", 1)))
        pool = ray.data.ActorPoolStrategy(min_size=1, max_size=min(len(tasks), n_cpus))
        done = data.map(_Worker, fn_constructor_args=(begin,), compute=pool, num_cpus=1)
        for row in done.iter_rows():
            if row["error"]:
                raise PonticelloError(row["error"])
            yield int(row["result"])


class _Worker:
    """What Ray keeps in a process of its own. It gives an error as a result: Ray would wait for
    ever on one raised.
    """

    def __init__(self, begin: Callable[[], Task]) -> None:
        self._begin = begin
        self._task: Task | None = None

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        try:
            self._task = self._task or self._begin()
            return {"result": self._task(int(row["task"])), "error": ""}
        except PonticelloError as error:
            return {"result": 0, "error": str(error)}
        except Exception:
            return {
                "result": 0,
                "error": f"a worker failed at part {row['task']}:\n{traceback.format_exc()}",
            }


@contextmanager
def connect_ray() -> Iterator[Any]:
    """Ray, connected or started as `run_on_ray` says; what was connected already stays so."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # else it calls home
    os.environ.setdefault(
        "RAY_BACKEND_LOG_LEVEL", "fatal"
    )  # else each run warns of how Ray Data itself starts workers
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Ray about itself
        import ray
        import ray.data

        was_there = ray.is_initialized()
        if not was_there:
            said = {"log_to_driver": False, "logging_level": logging.ERROR}
            if os.environ.get("RAY_ADDRESS"):
                ray.init(**said)
            else:
                ray.init("local", include_dashboard=False, _node_ip_address="127.0.0.1", **said)
        ray.data.DataContext.get_current().enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        try:
            yield ray
        finally:
            if not was_there:
                ray.shutdown()
