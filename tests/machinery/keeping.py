"""A keeper of bundles over a folder whose files a test changes."""

from __future__ import annotations

from typing import Any

from pdp.bundles.delivery import Delivery
from pdp.bundles.keeper import BundleKeeper
from pdp.clock import Clock
from pdp.limits import DEFAULT_LIMITS
from pdp.model import Decision, TraceParent
from pdp.observer import Event
from pdp.policy.contents import version_of
from pdp.sessions.store import SessionStore
from pdp.testing.bundles import bundle_files, compile_once_here, tool

DIRECTORY = "users: {alice: {}}\nagents: {worker: {ceiling: ['files/*']}}"


def contents(policy: str) -> dict[str, bytes]:
    """Return a bundle with one policy."""
    return bundle_files(
        policies={"files": f'@id("files/{policy}") permit (principal, action, resource);'},
        tools={"files": [tool("read")]},
        directory=DIRECTORY,
    )


def version(policy: str) -> str:
    """Return the version of a bundle with one policy."""
    return version_of(contents(policy))


class Folder:
    """A policy folder whose files a test changes."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files

    name = "folder"

    def read(self) -> Delivery:
        """Return the files."""
        return Delivery(files=self.files)

    def loaded(self, delivery: Delivery) -> None:
        """Keep nothing."""

    def last_good(self) -> None:
        """Return nothing."""


class Events:
    """Keeps the events it is told of."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def decision(self, decision: Decision, parent: TraceParent) -> Decision:  # noqa: ARG002 - the observer's signature
        """Pass a decision on."""
        return decision

    def event(self, event: Event) -> None:
        """Keep an event."""
        self.events.append(event)


def keeper(
    folder: Folder, store: SessionStore, clock: Clock, events: Events | None = None, **more: Any
) -> BundleKeeper:
    """Return a keeper that compiles in this process; `more` are options of `BundleKeeper`."""
    options = {"compile_files": compile_once_here, "limits": DEFAULT_LIMITS, **more}
    return BundleKeeper(source=folder, history=store, clock=clock, observer=events or Events(), **options)
