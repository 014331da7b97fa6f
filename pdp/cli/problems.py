"""Problems of a policy folder, in the words of the person who called the command."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pdp.errors import BundleError


@contextmanager
def problems_in(folder: Path) -> Iterator[None]:
    """Name in problems of a bundle the files as the person finds them: with their folder."""
    try:
        yield
    except BundleError as error:
        for problem in error.problems:
            problem.file = problem.file if problem.file == str(folder) else str(folder / problem.file)
        raise BundleError(error.problems) from None
