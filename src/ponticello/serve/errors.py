"""Errors as `{code, message}` with an HTTP status."""

import logging
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import Scope

from ponticello.errors import PonticelloError

logger = logging.getLogger(__name__)
# Codes of the errors that Starlette raises by status; others are invalid.
_BY_STATUS = {401: "unauthorized", 404: "not_found", 405: "method_not_allowed", 413: "too_large"}
# The status and the code for clients of each code of a PonticelloError; others are 422 invalid.
_BY_CODE = {
    "unknown_track": (404, "not_found"),
    "unknown_user": (404, "not_found"),
    "no_preference": (409, "no_preference"),
    "unsupported_audio": (422, "unsupported_audio"),
    "model_changed": (503, "model_changed"),
    "no_model": (503, "model_missing"),
    "model_unusable": (503, "model_missing"),
    "library_unusable": (503, "not_ready"),
    "library_locked": (503, "not_ready"),
    "no_library": (503, "not_ready"),
    "no_tracks": (503, "not_ready"),
    "no_log": (503, "not_ready"),
    "no_index": (503, "not_ready"),
    "index_damaged": (503, "not_ready"),
    "not_prepared": (503, "not_ready"),
}
_MAX_MESSAGE = 300  # characters: a message may hold a client's own input


class APIError(Exception):
    """An error response. code: for programs, as docs/api.md lists them."""

    def __init__(
        self, status: int, code: str, message: str, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers or {}


def api_error_from(error: APIError | PonticelloError, root: Path) -> APIError:
    """Returns an error of the library as an error response, without the path of the library."""
    if isinstance(error, APIError):
        return error
    status, code = _BY_CODE.get(error.code, (422, "invalid"))
    message = without_root(root, error)
    if code.startswith("model"):
        message = f"words and sounds need the model: {message}"
    return APIError(status, code, message[:_MAX_MESSAGE])


def without_root(root: Path, error: Exception) -> str:
    """Returns an error's message in one line, without the library's path on this machine."""
    message = error.message if isinstance(error, PonticelloError) else str(error)
    return " ".join(message.replace(f"{root.resolve()}/", "").replace(f"{root}/", "").split())


def error_response(error: APIError) -> JSONResponse:
    """Returns the error as JSON."""
    body = {"code": error.code, "message": error.message}
    return JSONResponse(body, status_code=error.status, headers=error.headers)


def add_error_handlers(app: FastAPI, root: Path) -> None:
    """Makes every error of the app `{code, message}`. root: the library's folder."""

    @app.exception_handler(APIError)
    @app.exception_handler(PonticelloError)
    async def handle_error(_: Request, error: APIError | PonticelloError) -> JSONResponse:
        return error_response(api_error_from(error, root))

    @app.exception_handler(RequestValidationError)
    async def handle_invalid_request(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        name = ".".join(str(key) for key in first["loc"] if key != "body")
        reason = str(first["msg"]).removeprefix("Value error, ")
        text = f"{name}: {reason}" if name else reason
        message = " ".join(text.split())[:_MAX_MESSAGE]  # a field's name may hold line breaks
        return error_response(APIError(422, "invalid", message))

    @app.exception_handler(HTTPException)
    async def handle_http_error(_: Request, error: HTTPException) -> JSONResponse:
        code = _BY_STATUS.get(error.status_code, "invalid")
        message = "there is no such page" if error.detail == "Not Found" else str(error.detail)
        headers = dict(error.headers or {})
        return error_response(APIError(error.status_code, code, message, headers))


def unexpected_error_response(scope: Scope, error: Exception) -> JSONResponse:
    """Returns an error response without details, which go to the log."""
    logger.error("%s %r failed", scope["method"], scope["path"], exc_info=error)
    message = "something went wrong here; the server's log says what"
    return error_response(APIError(500, "internal", message))
