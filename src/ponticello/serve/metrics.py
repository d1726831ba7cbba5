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
        self.registry = CollectorRegistry()
        options: dict[str, Any] = {"namespace": "ponticello", "registry": self.registry}
        route = ("method", "route")
        self.requests = Counter("requests", "Requests answered.", (*route, "status"), **options)
        self.seconds = Histogram(
            "request_seconds",
            "Seconds to the end of an answer.",
            route,
            buckets=_SECONDS,
            **options,
        )
        self.under_way = Gauge("requests_under_way", "Requests being answered.", **options)
        self.failures = Counter("failures", "Errors of the service.", **options)
        self.index = Gauge("index_info", "1 for the index in use.", ("generation",), **options)
        self.n_tracks = Gauge("tracks", "Tracks of the catalogue.", **options)
        self.n_indexed = Gauge("tracks_indexed", "Tracks of the index.", **options)
        self.swaps = Counter("swaps", "New indexes and catalogues in use.", **options)
        self.swap_failures = Counter("swap_failures", "Changes that are unreadable.", **options)
        self.uploads_under_way = Gauge("uploads_under_way", "Uploads under way.", **options)
        self.uploads_refused = Counter(
            "uploads_refused", "Uploads refused, by the code of the error.", ("code",), **options
        )


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
        # The template of the route, such as /api/tracks/{track_id}; never the path itself.
        route = getattr(scope.get("route"), "path_format", None) or NO_ROUTE
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self.metrics.requests.labels(method, route, str(status)).inc()
        self.metrics.seconds.labels(method, route).observe(seconds)
        if status >= 500 and status != 503:
            self.metrics.failures.inc()


@router.get("/metrics", response_class=Response, summary="Numbers for Prometheus")
def metrics(request: Request) -> Response:
    """Requests by route and status, latencies, the index in use, uploads, swaps and failures."""
    registry = request.app.state.metrics.registry
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
