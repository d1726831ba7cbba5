"""Every failure as `{code, message}` with a fitting status; what is behind an unforeseen one stays
in the log.
"""

import logging

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import Scope

from ponticello.errors import AudioError, CheckpointError, DataError, LibraryError, PonticelloError

logger = logging.getLogger(__name__)
_BY_STATUS = {
    400: "invalid",
    401: "unauthorized",
    404: "not_found",
    405: "method_not_allowed",
    408: "timeout",
    413: "too_large",
    416: "range_not_satisfiable",
    421: "wrong_host",
    422: "invalid",
    429: "busy",
    503: "not_ready",
}
_MOST_SHOWN = 300  # characters of a message: a client's own input may be in it


class APIError(Exception):
    """An answer that is an error. code: for programs, as docs/api.md lists them."""

    def __init__(
        self, status: int, code: str, message: str, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.headers = status, code, message, headers or {}


def api_error_from(error: PonticelloError) -> APIError:
    """An error of ours as what a client is told."""
    message = " ".join(error.message.split())[:_MOST_SHOWN]
    if isinstance(error, AudioError):
        return APIError(422, "unsupported_audio", message)
    if isinstance(error, DataError):
        return APIError(422, "invalid", message)
    if isinstance(error, CheckpointError):
        return APIError(503, "model_missing", message)
    if isinstance(error, LibraryError):
        return (
            APIError(409, "no_preference", message)
            if error.code == "no_preference"
            else _not_ready(message)
        )
    return APIError(422, "invalid", message)


def _not_ready(message: str) -> APIError:
    return APIError(503, "not_ready", message)


def error_response(failure: APIError) -> JSONResponse:
    """The failure as it goes over the wire."""
    body = {"code": failure.code, "message": failure.message}
    return JSONResponse(body, status_code=failure.status, headers=failure.headers)


def add_error_handlers(app: FastAPI) -> None:
    """Gives the app its one shape of errors."""

    @app.exception_handler(APIError)
    async def ours(_: Request, error: APIError) -> JSONResponse:
        return error_response(error)

    @app.exception_handler(PonticelloError)
    async def library(_: Request, error: PonticelloError) -> JSONResponse:
        return error_response(api_error_from(error))

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part != "body")
        reason = str(first["msg"]).removeprefix("Value error, ")
        text = f"{where}: {reason}" if where else reason
        message = " ".join(text.split())[:_MOST_SHOWN]  # a field's name may hold line breaks
        return error_response(APIError(422, "invalid", message))

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> JSONResponse:
        headers = dict(error.headers or {})
        code = _BY_STATUS.get(error.status_code, "invalid")
        message = "there is no such page" if error.detail == "Not Found" else str(error.detail)
        return error_response(APIError(error.status_code, code, message, headers))


def unexpected_error_response(scope: Scope, error: Exception) -> JSONResponse:
    """What a client is told of an error that nobody expected; the log is told all."""
    logger.error("%s %r failed", scope["method"], scope["path"], exc_info=error)
    return error_response(
        APIError(500, "internal", "something went wrong here; the server's log says what")
    )
