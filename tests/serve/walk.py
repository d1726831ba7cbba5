"""Every route of an application: what is described, what is not, and the explorer's files."""

from typing import Any

from fastapi import FastAPI


def routes(app: FastAPI) -> list[tuple[str, str]]:
    """(method, path) of each; a folder of files stands there as one of them, index.html."""
    return sorted(_walked(app.routes, ""))


def _walked(places: Any, prefix: str) -> set[tuple[str, str]]:
    found: set[tuple[str, str]] = set()
    for place in places:
        path = prefix + getattr(place, "path", "").replace(":id}", "}")  # as the description has it
        inner = getattr(getattr(place, "original_router", place), "routes", None)
        if getattr(place, "methods", None):
            found |= {(method, prefix + place.path_format) for method in place.methods}
        elif inner:
            found |= _walked(inner, path)
        else:
            found.add(("GET", f"{path}/index.html"))
    return found
