"""The session in which a question is asked: by the secret handle in a header, and by nothing in a body."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import unquote

from pdp.doors.authzen.questions import MOST_QUESTIONS, InvalidQuestionError
from pdp.serving.web import HANDLE

_ONE = re.compile(r"(?:(?P<subject>[^=,\s]+)=)?(?P<handle>[A-Za-z0-9_-]{1,512})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Handles:
    """The handles that a request brings: one for every subject, or one for each subject that it names.

    A name only chooses among handles that the caller holds.
    """

    every: str = field(default="", repr=False)
    each: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def read(cls, header: str) -> Self:
        """Read the header: `HANDLE`, or `SUBJECT=HANDLE, SUBJECT=HANDLE` with percent signs in ids that need them.

        Raise `InvalidQuestionError`.
        """
        if not header:
            return cls()
        found: dict[str, str] = {}
        for part in header.split(",", MOST_QUESTIONS):
            match = _ONE.fullmatch(part.strip())
            subject = unquote(match["subject"] or "") if match else ""
            if match is None or subject in found:
                raise InvalidQuestionError(f"the header `{HANDLE}` is neither a handle nor `SUBJECT=HANDLE, …`")
            found[subject] = match["handle"]
        if "" not in found:
            return cls(each=found)
        if len(found) > 1:
            raise InvalidQuestionError(f"the header `{HANDLE}` has a handle without a subject beside others")
        return cls(every=found[""])

    def of(self, subject: str) -> str:
        """Return the handle for a subject; empty for none."""
        return self.every or self.each.get(subject, "")
