"""Check the server's base: libraries, SQLite, threads with large stacks, and the clock that sleep does not stop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from typing import Final

import apsw

from pdp.doctor.finding import Deployment, Finding, fine, problem, warning
from pdp.errors import StoreUnavailableError, UnavailableError
from pdp.foundation.sqlite import require_sound_engine
from pdp.policy.stack import StackCheck
from pdp.serving.lanes import BoundedPool, Room

# The lowest version, and the first that is too high. A test compares this with the package's requirements.
LIBRARIES: Final[Mapping[str, tuple[str, str]]] = {
    "apsw": ("3.51.3", ""),
    "cachetools": ("6", ""),
    "cedarpy": ("4.12.2", "4.13"),
    "click": ("8.2", ""),
    "cryptography": ("45", ""),
    "googleapis-common-protos": ("1.70", ""),
    "grpcio": ("1.80", "1.86"),
    "grpcio-health-checking": ("1.80", ""),
    "grpcio-reflection": ("1.80", ""),
    "joserfc": ("1.8", ""),
    "jsonschema-rs": ("0.61", "0.62"),
    "opentelemetry-exporter-otlp-proto-common": ("1.40", ""),
    "opentelemetry-sdk": ("1.40", ""),
    "prometheus-client": ("0.22", ""),
    "protobuf": ("7.35", "8"),
    "pyyaml": ("6", ""),
    "rfc8785": ("0.1.4", ""),
    "rich": ("14", ""),
}


def libraries(_: Deployment, installed: Callable[[str], str] = version_of) -> Iterator[Finding]:
    """Check that every library has a version that this program supports."""
    check, found = "libraries", []
    for name, (lowest, below) in LIBRARIES.items():
        wanted = f"{name}{f'>={lowest}' if lowest else ''}{f',<{below}' if below else ''}"
        try:
            version = installed(name)
        except PackageNotFoundError:
            found.append(problem(check, f"`{name}` is not installed", f"pip install '{wanted}'"))
            continue
        if _parts(version) < _parts(lowest) or (below and _parts(version) >= _parts(below)):
            found.append(problem(check, f"{name} has version `{version}`", f"pip install '{wanted}'"))
    yield from found or [fine(check, f"cedarpy {installed('cedarpy')}, grpcio {installed('grpcio')}")]


def engine(_: Deployment, version: str = "") -> Iterator[Finding]:
    """Check that this SQLite cannot corrupt a store that several processes write."""
    version = version or apsw.sqlite_lib_version()
    try:
        require_sound_engine(version)
    except StoreUnavailableError as error:
        yield problem("sqlite", str(error), "install an `apsw` that brings its own SQLite: `pip install apsw`")
    else:
        yield fine("sqlite", version)


def threads(deployment: Deployment) -> Iterator[Finding]:
    """Check that the server's threads start, with stacks for the deepest policy."""
    count, outcomes = deployment.settings.server.threads, list[str]()
    try:
        stack = StackCheck(deployment.settings.limits)
        pool = BoundedPool("doctor", Room(threads=count, bound=1, share=1))
    except RuntimeError:
        remedy = "raise the limits of memory and tasks (`ulimit -v`, `TasksMax`), or lower `server.threads`"
        yield problem("threads", f"{count} threads with 64 MiB of stack do not start", remedy)
        return
    pool.enter("")
    pool.put("", partial(_try_stack, stack, outcomes))
    pool.shutdown()
    if outcomes != [""]:
        yield problem("threads", outcomes[0] if outcomes else "a thread failed", "raise the limit of memory")
    else:
        yield fine("threads", f"{count} threads with 64 MiB of stack")


def boot_clock(deployment: Deployment) -> Iterator[Finding]:
    """Check that a clock runs during sleep, and that this boot has an id."""
    now = deployment.clock.now()
    if not hasattr(time, "CLOCK_BOOTTIME") or now.boot_id.startswith("boot-"):
        found = "this system cannot reliably tell boots apart, or has no clock that counts sleep"
        yield warning("clock", found, "run the server on Linux, with /proc mounted")
    else:
        yield fine("clock", "the boot clock counts sleep, and this boot has an id")


def _try_stack(stack: StackCheck, outcomes: list[str]) -> None:
    try:
        stack.require()
    except UnavailableError as error:
        outcomes.append(str(error))
    else:
        outcomes.append("")


def _parts(version: str) -> tuple[int, ...]:
    """Return the numbers at the beginning of a version, up to the first other part."""
    parts = []
    for part in version.split("."):
        if not part.isdecimal():
            break
        parts.append(int(part))
    return tuple(parts)
