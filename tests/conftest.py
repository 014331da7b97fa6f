"""What all tests share: where the shared material lies, and what must be absent for it to be skipped."""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Generator, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from pdp.client import AsyncClient, Client
from pdp.limits import Limits
from pdp.policy.child.process import run_once
from pdp.policy.contents import Contents, read_contents
from tests.machinery.servers.running import PATIENCE

# How long an example takes says how busy the machine is, and nothing about what is tested.
settings.register_profile("pdp", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("pdp")

ROOT = Path(__file__).parent.parent

# A server in process and the like, for every house that speaks to one.
pytest_plugins = ("tests.machinery.servers.fixtures",)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect without the garbage collector, which would find nothing: modules and tests stay until the end."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the proofs, before marks decide what is run."""
    files = {path for path in {item.path for item in items} if path.is_relative_to(ROOT / "tests" / "proofs")}
    for item in items:
        if item.path in files:
            item.add_marker(pytest.mark.proof)


@lru_cache(maxsize=128)
def _contents_of(files: tuple[tuple[str, bytes], ...], limits: Limits) -> Contents:
    return read_contents(dict(files), limits)


@lru_cache(maxsize=128)
def _compiled(kind: str, job: str, seconds: float) -> dict[str, Any]:
    return run_once(kind, json.loads(job), timeout=seconds)


@pytest.fixture(scope="session", autouse=True)
def _equal_bundles_are_read_once() -> Iterator[None]:
    """Read and compile equal bundles once in this process: that takes 0.4 s, and nobody changes what comes of it."""

    def read_once(files: Mapping[str, bytes], limits: Limits) -> Contents:
        return _contents_of(tuple(files.items()), limits)

    def compile_once(kind: str, job: Mapping[str, Any], *, timeout: float) -> dict[str, Any]:
        return _compiled(kind, json.dumps(job), timeout)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pdp.policy.loading.read_contents", read_once)
        patch.setattr("pdp.policy.child.compile.read_contents", read_once)
        patch.setattr("pdp.app.embedded.run_once", compile_once)
        yield


@pytest.fixture(scope="session", autouse=True)
def _clients_wait_for_busy_machines() -> Iterator[None]:
    """Have no client deny a call because the machine is busy: answers take longer than the usual two seconds then."""
    with pytest.MonkeyPatch.context() as patch:
        for client in (AsyncClient, Client):
            patch.setitem(client.__init__.__kwdefaults__ or {}, "timeout", PATIENCE)
        yield


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Return the folder of test material from other people; skip without it, but fail in CI."""
    folder = Path(os.environ.get("PDP_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "README.md").is_file():
        if os.environ.get("CI") == "true":
            pytest.fail(f"the test material is absent: `{folder}`; set PDP_TEST_DATA")
        pytest.skip("the test material is absent; set PDP_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def project_root() -> Path:
    """Return the root of the project."""
    return ROOT
