"""What all tests share: where the shared material lies, and what must be absent for it to be skipped."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says how busy the machine is, and nothing about what is tested.
settings.register_profile("pdp", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("pdp")

ROOT = Path(__file__).parent.parent

# A server in process and the like, for every house that speaks to one.
pytest_plugins = ("tests.machinery.servers.fixtures",)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the proofs, before marks decide what is run."""
    for item in items:
        if ROOT / "tests" / "proofs" in item.path.parents:
            item.add_marker(pytest.mark.proof)


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
