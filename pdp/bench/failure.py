"""What makes a run worth nothing."""


class WrongAnswerError(Exception):
    """An answer was not what it must be, or there was none: no figure of this run counts. Mend the server."""
