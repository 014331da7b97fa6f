"""Assembly: the one place that constructs the parts and connects them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pdp.authorizer import Authorizer
from pdp.cache import DecisionCache
from pdp.clock import Clock, SystemClock
from pdp.keeper import BundleKeeper
from pdp.limits import DEFAULT_LIMITS, Limits
from pdp.observer import Observer, Observers
from pdp.policy.bundle import Compile
from pdp.policy.child import run_once
from pdp.policy.contents import read_folder
from pdp.registrar import Registrar
from pdp.sessions.memory import MemorySessionStore
from pdp.sessions.store import SessionStore

if TYPE_CHECKING:
    pass

_COMPILE_SECONDS = 120.0
_TOUCH_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    """The PDP without a server: ask `authorizer`, open sessions with `registrar`, reload with `keeper`."""

    authorizer: Authorizer
    registrar: Registrar
    keeper: BundleKeeper
    sessions: SessionStore

    def close(self) -> None:
        """Release the store."""
        self.sessions.close()


def open_embedded(
    policies: Path | str,
    *,
    sessions: SessionStore | None = None,
    clock: Clock | None = None,
    observer: Observer | None = None,
    cache: DecisionCache | None = None,
    limits: Limits = DEFAULT_LIMITS,
    trusted_attributes: frozenset[str] = frozenset(),
    compile_files: Compile | None = None,
) -> Embedded:
    """Open a PDP in this process on a policy folder; by default with a store in memory.

    Raise `BundleError` when the folder holds no bundle that loads. Threads that decide need a stack of 2 MiB or more.
    """
    store = sessions if sessions is not None else MemorySessionStore()
    time = clock or SystemClock()
    watcher = observer or Observers()
    keeper = BundleKeeper(
        read=lambda: read_folder(Path(policies), limits),
        compile_files=compile_files or compile_once(),
        sessions=store,
        clock=time,
        observer=watcher,
        limits=limits,
    )
    authorizer = Authorizer(
        sessions=store, bundle_for=keeper.bundle_for, clock=time, observer=watcher, cache=cache, limits=limits
    )
    registrar = Registrar(
        sessions=store,
        bundle_for=keeper.bundle_for,
        clock=time,
        observer=watcher,
        limits=limits,
        trusted_attributes=trusted_attributes,
    )
    keeper.start(by="start")
    return Embedded(authorizer=authorizer, registrar=registrar, keeper=keeper, sessions=store)


def compile_once() -> Compile:
    """Return what compiles a bundle in a throw-away child process: policy text can end the process that parses it."""

    def compile_files(job: Mapping[str, Any]) -> dict[str, Any]:
        return run_once("compile", dict(job), timeout=_COMPILE_SECONDS)

    return compile_files
