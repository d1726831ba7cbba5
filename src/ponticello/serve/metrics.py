"""GET /metrics: counters for Prometheus. Labels name routes and reasons, never a user's input."""

import time
from typing import Any

from fastapi import APIRouter, Request
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_METHODS = ("GET", "HEAD", "POST")
NO_ROUTE = "(none)"
router = APIRouter(tags=["health"])


class Metrics:
    """The counters of one app, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        labels = ("method", "route", "status")
        self.requests = Counter(
            "ponticello_requests", "Requests answered.", labels, registry=registry
        )
        self.seconds = Histogram(
            "ponticello_request_seconds",
            "Seconds from a request to the end of its answer.",
            ("method", "route"),
            registry=registry,
            buckets=_SECONDS,
        )
        self.under_way = Gauge(
            "ponticello_requests_under_way", "Requests being answered.", registry=registry
        )
        self.failures = Counter(
            "ponticello_failures",
            "Requests that ended in an error of the service.",
            registry=registry,
        )
        self.index = Gauge(
            "ponticello_index_info",
            "1 for the index generation in use.",
            ("generation",),
            registry=registry,
        )
        self.n_tracks = Gauge("ponticello_tracks", "Tracks of the catalogue.", registry=registry)
        self.n_indexed = Gauge(
            "ponticello_tracks_indexed", "Tracks of the index.", registry=registry
        )
        self.swaps = Counter(
            "ponticello_swaps", "Times a new index or catalogue came into use.", registry=registry
        )
        self.swap_failures = Counter(
            "ponticello_swap_failures",
            "Times a new one could not be read and the last stayed.",
            registry=registry,
        )
        self.uploads_under_way = Gauge(
            "ponticello_uploads_under_way", "Uploads under way.", registry=registry
        )
        self.uploads_refused = Counter(
            "ponticello_uploads_refused",
            "Uploads refused, by the code of the error.",
            ("code",),
            registry=registry,
        )

    def in_use(self, generation: str | None, n_tracks: int, n_indexed: int) -> None:
        """Sets the generation in use. generation: None while there is no index."""
        self.index.clear()
        if generation is not None:
            self.index.labels(generation).set(1)
        self.n_tracks.set(n_tracks)
        self.n_indexed.set(n_indexed)

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self.registry)


class Measured:
    """The application with its requests counted (ASGI)."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes on, and notes how it went."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status = 500

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        started = time.perf_counter()
        with self.metrics.under_way.track_inprogress():
            try:
                await self.app(scope, receive, noted)
            finally:
                self._note(scope, status, time.perf_counter() - started)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        route = route_of(scope)
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self.metrics.requests.labels(method, route, str(status)).inc()
        self.metrics.seconds.labels(method, route).observe(seconds)
        if status >= 500 and status != 503:
            self.metrics.failures.inc()


def route_of(scope: Scope) -> str:
    """The template of the route that answered, such as /api/tracks/{track_id}; never the path
    itself.
    """
    route: Any = scope.get("route")
    return getattr(route, "path_format", None) or NO_ROUTE


@router.get("/metrics", response_class=Response, summary="Numbers for Prometheus")
def metrics(request: Request) -> Response:
    """Requests by route and status, latencies, the index in use, uploads, swaps and failures."""
    service_metrics: Metrics = request.app.state.metrics
    return Response(service_metrics.text(), media_type=CONTENT_TYPE_LATEST)
