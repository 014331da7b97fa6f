"""Where bundles come from on this machine: a folder, or a packed file."""

from __future__ import annotations

from pathlib import Path

from pdp.bundles.delivery import Delivery
from pdp.bundles.packing import read_packed
from pdp.limits import Limits
from pdp.policy.contents import read_folder


class FolderSource:
    """A `BundleSource`: a policy folder. It is never signed."""

    name = "policy-folder"

    def __init__(self, folder: Path, limits: Limits) -> None:
        self._folder = folder
        self._limits = limits

    def read(self) -> Delivery:
        """Return the files of the folder as they are now."""
        return Delivery(files=read_folder(self._folder, self._limits))

    def loaded(self, delivery: Delivery) -> None:
        """Keep nothing: the folder remains."""

    def last_good(self) -> None:
        """Return None: what the folder held before is gone."""


class PackedFileSource:
    """A `BundleSource`: a file that `pdp bundle build` wrote."""

    name = "policy-file"

    def __init__(self, file: Path, limits: Limits) -> None:
        self._file = file
        self._limits = limits

    def read(self) -> Delivery:
        """Return the content of the file as it is now."""
        return read_packed(self._file, self._limits)

    def loaded(self, delivery: Delivery) -> None:
        """Keep nothing: the file remains."""

    def last_good(self) -> None:
        """Return None: what the file held before is gone."""


def source_at(path: Path, limits: Limits) -> FolderSource | PackedFileSource:
    """Return the source at a path: a packed file, otherwise a folder, which need not exist yet."""
    return PackedFileSource(path, limits) if path.is_file() else FolderSource(path, limits)
