"""Tasks given out by Ray: each result once, workers that keep what they have, and errors that
arrive.
"""

import sys
from collections.abc import Iterator

import pytest

from ponticello.errors import ConfigError, DataError, PonticelloError
from ponticello.features.ray_tasks import Task, connect_ray, run_on_ray, uses_ray


@pytest.fixture(scope="module")
def ray_is_there() -> Iterator[None]:
    """Ray, started once for all that is asked of it here."""
    pytest.importorskip("ray", reason="needs the extra ray")
    with connect_ray():
        yield


def test_engine_that_is_none_is_refused() -> None:
    assert not uses_ray("here")
    with pytest.raises(ConfigError, match="engine 'dask' must be here or ray"):
        uses_ray("dask")


def test_missing_ray_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setitem(sys.modules, "ray.data", None)
    with pytest.raises(ConfigError, match=r"pip install 'ponticello\[ray\]'"):
        uses_ray("ray")


def test_no_task_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert list(run_on_ray(lambda: abs, [])) == []


@pytest.mark.slow
@pytest.mark.usefixtures("ray_is_there")
def test_every_task_is_done_by_workers_that_begin_once() -> None:
    """A worker counts what it has done: with 9 tasks for at most a worker a core, the counts add up
    to more than 9.
    """

    def counting() -> Task:
        done: list[int] = []

        def task(number: int) -> int:
            done.append(number)
            return 100 * number + len(done)

        return task

    found = sorted(run_on_ray(counting, range(9)))
    assert [result // 100 for result in found] == list(range(9))
    assert max(result % 100 for result in found) > 1


@pytest.mark.slow
@pytest.mark.usefixtures("ray_is_there")
def test_error_in_a_worker_is_raised_here() -> None:
    def ours() -> Task:
        def task(number: int) -> int:
            raise DataError(f"row {number}: no such thing")

        return task

    def others() -> Task:
        return lambda number: number // 0

    with pytest.raises(PonticelloError, match="row 3: no such thing"):
        list(run_on_ray(ours, [3]))
    with pytest.raises(
        PonticelloError, match=r"a worker failed at task 0:[\s\S]*ZeroDivisionError"
    ):
        list(run_on_ray(others, [0]))
