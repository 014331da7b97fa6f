"""What a source of bundles delivers: the files, and their signature."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from pdp.policy.contents import version_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """A signature of a version and its bundle number, not yet verified.

    `key_id` names the key; `value` is 64 bytes.
    """

    key_id: str
    number: int
    value: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """The files of a bundle, its version, and its signature if it has one."""

    files: Mapping[str, bytes]
    signature: Signature | None = None
    version: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "version", version_of(self.files))


class BundleSource(Protocol):
    """Where bundles come from. Safe for threads.

    Listings and records give `name` as the activator of its bundles: `policy-folder`, `policy-file`, `policy-url`.
    """

    @property
    def name(self) -> str:
        """Return the kind of source."""
        ...

    def read(self) -> Delivery:
        """Return what the source holds now.

        Raise `BundleError` when that is not a bundle, and `BundleUnavailableError` when the source does not answer.
        """
        ...

    def loaded(self, delivery: Delivery) -> None:
        """Accept the report that a delivery has loaded, so is a good bundle."""
        ...

    def last_good(self) -> Delivery | None:
        """Return the last good bundle, for use while the source is silent; None if not kept."""
        ...
