"""The exception tree: one class for each reaction of a caller.

An error is the absence of an answer; a deny is an answer and never an exception.
`pdp.serving.status` maps every leaf to a gRPC status.
"""

from __future__ import annotations


class PDPError(Exception):
    """The PDP could not answer; the message is one line for people."""


class InvalidRequestError(PDPError):
    """The request is invalid: correct the named attribute, do not retry.

    `attribute` is a path of names and indexes in the request, such as `requests[3].call.facts_json`. The core names the
    attributes of its own values and arguments; a transport uses the names of its messages instead.
    """

    def __init__(self, attribute: str, problem: str) -> None:
        super().__init__(f"`{attribute}`: {problem}")
        self.attribute = attribute
        self.problem = problem


class UnauthenticatedError(PDPError):
    """The caller is unknown: present valid credentials.

    `what` was refused and the `reason` are for the server's log, and hold no secret; callers get the message.
    """

    def __init__(self, message: str, *, what: str, reason: str) -> None:
        super().__init__(message)
        self.what = what
        self.reason = reason


class PermissionDeniedError(PDPError):
    """The caller is known and may not do this: use another identity.

    With a `max_age`, in seconds, the same person may do it after a new log-in that is not older.
    """

    def __init__(self, message: str, *, max_age: float = 0.0) -> None:
        super().__init__(message)
        self.max_age = max_age


class NotFoundError(PDPError):
    """Nothing with this id exists for this caller: check the id."""


class WrongStateError(PDPError):
    """The session's state, or what was shown of it, does not allow this: read it again and decide anew."""


class UnknownRevisionError(PDPError):
    """The store does not have this revision, or not in its history: forget it, and read again what rests on it."""


class FrozenError(PDPError):
    """The tenant is frozen: nothing is opened or approved; ask again when the freeze is lifted."""


class ConflictError(PDPError):
    """Another caller changed the same thing first: read it again and retry."""


class RequestIdConflictError(PDPError):
    """The request id was used for another call: use a new id."""


class AlreadyReportedError(PDPError):
    """Another report about this decision was accepted: keep to the first."""


class OverloadedError(PDPError):
    """There are too many requests at once: retry after a pause."""


class UnavailableError(PDPError):
    """The PDP cannot answer now: retry after a pause, and deny meanwhile."""


class StoreUnavailableError(UnavailableError):
    """The session store does not answer."""


class BundleUnavailableError(UnavailableError):
    """No bundle is loaded, or not the active one."""


class EvaluatorUnavailableError(UnavailableError):
    """The child process that evaluates foreign policy text died or took too long."""


class BundleError(PDPError):
    """A bundle cannot be loaded: correct the files that `problems` names."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("; ".join(str(problem) for problem in problems) or "the bundle cannot be loaded")
        self.problems = problems


class ConfigurationError(PDPError):
    """The configuration is invalid: correct every setting that the message names."""


class CannotListenError(ConfigurationError):
    """An address cannot be listened on: free it, or choose another one."""


class InvalidArgumentsError(PDPError):
    """The agent's arguments do not match the tool's declaration; becomes a deny, never reaches the caller.

    `problem` names the position and the rule, and never holds a value.
    """


class InvalidJSONError(PDPError):
    """A text is not strict JSON within the limits; the message holds no value of it.

    `line` and `column` count from 1 within the text; 0 where no place is known.
    """

    def __init__(self, problem: str, *, line: int = 0, column: int = 0) -> None:
        super().__init__(f"{problem} (line {line}, column {column})" if line else problem)
        self.line = line
        self.column = column


class UnsafePolicyError(PDPError):
    """Policy text is too deep or too wide for the engine; `line` counts from 1 within the text."""

    def __init__(self, problem: str, line: int) -> None:
        super().__init__(problem)
        self.line = line


def one_line(text: str) -> str:
    """Return a text with a blank for each line break and other character that does not print."""
    return text if text.isprintable() else "".join(letter if letter.isprintable() else " " for letter in text)


def reason_of(error: OSError) -> str:
    """Return the operating system's reason in the style of our messages."""
    return (error.strerror or "input or output failed").lower()


class Problem:
    """One problem of a bundle: file, line (from 1; 0 for the whole file) and message.

    `severity` is `error` for a problem that keeps the bundle from loading, `warning` for any other. `code` is a stable
    name of the kind of problem. `column` counts characters from 1 (0: unknown), and `width` is the number of
    characters. `help` says what to do. Two problems are equal when they read the same.
    """

    __slots__ = ("code", "column", "file", "help", "line", "message", "severity", "width")

    def __init__(
        self,
        file: str,
        line: int,
        message: str,
        *,
        severity: str = "error",
        code: str = "",
        column: int = 0,
        width: int = 1,
        help: str = "",  # noqa: A002 - the word of the API
    ) -> None:
        self.file = file
        self.line = line
        self.message = message
        self.severity = severity
        self.code = code
        self.column = column
        self.width = width
        self.help = help

    def as_json(self) -> dict[str, str | int]:
        """Return all parts by name; `Problem(**…)` reads them back."""
        return {name: getattr(self, name) for name in self.__slots__}

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        # A key of a file can hold line breaks, and characters that hide or reorder others.
        return one_line(f"{place}: {self.message}" if place else self.message)

    def __repr__(self) -> str:
        return f"Problem({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Problem) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))
