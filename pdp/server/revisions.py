"""Write the revisions of a store as texts, which callers keep and give back, and read them again.

Callers compare none and make none, so that a revision can hold more some day, such as that of each shard.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Final

from pdp.errors import InvalidRequestError
from pdp.model import Head

# What a text can hold, and what it is made of.
_TEXT: Final = re.compile(r"[A-Za-z0-9_-]{2,128}")
_CONTENT: Final = re.compile(rb"(0|[1-9][0-9]{0,17})\.([0-9A-Za-z-]{0,64})")


def revision_text(head: Head) -> str:
    """Return the text of a revision."""
    return urlsafe_b64encode(f"{head.revision}.{head.tag}".encode()).rstrip(b"=").decode()


def require_revision(field: str, text: str) -> Head:
    """Return the revision of a text. Whether the store has it is found later."""
    content = urlsafe_b64decode(text + "=" * (-len(text) % 4)) if _TEXT.fullmatch(text) and len(text) % 4 != 1 else b""
    found = _CONTENT.fullmatch(content)
    if found is None:
        raise InvalidRequestError(field, "not a revision that this server has given out")
    number, tag = found.groups()
    return Head(revision=int(number), tag=tag.decode())


def optional_revision(field: str, text: str) -> Head | None:
    """Return the revision of a text; None for an empty one."""
    return require_revision(field, text) if text else None
