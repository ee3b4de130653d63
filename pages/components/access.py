"""Access to the server: every request is checked before Streamlit sees it, and actions are logged.

A browser sends requests in its user's name for any web page, and other users of a machine can reach
its loopback ports. So a request has to name a host of this server (against DNS rebinding), its
`Origin` has to be one of this server's pages, and it has to carry the token where one is required.
Streamlit itself would look up the server's address on the Internet for a foreign origin.
"""

import hashlib
import hmac
import logging
import os
import re
from base64 import b64encode
from collections.abc import Collection
from contextlib import suppress
from email.message import EmailMessage
from io import TextIOWrapper
from ipaddress import ip_address
from logging.handlers import RotatingFileHandler
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import streamlit as st
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = ("127.0.0.1", "localhost", "::1")

logger = logging.getLogger("stockpot")

_LOG_BYTES = 5 << 20  # size of a log file before rotation
_LOG_FILES = 3  # older files that are kept
_PARAMETER = "token"
_SAFE = ("GET", "HEAD", "OPTIONS")
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[\w.-]+)(:\d{1,5})?", re.ASCII)
_ASK = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Stockpot</title>{refresh}</head>
<body style="font-family: sans-serif; max-width: 40em; margin: 4em auto">
<h1>This server requires a token</h1>
<p>Open the link that the server printed at startup, or enter the token.</p>
<form><input type="password" name="token" aria-label="Token" autofocus> <button>Open</button></form>
</body></html>
"""
# The browser requests the page again, now from a page of this server. So it sends the cookie that
# it withholds from links on other sites.
_REFRESH = '<meta http-equiv="refresh" content="0">'


class Boundary:
    """Refuses requests that may not pass, and sets security headers on all responses.

    Args:
        app: The application behind it.
        hosts: Names and addresses of the server, without ports.
        origins: Origins of its pages in addition to `http(s)://` and the request's `Host`, for
            proxies that change the `Host`.
        token: The token that a request has to carry, as a cookie or once in its URL. Without one,
            only connections to a loopback address are answered.
        base: Path prefix of all pages, such as "/stockpot", or "".
        html: HTML of the pages. Its inline scripts may run.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        hosts: Collection[str] = LOOPBACK,
        origins: Collection[str] = (),
        token: str | None = None,
        base: str = "",
        html: str = "",
    ) -> None:
        self._app = app
        self._hosts = {host.lower().strip("[]") for host in hosts}
        self._origins = {origin.lower().rstrip("/") for origin in origins}
        self._token = token
        self._base = base
        # Browsers send a host's cookies to all of its ports, so the cookie does not hold the token.
        self._key = hmac.digest((token or "").encode(), b"stockpot cookie", "sha256").hex()
        self._headers = {
            "Content-Security-Policy": _policy(html),
            "X-Frame-Options": "DENY",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on to the application."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(self._headers)
            await send(message)

        headers = Headers(scope=scope)
        answer = self._refusal(scope, headers) or self._ask_for_token(scope, headers)
        if answer is None:
            await self._app(_with_own_origin(scope, headers), receive, send_with_headers)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": ""})
        else:
            await answer(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        """Return the response to a request that is refused with or without a token."""
        host = headers.get("host", "")
        if self._token is None and not is_loopback((scope.get("server") or ("",))[0]):
            return _refuse(scope, 403, "The server is bound beyond this machine without a token.")
        if len(headers.getlist("host")) != 1 or not self._is_own_host(host):
            return _refuse(
                scope, 400, f"{host!r} is not a host of this server; name it with --host."
            )
        if not self._has_own_origin(scope, headers):
            origin = headers.get("origin", headers.get("sec-fetch-site", "no origin"))
            return _refuse(
                scope,
                403,
                f"The request comes from {origin!r}, not from {host!r}. Behind a proxy that "
                "changes the Host, name the address in the browser with --origin.",
            )
        return None

    def _is_own_host(self, host: str) -> bool:
        found = _HOST.fullmatch(host)
        if found is None:
            return False
        name = found[1].lower().strip("[]")
        # DNS rebinding does not affect addresses, and a machine may have many.
        return name in self._hosts or (self._token is not None and _is_address(name))

    def _has_own_origin(self, scope: Scope, headers: Headers) -> bool:
        origins = [origin.lower() for origin in headers.getlist("origin")]
        is_safe = scope["type"] == "http" and scope["method"] in _SAFE
        if origins or not is_safe:
            own = {f"{scheme}://{headers['host'].lower()}" for scheme in ("http", "https")}
            return len(origins) == 1 and origins[0] in own | self._origins
        # Another site may link to a page, but may not frame it or load parts of it.
        if headers.get("sec-fetch-site") in ("cross-site", "same-site"):
            return (headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")) == (
                "navigate",
                "document",
            )
        return True

    def _ask_for_token(self, scope: Scope, headers: Headers) -> Response | None:
        """Return the response to a request without the token, or with the token in its URL."""
        if self._token is None:
            return None
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = [value for name, value in query if name == _PARAMETER]
        cookie = f"stockpot-{scope['server'][1]}"
        if scope["type"] == "http" and any(_equal(value, self._token) for value in given):
            rest = urlencode([(name, value) for name, value in query if name != _PARAMETER])
            # Relative, since a proxy may have removed a path prefix that the browser sees.
            page = quote(scope["path"].rpartition("/")[2])
            answer = RedirectResponse(f"./{page}{'?' if rest else ''}{rest}", 303)
            answer.set_cookie(
                cookie,
                self._key,
                path=self._base or None,
                secure=scope["scheme"] == "https",
                httponly=True,
                samesite="strict",
            )
            answer.headers["Cache-Control"] = "no-store"
            return answer
        if any(_equal(value, self._key) for value in _cookies(headers, cookie)):
            return None
        if given:
            _log_refusal(scope, "a wrong token")
        crosses = headers.get("sec-fetch-site") in ("cross-site", "same-site")
        page = _ASK.format(refresh=_REFRESH if crosses and not given else "")
        return HTMLResponse(page, 401, {"Cache-Control": "no-store"})


def is_loopback(address: str) -> bool:
    """Whether an address or host name can only be reached from the machine itself."""
    return address == "localhost" or (_is_address(address) and ip_address(address).is_loopback)


class PrivateFile(RotatingFileHandler):
    """A log file of bounded size that only the server's user can read."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, maxBytes=_LOG_BYTES, backupCount=_LOG_FILES, encoding="utf-8")

    def _open(self) -> TextIOWrapper:
        return open(
            self.baseFilename,
            "a",
            encoding="utf-8",
            opener=lambda path, flags: os.open(path, flags, 0o600),
        )


def start_log(path: Path) -> None:
    """Write the access log to a file and to standard error."""
    logger.setLevel(logging.INFO)
    logger.propagate = False
    handlers: list[logging.Handler] = [logging.StreamHandler()]
    with suppress(OSError):  # a read-only workspace
        handlers.append(PrivateFile(path))
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger.addHandler(handler)


def note(event: str, what: str) -> None:
    """Log an action of this session's user.

    Args:
        event: The action, such as "opened".
        what: Its object, such as a folder.
    """
    # Streamlit gives no address for connections from this machine.
    log(event, what, st.context.ip_address or "127.0.0.1")


def log(event: str, what: str, address: str, level: int = logging.INFO) -> None:
    """Log an action of the user at an address, as one line; control characters are escaped."""
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in f"{address} {event} {what}")
    logger.log(level, "%s", line)


def address_of(scope: Scope) -> str:
    """Return the client's address of a request."""
    client = scope.get("client")
    return client[0] if client else "unknown"


class LogDownloads:
    """Logs each file that the server sends as an attachment."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on to the application."""

        async def watch(message: Message) -> None:
            if message["type"] == "http.response.start" and scope["method"] == "GET":
                headers = EmailMessage()
                headers["Content-Disposition"] = Headers(raw=message["headers"]).get(
                    "content-disposition", "inline"
                )
                if headers.get_content_disposition() == "attachment":
                    log("downloaded", headers.get_filename("a file"), address_of(scope))
            await send(message)

        await self._app(scope, receive, watch if scope["type"] == "http" else send)


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _cookies(headers: Headers, name: str) -> list[str]:
    pairs = (pair.strip().partition("=") for line in headers.getlist("cookie")
             for pair in line.split(";"))  # fmt: skip
    return [value for key, _, value in pairs if key == name]


def _equal(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), expected.encode())


def _with_own_origin(scope: Scope, headers: Headers) -> Scope:
    """Return the request with its accepted origin replaced by the one that Streamlit expects."""
    if "origin" not in headers:
        return scope
    scheme = urlsplit(headers["origin"]).scheme
    own = [(key, value) for key, value in scope["headers"] if key != b"origin"]
    return {**scope, "headers": [*own, (b"origin", f"{scheme}://{headers['host']}".encode())]}


def _refuse(scope: Scope, status: int, reason: str) -> Response:
    _log_refusal(scope, reason)
    return PlainTextResponse(reason, status)


def _log_refusal(scope: Scope, reason: str) -> None:
    log("refused", reason, address_of(scope), logging.WARNING)


def _policy(html: str) -> str:
    scripts = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    hashes = (b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    rules = {
        "default-src": "'self'",
        "script-src": " ".join(["'self'", *(f"'sha256-{found}'" for found in hashes)]),
        "style-src": "'self' 'unsafe-inline'",  # Streamlit and Plotly write styles into the page
        "img-src": "'self' data: blob:",  # figures saved as PNG or SVG
        "font-src": "'self' data:",
        "worker-src": "'self' blob:",
        "object-src": "'none'",
        "frame-src": "'none'",
        "base-uri": "'none'",
        "form-action": "'self'",
        "frame-ancestors": "'none'",
    }
    return "; ".join(f"{directive} {sources}" for directive, sources in rules.items())
