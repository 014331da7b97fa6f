"""What a source of bundles delivers: the files, and the signature that came with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from pdp.policy.contents import version_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """Says that who holds a key signed a version, as the bundle with this number. Not yet verified.

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

    `name` is who activates what it delivers, in listings and records: `policy-folder`, `policy-file`, `policy-url`.
    """

    @property
    def name(self) -> str:
        """Return what kind of source this is."""
        ...

    def read(self) -> Delivery:
        """Return what the source holds now.

        Raise `BundleError` when that is no bundle, and `BundleUnavailableError` when it does not answer.
        """
        ...

    def loaded(self, delivery: Delivery) -> None:
        """Take note that a delivery is a good bundle: it loaded."""
        ...

    def last_good(self) -> Delivery | None:
        """Return the good bundle that was kept for when the source does not answer; None when it keeps none."""
        ...
