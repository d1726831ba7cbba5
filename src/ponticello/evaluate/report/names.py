"""Names for files and anchors, made of text that may hold anything."""

import re
import unicodedata
from collections.abc import Iterable, Sequence

MAX_LENGTH = 60


def slug(text: str) -> str:
    """Lower-case ASCII letters, digits and single hyphens, at most MAX_LENGTH of them, never none.

    >>> slug("taste next tracks, cold")
    'taste-next-tracks-cold'
    """
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:MAX_LENGTH].rstrip("-") or "task"


def distinct_slugs(texts: Sequence[str], taken: Iterable[str] = ()) -> list[str]:
    """A slug for each text; one that is taken already gets a number.

    >>> distinct_slugs(["a b", "a-b"])
    ['a-b', 'a-b-2']
    """
    used, found = set(taken), []
    for text in texts:
        start = name = slug(text)
        number = 2
        while name in used:
            name, number = f"{start}-{number}", number + 1
        used.add(name)
        found.append(name)
    return found
