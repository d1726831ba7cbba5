"""Access control and headers: the token, the Host and origin checks, the limit of a body."""

import hmac
import ipaddress
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import cookie_parser
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ponticello.errors import ConfigError
from ponticello.serve.errors import APIError, error_response, unexpected_error_response

COOKIE = "ponticello_token"
OPEN = ("/healthz", "/readyz")  # for monitoring; they reveal no library data
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
BODY_BYTES = 1 << 20  # of a question; uploads have a limit of their own
UPLOADS = "/api/uploads"
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
        "media-src 'self' blob:; connect-src 'self'; font-src 'self'; base-uri 'none'; "
        "form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]{16,}=*")
_TOO_LARGE = f"a question has at most {BODY_BYTES:,} bytes"
_SIGN_IN = Path(__file__).parent / "explorer" / "sign-in.html"


@dataclass(frozen=True)
class SecurityPolicy:
    """Accepted requests. token: None = all from this machine. hosts: names; empty = any."""

    token: str | None
    hosts: tuple[str, ...]


def security_policy_for(
    bind: str, token: str | None, hosts: Collection[str] = ()
) -> SecurityPolicy:
    """Returns the policy of a server that listens on the address `bind`.

    hosts: further names under which it is reached. ConfigError for a public address without a
    token, or a token that is short or does not fit a header (RFC 6750).
    """
    if token is not None and not _TOKEN.fullmatch(token):
        raise ConfigError(
            "the token must have at least 16 characters, letters, digits and - . _ ~ + / =; "
            "try: python3 -c 'import secrets; print(secrets.token_urlsafe())'"
        )
    names = (*LOOPBACK, *map(_host_of_address, (bind, *hosts)))
    if _is_loopback(bind):
        return SecurityPolicy(token, names)
    if token is None:
        raise ConfigError(
            f"{bind} can be reached from other machines: give a token (PONTICELLO_TOKEN, or "
            "--token-file), or bind 127.0.0.1"
        )
    return SecurityPolicy(token, names if hosts else ())


def _is_loopback(bind: str) -> bool:
    if bind == "localhost":
        return True
    try:
        return ipaddress.ip_address(bind.strip("[]")).is_loopback
    except ValueError:
        return False


class SecurityMiddleware:
    """The application behind the policy (ASGI)."""

    def __init__(self, app: ASGIApp, policy: SecurityPolicy) -> None:
        self.app = app
        self.policy = policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers or refuses a request, with the headers."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        has_begun = False

        async def with_headers(message: Message) -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                if scope["path"].startswith(("/api/", "/rest/")):
                    headers.setdefault("Cache-Control", "no-store")
                elif scope["path"].startswith("/static/"):
                    # Else a browser mixes files of two versions after an upgrade.
                    headers.setdefault("Cache-Control", "no-cache")
            await send(message)

        refusal = self._refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, with_headers)
            return
        if scope["path"] != UPLOADS:
            # FastAPI lets an HTTPException through, and turns others into 400.
            receive = limited_body(receive, BODY_BYTES, HTTPException(413, _TOO_LARGE))
        try:
            await self.app(scope, receive, with_headers)
        except Exception as error:
            if has_begun:
                raise
            await unexpected_error_response(scope, error)(scope, receive, with_headers)

    def _refusal(self, scope: Scope) -> Response | None:
        """Returns the response to a request that the policy refuses; None to answer it."""
        headers = Headers(scope=scope)
        if self.policy.hosts and _host(headers.get("host", "")) not in self.policy.hosts:
            message = "this service does not go by that name; start it with --allow-host NAME"
            return error_response(APIError(421, "wrong_host", message))
        if scope["method"] not in ("GET", "HEAD") and not _is_same_origin(headers):
            message = "this page of another site may not ask here"
            return error_response(APIError(403, "wrong_origin", message))
        if self.policy.token is not None and scope["path"] not in OPEN:
            refusal = self._check_token(self.policy.token, scope, headers)
            if refusal is not None:
                return refusal
        n_declared = headers.get("content-length", "0")
        if scope["path"] != UPLOADS and n_declared.isdecimal() and int(n_declared) > BODY_BYTES:
            return error_response(APIError(413, "too_large", _TOO_LARGE))
        return None

    def _check_token(self, token: str, scope: Scope, headers: Headers) -> Response | None:
        """Returns the response to a request without the token; /?token= sets a cookie with it."""
        path = scope["path"]
        query = parse_qs(scope.get("query_string", b"").decode("latin-1"))
        if path == "/" and _is_equal(query.get("token", [""])[0], token):
            answer = RedirectResponse("/", status_code=303)
            answer.set_cookie(COOKIE, token, httponly=True, samesite="strict", path="/")
            return answer
        offered = [
            headers.get("authorization", "").removeprefix("Bearer "),
            cookie_parser(headers.get("cookie", "")).get(COOKIE, ""),
        ]
        if path.startswith("/rest/"):
            offered += query.get("apiKey", [])
        if any(_is_equal(candidate, token) for candidate in offered):
            return None
        challenge = {"WWW-Authenticate": "Bearer"}
        if path == "/" and "text/html" in headers.get("accept", ""):
            return Response(_SIGN_IN.read_bytes(), 401, challenge, "text/html; charset=utf-8")
        message = "this service needs its token: Authorization: Bearer TOKEN"
        return error_response(APIError(401, "unauthorized", message, challenge))


def _is_equal(candidate: str, token: str) -> bool:
    return hmac.compare_digest(candidate.encode("utf-8", "replace"), token.encode())


def limited_body(receive: Receive, max_bytes: int, refusal: Exception) -> Receive:
    """Returns a `receive` that raises `refusal` once the body exceeds `max_bytes`."""
    n_bytes = 0

    async def limited() -> Message:
        nonlocal n_bytes
        message = await receive()
        n_bytes += len(message.get("body", b""))
        if n_bytes > max_bytes:
            raise refusal
        return message

    return limited


def _host(header: str) -> str:
    """Returns the name in a Host header, in lower case, without its port."""
    if header.startswith("["):
        return header.partition("]")[0].lower() + "]"
    return header.rpartition(":")[0].lower() if ":" in header else header.lower()


def _host_of_address(address: str) -> str:
    """Returns an address or a name as `_host` does, with brackets around IPv6."""
    try:
        ip_address = ipaddress.ip_address(address.strip("[]"))
    except ValueError:
        return _host(address)
    return f"[{ip_address}]" if ip_address.version == 6 else str(ip_address)


def _is_same_origin(headers: Headers) -> bool:
    origin = headers.get("origin")
    if origin is None:
        return True
    try:
        return urlsplit(origin).netloc.lower() == headers.get("host", "").lower()
    except ValueError:  # no address at all, such as http://[
        return False
