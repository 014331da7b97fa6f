"""Open a bundle to compare: a folder, or the same folder at a revision of git."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pdp.errors import ConfigurationError
from pdp.foundation.printable import visible

_SECONDS = 60
_FILE_MODES = (b"100644", b"100755")
_NO_NAMES = frozenset({"", ".", ".."})


@contextmanager
def opened(source: str, *, folder: str) -> Iterator[Path]:
    """Provide the folder of a bundle while the `with` block runs.

    `source` is a folder, a revision of git (then `folder` is taken from it), or `REVISION:FOLDER`.
    Raise `ConfigurationError` when it is none of these.
    """
    if Path(source).is_dir():
        yield Path(source)
        return
    with tempfile.TemporaryDirectory(prefix="pdp-revision-") as target:
        _check_out(source, folder, Path(target))
        yield Path(target)


def _check_out(source: str, folder: str, target: Path) -> None:
    """Write the files of a tree as they were committed.

    `git archive` is not used, because it can leave out or change files.
    """
    revision, _, path = source.partition(":")
    relative = Path(os.path.relpath(path or folder)).as_posix()
    if revision.startswith("-") or not revision:
        raise ConfigurationError(f"`{source}` is neither a folder nor a revision of git")
    tree = _git(["rev-parse", "--verify", "--quiet", f"{revision}:./{relative}"], source).decode("ascii").strip()
    entries = [line.split(b"\t", 1) for line in _git(["ls-tree", "-r", "-z", "--full-tree", tree], source).split(b"\0")]
    for details, name in (entry for entry in entries if len(entry) == 2):  # noqa: PLR2004 - the last one is empty
        mode, _, blob = details.split()[:3]
        if mode in _FILE_MODES:
            file = target / os.fsdecode(name)
            # git writes no such name when it checks a tree out, but it lists one.
            if not _NO_NAMES.isdisjoint(os.fsdecode(name).split("/")):
                raise ConfigurationError(f"`{source}` holds a file outside its folder: `{visible(os.fsdecode(name))}`")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(_git(["cat-file", "blob", blob.decode("ascii")], source))


def _git(words: Sequence[str], source: str) -> bytes:
    try:
        done = subprocess.run(  # noqa: S603 - no word of a user stands where git would take it for a flag
            ["git", *words],  # noqa: S607 - the git that the user has
            capture_output=True,
            check=False,
            timeout=_SECONDS,
        )
    except FileNotFoundError:
        raise ConfigurationError(f"`{source}` is not a folder, and git is not installed") from None
    except subprocess.TimeoutExpired:
        raise ConfigurationError(f"`{source}`: git did not answer within {_SECONDS} s") from None
    if done.returncode:
        raise ConfigurationError(f"`{source}` is neither a folder nor a folder in a revision of git")
    return done.stdout
