"""The folder of policies is missing or cannot be read: what runs goes on, and a start goes on with what ran last."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pdp.app.server import App
from pdp.client import PDPClientError
from pdp.errors import BundleError
from pdp.model import Role
from pdp.testing.inprocess import write_folder
from tests.machinery.faults.breakdowns import ROWS
from tests.machinery.servers.notes import notes_bundle
from tests.machinery.servers.served import PATIENCE, WELL, Served, client, served, settings_in


def take_away(policies: Path) -> None:
    """Remove the folder."""
    shutil.rmtree(policies)


def make_unreadable(policies: Path) -> None:
    """Put something in the place of a file that nobody can read, whatever rights they have."""
    (policies / "notes.cedar").unlink()
    (policies / "notes.cedar").symlink_to("nowhere")


BREAKS = [
    pytest.param(take_away, "the folder of policies is missing", id="missing"),
    pytest.param(make_unreadable, "a file of policies cannot be read", id="unreadable"),
]


def reload(service: Served) -> str:
    """Reload the bundle; return `OK` or the status."""
    try:
        with client(service.app, service.settings, Role.ADMIN, PATIENCE) as admin:
            admin.reload_bundle()
    except PDPClientError as error:
        return error.code.name if error.code else str(error)
    return "OK"


@pytest.mark.parametrize(("break_it", "fault"), BREAKS)
def test_while_the_policies_are_broken(tmp_path: Path, break_it: Callable[[Path], None], fault: str) -> None:
    """The bundle that runs goes on; a reload is refused, and succeeds when the files are back."""
    with served(tmp_path) as service:
        first, second = service.open(), service.open()
        break_it(tmp_path / "policies")
        refused, during = reload(service), service.seen(first)
        write_back(tmp_path / "policies")
        taken, after = reload(service), service.seen(second)

    assert (refused, during) == ("FAILED_PRECONDITION", ROWS[fault].seen)
    assert (taken, after) == ("OK", WELL)


@pytest.mark.parametrize(("break_it", "fault"), BREAKS)
def test_a_start_with_broken_policies(tmp_path: Path, break_it: Callable[[Path], None], fault: str) -> None:
    """A start goes on with the bundle that the store keeps; a first start is refused and says why."""
    with served(tmp_path) as service:
        pass
    break_it(tmp_path / "policies")
    with served(tmp_path, before=service) as service:
        seen = service.seen(service.open())
    first = settings_in(tmp_path)
    # A start without its store is refused for that alone, as long as the record knows what it held.
    shutil.rmtree(first.record.folder)
    first.sessions_file.unlink()

    assert seen == ROWS[fault].seen
    with pytest.raises(BundleError, match=r"does not exist|not a file that can be read"):
        App(first)


def write_back(policies: Path) -> None:
    """Bring the folder back as it was."""
    link = policies / "notes.cedar"
    link.unlink(missing_ok=True)
    write_folder(policies, notes_bundle())
