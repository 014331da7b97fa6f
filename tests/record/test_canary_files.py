"""What a link in a policy folder leads to is told to nobody: neither to the author, nor in the record, nor in a log."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from pdp.client import PDPClientError
from pdp.errors import BundleError
from pdp.limits import DEFAULT_LIMITS
from pdp.policy.contents import read_folder
from pdp.testing.bundles import bundle_files, tool
from pdp.testing.inprocess import RunningServer, running_server, write_folder
from pdp.workbench.reading import read_suites

FILES = bundle_files(
    policies={"files": '@id("files/read") permit (principal, action, resource);'},
    tools={"files": [tool("read")]},
    overlays={"files": "tools:\n  read: {risk: read_only}\n"},
    directory="users: {alice: {}}\nagents: {coder: {ceiling: ['files/*']}}\n",
)
# What another file of the server's may look like; `%s` is what must not be seen.
SHAPES = {
    "a token": "pdpt_%s\n",
    "a word": "%s\n",
    "words": "the %s is\nhere %s\n",
    "settings": "%s:\n  password: %s\n",
    "a list": "- %s\n- {%s: 1}\n",
    "JSON": '{"tools": [{"name": "%s", "inputSchema": {"type": "%s"}}]}',
    "a key": "-----BEGIN PRIVATE KEY-----\n%s\n-----END PRIVATE KEY-----\n",
    "a policy": '@id("%s") permit (principal, action, resource) when { %s };',
    "a schema": "entity User { x: %s };",
}
LEAVES = "is a link to something outside the folder, or hidden in it"


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    """Serve the bundle."""
    with running_server(FILES) as running:
        yield running


def content(shape: str) -> tuple[str, str]:
    """Return a new canary, and a text in a shape that holds it."""
    canary = f"canary{secrets.token_hex(12)}"
    return canary, SHAPES[shape].replace("%s", canary)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", sorted(FILES))
def test_a_link_shows_nothing(
    server: RunningServer, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, shape: str
) -> None:
    """Whichever file of a bundle is a link to a secret of the server: the reload is refused, without a word of it."""
    canary, text = content(shape)
    (tmp_path / "secret").write_text(text)
    server.write_policies(FILES)
    link = server.policies / name
    link.unlink()
    link.symlink_to(tmp_path / "secret")

    with caplog.at_level("DEBUG"), pytest.raises(PDPClientError) as caught:
        server.client("author").reload_bundle()
    link.unlink()
    record = told_to_the_record(server)

    assert f"{name}: {LEAVES}" in str(caught.value)
    assert "bundle.refused" in record
    assert canary not in str(caught.value) + caplog.text + record


@pytest.mark.parametrize("prefix", ["pdpt_", "pdps_"])
@pytest.mark.parametrize("name", sorted(FILES))
def test_a_token_in_a_file_of_the_folder_is_not_quoted(
    server: RunningServer, caplog: pytest.LogCaptureFixture, name: str, prefix: str
) -> None:
    """Where a word of a file that does not parse is quoted, a token or handle is cut to its beginning."""
    canary = secrets.token_urlsafe(32)
    server.write_policies({**FILES, name: f"{prefix}{canary}\n".encode()})

    with caplog.at_level("DEBUG"), pytest.raises(PDPClientError) as caught:
        server.client("author").reload_bundle()
    told = str(caught.value) + caplog.text + told_to_the_record(server)

    assert f"{name}:" in str(caught.value)
    assert not [part for part in canary.split("-") if len(part) > 5 and part in told]


def told_to_the_record(server: RunningServer) -> str:
    """Return all that the record holds."""
    files = sorted(path for path in server.evidence.record_folder.rglob("*") if path.is_file())
    return "".join(path.read_bytes().decode("utf-8", "replace") for path in files)


@pytest.mark.parametrize("target", ["../outside/x.json", "/etc/hostname", ".pdp/tokens/approver.token"])
@pytest.mark.parametrize("name", ["more.cedar", "tools/more.json"])
def test_links_stay_in_the_folder(tmp_path: Path, name: str, target: str) -> None:
    """Neither out of the folder nor into what is hidden there, whatever the link is called."""
    folder = tmp_path / "policies"
    write_folder(folder, {**FILES, ".pdp/tokens/approver.token": b"x"})
    write_folder(tmp_path / "outside", {"x.json": b"[]"})
    link = folder / name
    link.symlink_to(folder / target if not target.startswith("/") else target)

    with pytest.raises(BundleError, match=f"{name}: {LEAVES}"):
        read_folder(folder, DEFAULT_LIMITS)


def test_a_folder_of_tools_elsewhere_is_not_listed(tmp_path: Path) -> None:
    """`tools` itself is no way out either."""
    write_folder(tmp_path / "policies", {name: text for name, text in FILES.items() if not name.startswith("tools/")})
    write_folder(tmp_path / "outside", {"x.json": b"[]"})
    (tmp_path / "policies" / "tools").symlink_to(tmp_path / "outside")

    with pytest.raises(BundleError, match=f"tools: {LEAVES}"):
        read_folder(tmp_path / "policies", DEFAULT_LIMITS)


def test_links_of_kubernetes_are_taken(tmp_path: Path) -> None:
    """A mounted config map is links through `..data`, and the folder may be behind a link itself."""
    dated = tmp_path / "mount" / "..2026_11_26_15_00_00.1"
    write_folder(dated, FILES)
    (tmp_path / "mount" / "..data").symlink_to(dated.name)
    for name in {name.partition("/")[0] for name in FILES}:
        (tmp_path / "mount" / name).symlink_to(f"..data/{name}")
    (tmp_path / "current").symlink_to("mount")

    assert FILES == read_folder(tmp_path / "current", DEFAULT_LIMITS)


def test_a_link_among_the_tests_shows_nothing(tmp_path: Path) -> None:
    """The tests of a branch that somebody else wrote: what a link leads to is not read."""
    canary = f"canary{secrets.token_hex(12)}"
    (tmp_path / "secret").write_text(json.dumps({canary: canary}))
    write_folder(tmp_path / "policies", {**FILES, "tests/own_test.yaml": b"cases: {}\n"})
    (tmp_path / "policies" / "tests" / "more_test.yaml").symlink_to(tmp_path / "secret")

    with pytest.raises(BundleError, match=LEAVES) as caught:
        read_suites(tmp_path / "policies")

    assert canary not in str(caught.value)
