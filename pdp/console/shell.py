"""What holds for every request before a page sees it: the host, whose page sent it, and the headers of each answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pdp.console.assets import FOLDER, Assets

_MISDIRECTED, _FORBIDDEN, _NOT_FOUND, _NOT_ALLOWED = 421, 403, 404, 405
_READING = ("GET", "HEAD")
# A page that only a link or the address bar opens may come from another site; what scripts and forms send may not.
_OWN_FETCHES = ("same-origin", "none")

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
_HEADERS: Mapping[str, str] = {
    "content-security-policy": _POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    # With `no-referrer` browsers would send forms without their origin.
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
_FOREVER = "public, max-age=31536000, immutable"
_NO_STORE = "no-store"
_SECURE_ONLY = "max-age=31536000"


@dataclass(frozen=True, slots=True)
class Place:
    """Where people find the console: its origin, such as `https://pdp.example.org`."""

    origin: str

    @property
    def host(self) -> str:
        """Return the host with its port, as browsers send it."""
        return urlsplit(self.origin).netloc

    @property
    def secure(self) -> bool:
        """Say whether browsers reach it over TLS."""
        return self.origin.startswith("https://")

    @property
    def cookie(self) -> str:
        """Return the name of the cookie of a log-in."""
        # With the prefix no other host, and no page without TLS, can set it.
        return "__Host-pdp-console" if self.secure else "pdp-console"

    def set_cookie(self, answer: Response, name: str, secret: str, seconds: int | None = None) -> None:
        """Have the browser keep a secret, out of reach of scripts and other sites; None: until it closes."""
        answer.set_cookie(name, secret, max_age=seconds, httponly=True, samesite="lax", secure=self.secure)


class Shell:
    """The application within what holds for all of it.

    A request for another host is answered with nothing that is the console's; what another site's page sent is refused
    before it is read.
    """

    def __init__(self, app: ASGIApp, place: Place, assets: Assets) -> None:
        self._app = app
        self._place = place
        self._assets = assets

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        await self._chosen(scope)(scope, receive, self._with_headers(scope, send))

    def _chosen(self, scope: Scope) -> ASGIApp:
        headers = Headers(scope=scope)
        # Readers of two could take either.
        if [one.lower() for one in headers.getlist("host")] != [self._place.host]:
            return PlainTextResponse("This is not the address of the console.\n", status_code=_MISDIRECTED)
        if scope["method"] not in (*_READING, "POST"):
            return PlainTextResponse("The console takes GET and POST.\n", status_code=_NOT_ALLOWED)
        if problem := self._foreign(scope["method"], scope["path"], headers):
            return PlainTextResponse(f"{problem}\n", status_code=_FORBIDDEN)
        if scope["path"].startswith(FOLDER):
            return self._asset(scope["path"])
        return self._app

    def _foreign(self, method: str, path: str, headers: Headers) -> str:
        """Return why a request cannot be from a page of the console's own; empty if it can."""
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        if method in _READING and path != "/events":
            return ""
        other_origin = origin is not None and origin.lower() != self._place.origin
        if other_origin or (site is not None and site not in _OWN_FETCHES):
            return "Another site sent this, so nothing was done. Open the console itself."
        if method == "POST" and origin is None and site != "same-origin":
            return "The browser did not say which page sent this, so nothing was done."
        return ""

    def _asset(self, path: str) -> Response:
        found = self._assets.get(path)
        if found is None:
            return PlainTextResponse("There is no such file.\n", status_code=_NOT_FOUND)
        return Response(found.content, media_type=found.kind, headers={"cache-control": _FOREVER})

    def _with_headers(self, scope: Scope, send: Send) -> Send:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                headers.setdefault("cache-control", _NO_STORE)
                if self._place.secure:
                    headers["strict-transport-security"] = _SECURE_ONLY
                # Some browsers keep pages for their button "back" in spite of `no-store`, until a log-out.
                if scope["path"] == "/log-out" and scope["method"] == "POST":
                    headers["clear-site-data"] = '"cache"'
            await send(message)

        return sending
