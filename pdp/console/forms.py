"""Reading the forms of the console: bounded, and only those that one of its own pages has sent."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Mapping, Sequence
from urllib.parse import parse_qs

from starlette.requests import ClientDisconnect, Request

from pdp.console.logins import Login

_MOST_BYTES, _MOST_FIELDS = 256 * 1024, 4096
_SECONDS = 30.0
_KIND = "application/x-www-form-urlencoded"
TOKEN = "form_token"  # noqa: S105 - the name of a field


class RefusedFormError(Exception):
    """A form is not taken; the message says why, in words for the person."""


class Form:
    """The fields of a form by name, each with all its values."""

    def __init__(self, values: Mapping[str, Sequence[str]]) -> None:
        self.values = values

    def one(self, name: str) -> str:
        """Return the one value of a field, without blanks around it; empty when it is not there once."""
        found = self.values.get(name, ())
        return found[0].strip() if len(found) == 1 else ""


def whole_number(text: str, digits: int, otherwise: int = 0) -> int:
    """Return the number that a text of at most so many digits is; `otherwise` for any other text."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= digits else otherwise


async def read_form(request: Request, login: Login) -> Form:
    """Return a form. Raise `RefusedFormError` unless it is from a page of this log-in."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _KIND:
        raise RefusedFormError("This is not a form of the console.")
    body = bytearray()
    try:
        async with asyncio.timeout(_SECONDS):
            async for part in request.stream():
                body += part
                if len(body) > _MOST_BYTES:
                    raise RefusedFormError("The form is too large.")
        found = parse_qs(body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_MOST_FIELDS)
    except TimeoutError:
        raise RefusedFormError("The form did not arrive in time. Send it again.") from None
    except (ValueError, ClientDisconnect):
        raise RefusedFormError("The form cannot be read.") from None
    form = Form(found)
    if not hmac.compare_digest(form.one(TOKEN).encode(), login.form_token.encode()):
        raise RefusedFormError("This page was opened before the last log-in. Open it again, and then decide.")
    return form
