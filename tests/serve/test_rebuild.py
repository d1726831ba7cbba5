"""An index rebuilt under a service that is being asked: no error, no mixture, and then the new one
answers.
"""

import json
import threading
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass, field

import pytest

from ponticello.library import Library
from ponticello.serve import snapshot as live
from tests.serve.served import make_app, running

PATHS = (
    "/api/search?text=low&k=5",
    "/api/tracks/track-0007/similar?k=5",
    "/api/recommend/{user}?k=5",
    "/api/path?from=track-0007&to=track-0020",
    "/api/library",
    "/rest/getSonicSimilarTracks?id=track-0007",
)
MOST_S = 60.0  # until all is over, on a busy machine


@dataclass
class Asking:
    """What threads that ask have seen."""

    address: str
    paths: list[str]
    answers: Counter[tuple[str | None, float | None]] = field(
        default_factory=Counter
    )  # (generation, blend)
    errors: list[str] = field(default_factory=list)
    is_over: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def ask(self) -> None:
        """Asks until it is over."""
        while not self.is_over.is_set():
            for path in self.paths:
                try:
                    with urllib.request.urlopen(self.address + path, timeout=30) as answer:
                        found = json.load(answer)
                except (OSError, ValueError) as error:
                    with self.lock:
                        self.errors.append(f"{path}: {error!r}")
                    continue
                with self.lock:
                    self.answers[found.get("generation"), found.get("blend")] += 1

    def n_of(self, generation: str) -> int:
        """How many answers came from a generation."""
        with self.lock:
            return sum(n for (found, _), n in self.answers.items() if found == generation)


def _until(is_so: threading.Event, asking: Asking, generation: str, n: int) -> None:
    """Waits for `n` more answers of a generation."""
    enough = asking.n_of(generation) + n
    end = time.monotonic() + MOST_S
    while asking.n_of(generation) < enough:
        assert time.monotonic() < end, (
            f"{generation} did not answer {n} times: {asking.answers}, {asking.errors[:3]}"
        )
        is_so.wait(0.02)


@pytest.mark.slow
def test_a_rebuild_swaps_in_while_many_ask(
    trained_copy: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From an index with two spaces, where the dial stands at 0.5, to one with meaning alone, where
    it stands at 0.
    """
    monkeypatch.setattr(live, "WATCH_S", 0.05)
    user = trained_copy.listening.users[0]
    before = (trained_copy.folder.index / "CURRENT").read_text().strip()
    with running(make_app(trained_copy.folder.root)) as address:
        asking = Asking(address, [path.replace("{user}", user) for path in PATHS])
        threads = [threading.Thread(target=asking.ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            _until(asking.is_over, asking, before, 20)
            generation = trained_copy.embed("semantic", with_preference=False).generation.name
            _until(asking.is_over, asking, generation, 20)
            again = trained_copy.embed("semantic", "preference").generation.name
            _until(asking.is_over, asking, again, 20)
        finally:
            asking.is_over.set()
            for thread in threads:
                thread.join(MOST_S)
    assert asking.errors == []
    assert before == again != generation
    seen = {found for found in asking.answers if found[0] is not None}
    assert seen == {(before, 0.5), (generation, 0.0)}, "an answer is all of one generation"
