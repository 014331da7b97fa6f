"""The error that makes a run invalid."""


class WrongAnswerError(Exception):
    """An answer was wrong or missing: no figure of this run counts. Correct the server."""
