"""The files of the console that browsers keep: each has a digest of its content in its name, and never changes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

_KINDS: Mapping[str, str] = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
FOLDER = "/assets/"
_DIGITS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Asset:
    """One file and the type of its content."""

    content: bytes
    kind: str


class Assets:
    """All files, by the paths at which they are served."""

    def __init__(self) -> None:
        self._paths: dict[str, str] = {}
        self._by_path: dict[str, Asset] = {}
        for file in files("pdp.console").joinpath("assets").iterdir():
            stem, dot, ending = file.name.partition(".")
            content = file.read_bytes()
            digest = hashlib.sha256(content).hexdigest()[:_DIGITS]
            path = f"{FOLDER}{stem}.{digest}{dot}{ending}"
            self._paths[file.name] = path
            self._by_path[path] = Asset(content=content, kind=_KINDS[dot + ending])

    def path(self, name: str) -> str:
        """Return the path of a file: `/assets/console.….css`."""
        return self._paths[name]

    def get(self, path: str) -> Asset | None:
        """Return the file at a path, or None."""
        return self._by_path.get(path)
