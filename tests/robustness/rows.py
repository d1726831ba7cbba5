"""What a row of the suite is, and what comes out of it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path


class NotPermitted(Exception):
    """The machine does not allow what a row needs, such as a mount; the row says so and counts no
    try.
    """


class Broken(AssertionError):
    """A promise that did not hold; its message says what was seen."""


@dataclass
class Outcome:
    """Tries, the failures among them in words, and what was measured on the way."""

    tries: int = 0
    failures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @contextmanager
    def counted(self, what: str) -> Iterator[None]:
        """One try, named `what`: a failure if a promise is found broken within."""
        self.tries += 1
        try:
            yield
        except Broken as broken:
            self.failures.append(f"{what}: {broken}")


@dataclass(frozen=True)
class Trial:
    """What a row is run with. work: an empty folder of its own."""

    work: Path
    tries: int
    seed: int


@dataclass(frozen=True)
class Row:
    """A claim and how it is tried. tries, fast: how many a full and a fast run make, if not told
    otherwise.
    """

    name: str
    claim: str
    tries: int
    fast: int
    run: Callable[[Trial], Outcome]


def require(holds: bool, otherwise: str) -> None:
    """Broken, with what was seen, unless the promise `holds`."""
    if not holds:
        raise Broken(otherwise)
