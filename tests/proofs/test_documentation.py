"""The documentation: its commands run, its examples work, its tables say what the code says."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from google.protobuf import json_format
from mcp import Client as MCPClient
from mcp import StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.types import TextContent

from pdp.config.reading import describe
from pdp.limits import DEFAULT_LIMITS
from pdp.v1 import authorization_pb2
from tests.machinery.pages import ONE_WORKER, PAGE_SECONDS, blocks, run, served, surroundings
from tests.machinery.webserver import web_server

pytestmark = pytest.mark.timeout(2 * PAGE_SECONDS)

FOR_AUTHORS = blocks(Path(__file__).parents[2] / "policies" / "README.md", "sh")
# What the blocks for policy authors name, and what shows the change that one of them makes.
FEW_SUITES = {"git_test.yaml", "guardrails_test.yaml"}


@pytest.fixture
def place(project_root: Path, tmp_path: Path) -> Path:
    """Return a folder that looks like a fresh clone to the commands."""
    for name in ("policies", "tests/fixtures", "proto"):
        shutil.copytree(project_root / name, tmp_path / name)
    return tmp_path


@pytest.fixture
def environment(place: Path) -> dict[str, str]:
    """Return an environment in which `pdp` is this one, on a port of its own."""
    # The pages activate the environment that the reader has; here it is active already.
    activate = place / ".venv" / "bin" / "activate"
    activate.parent.mkdir(parents=True)
    activate.write_text("", encoding="utf-8")
    return surroundings(place, Path(sys.executable).parent)


@pytest.mark.long
def test_readme_commands_run(project_root: Path, place: Path, environment: dict[str, str]) -> None:
    """Whoever types the commands of the README sees what it says, on a server with its default of workers.

    `test_package.py` does so with the package in the place of a clone.
    """
    page = project_root / "README.md"
    (serve,) = blocks(page, "sh serve")
    del environment[ONE_WORKER]

    with served(serve, place, environment):
        done = run("\n".join(blocks(page, "sh")), place, environment)

    assert 0 == done.returncode, done.stderr


def test_audit_commands_run(project_root: Path, place: Path, environment: dict[str, str]) -> None:
    """The commands for investigators run beside a server with a session."""
    (serve,) = blocks(project_root / "README.md", "sh serve")
    request = "pdp session request --user alice --agent coder --purpose x --tool 'git/*' --handle-file handle"
    page = project_root / "pdp" / "audit" / "README.md"

    with served(serve, place, environment):
        done = run("\n".join([f"pdp session approve $({request}) --yes", *blocks(page, "sh")]), place, environment)

    assert 0 == done.returncode, done.stderr
    assert "revoked  ses_" in done.stdout


def test_readme_python_runs(project_root: Path, place: Path, environment: dict[str, str]) -> None:
    """The ten lines of Python ask and are answered, while somebody approves."""
    page = project_root / "README.md"
    (serve,) = blocks(page, "sh serve")
    (example,) = blocks(page, "python")
    approve = """
until SESSION=$(pdp session list --state requested --json | grep -o 'ses_[a-z0-9]*' | head -1); do :; done
pdp session approve "$SESSION" --yes
"""

    with served(serve, place, environment):
        asking = subprocess.Popen(
            [sys.executable, "-c", example], cwd=place, env=environment, stdout=subprocess.PIPE, text=True
        )
        run(approve, place, environment)
        output, _ = asking.communicate(timeout=PAGE_SECONDS)

    assert "allow permit ('git/engineers-read',)\n" == output


def test_embedded_python_runs(project_root: Path, place: Path) -> None:
    """The example of embedded use allows what it says."""
    (example,) = blocks(project_root / "pdp" / "README.md", "python")

    done = subprocess.run([sys.executable, "-c", example], cwd=place, capture_output=True, text=True, check=False)

    assert (0, "") == (done.returncode, done.stderr)


@pytest.mark.parametrize("block", FOR_AUTHORS, ids=[block.partition("\n")[0] for block in FOR_AUTHORS])
def test_policies_commands_run(place: Path, environment: dict[str, str], block: str) -> None:
    """Each block of commands for policy authors runs on a fresh copy of the example, with its history.

    All its suites run where they must show every policy, and in `tests/example`; elsewhere a few are enough.
    """
    if "--coverage" not in block:
        for suite in (place / "policies" / "tests").glob("*_test.yaml"):
            if suite.name not in FEW_SUITES:
                suite.unlink()
    for words in (["init", "--initial-branch", "main"], ["add", "."], ["commit", "--message", "x"]):
        author = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
        subprocess.run(["git", "-C", str(place), *author, *words], check=True, capture_output=True)

    done = run(block, place, environment)

    assert (0, "") == (done.returncode, done.stderr)


def test_example_of_a_test_file_passes(project_root: Path, place: Path, environment: dict[str, str]) -> None:
    """The test file that the page for policy authors shows passes on the example that it is about."""
    (example,) = (text for text in blocks(project_root / "policies" / "README.md", "yaml") if "cases:" in text)
    (place / "policies" / "tests" / "shown_test.yaml").write_text(example, encoding="utf-8")

    done = run("pdp test policies --filter 'tests/shown*'", place, environment)

    assert (0, "") == (done.returncode, done.stderr)


def test_policies_commands_run_beside_a_server(project_root: Path, place: Path, environment: dict[str, str]) -> None:
    """The commands for policy authors that ask a server work on one with the example."""
    with served("pdp serve", place, environment):
        done = run("\n".join(blocks(project_root / "policies" / "README.md", "sh served")), place, environment)

    assert 0 == done.returncode, done.stderr
    assert "denied: `guardrails/destructive-needs-grant`" in done.stdout


SIGNED = """
pdp bundle build policies -o policies.bundle
pdp bundle keygen -o release.key
pdp bundle sign policies.bundle --key release.key --number 42
"""


@pytest.mark.parametrize("source", ["file", "url"])
def test_packed_bundles_are_served_as_shown(
    project_root: Path, place: Path, environment: dict[str, str], source: str
) -> None:
    """The page's commands serve a signed bundle from a file and from a URL, and its version is the active one."""
    (command,) = blocks(project_root / "policies" / "README.md", f"sh serve {source}")
    made = run(SIGNED, place, environment)
    body = (place / "policies.bundle").read_bytes()

    with web_server(body, place) as web:
        here = command.replace("https://policies.example/", f"https://127.0.0.1:{web.server_port}/")
        trusting = {"PDP_POLICIES__URL_CA_FILE": "roots.pem"} if source == "url" else {}
        with served(here, place, {**environment, **trusting}):
            listed = run("pdp bundle list --json", place, environment)

    assert (0, "") == (made.returncode, made.stderr)
    active = [(one["version"], one["number"]) for one in json.loads(listed.stdout) if one["active"]]
    assert [(made.stdout.splitlines()[0], 42)] == active


def test_caller_commands_run(project_root: Path, place: Path, environment: dict[str, str]) -> None:
    """The commands that make, replace and take back a token do so, and print none."""
    revoker, gateway = blocks(project_root / "pdp" / "server" / "README.md", "sh callers")

    # The second begins with `pdp init`.
    done = run(f"{gateway}\n{revoker}", place, environment)

    assert 0 == done.returncode, done.stderr
    assert "ci-gateway  token       pep       default  users alice; agents coder  20" in done.stdout
    assert "pdpt_" not in done.stdout + done.stderr
    assert (place / "next.token").exists()


def test_certificate_and_token_commands_run(project_root: Path, place: Path, environment: dict[str, str]) -> None:
    """After a trial, the page's commands lead to a gateway that is known by its certificate, and on to a person.

    Nothing is set but the server's port and number of workers: where the commands ask, and what they trust and present,
    is theirs. The person approves what cannot be undone; a token does not.
    """
    page = project_root / "pdp" / "server" / "README.md"
    (trial,), (serve,), (serve_tokens,) = (
        blocks(project_root / "README.md", "sh serve"),
        blocks(page, "sh serve"),
        blocks(page, "sh serve tokens"),
    )
    del environment["PDP_ADDRESS"]
    shown = "\n".join(
        text for kind in ("sh", "sh served", "sh tokens", "sh served tokens") for text in blocks(page, kind)
    )

    with served(trial, place, environment):
        pass
    made = run("\n".join(blocks(page, "sh")), place, environment)
    with served(serve, place, environment):
        known = run("\n".join(blocks(page, "sh served")), place, environment)
    issued = run("\n".join(blocks(page, "sh tokens")), place, environment)
    with served(serve_tokens, place, environment):
        done = run("\n".join(blocks(page, "sh served tokens")), place, environment)

    assert (0, "") == (made.returncode, made.stderr)
    assert (0, True) == (known.returncode, known.stdout.startswith("ses_")), known.stderr
    assert (0, "") == (issued.returncode, issued.stderr)
    assert 0 == done.returncode, done.stderr
    assert "`git_reset` is destructive: its approver must have authenticated" in done.stdout
    # What one section sets would be set in the next.
    assert "export " not in shown


def test_record_commands_run(project_root: Path, place: Path, environment: dict[str, str]) -> None:
    """The commands that verify a record find nothing wrong in that of a server that has stopped."""
    with served("pdp serve", place, environment):
        pass

    done = run("\n".join(blocks(project_root / "pdp" / "record" / "README.md", "sh")), place, environment)

    assert (0, "") == (done.returncode, done.stderr)


def test_a_warning_is_silenced_as_shown(project_root: Path, place: Path, environment: dict[str, str]) -> None:
    """The policy that the page shows with an `@allow` has a warning without it, and none with it."""
    (policy,) = blocks(project_root / "policies" / "README.md", "cedar added")
    git = place / "policies" / "git.cedar"
    before = git.read_text(encoding="utf-8")

    git.write_text(f"{before}\n// Releases are cut by people.\n{policy}", encoding="utf-8")
    silenced = run("pdp check policies --deny warnings", place, environment)
    bare = re.sub(r"^@allow.*\n", "", policy, flags=re.MULTILINE)
    git.write_text(f"{before}\n// Releases are cut by people.\n{bare}", encoding="utf-8")
    loud = run("pdp check policies --deny warnings", place, environment)

    assert (0, "") == (silenced.returncode, silenced.stderr)
    assert "raw-string" in loud.stdout + loud.stderr
    assert 1 == loud.returncode


def test_telemetry_commands_run(project_root: Path, place: Path, environment: dict[str, str]) -> None:
    """The commands for whoever watches the server print what the page says."""
    done = run("\n".join(blocks(project_root / "pdp" / "telemetry" / "README.md", "sh")), place, environment)

    assert (0, "") == (done.returncode, done.stderr)


def test_deployment_commands_run(project_root: Path, place: Path, environment: dict[str, str]) -> None:
    """The commands for whoever runs the server work before there is one, and beside one."""
    page = project_root / "pdp" / "deployment" / "README.md"

    before = run("\n".join(blocks(page, "sh")), place, environment)
    with served("pdp serve", place, environment):
        beside = run("\n".join(blocks(page, "sh served")), place, environment)

    assert (0, 0) == (before.returncode, beside.returncode), before.stderr + beside.stderr
    assert beside.stdout.startswith("wrote `sessions-backup.sqlite`: ")


@pytest.mark.parametrize("name", ["README.md", "SECURITY.md", "tests/README.md", "pdp/README.md"])
def test_every_proof_exists(project_root: Path, name: str) -> None:
    """Each test that a page names as the proof of something is there."""
    text = (project_root / name).read_text(encoding="utf-8")
    named = set(re.findall(r"`(tests/[a-z_/]+(?:\.py|\.yaml)?)", text))

    assert [] == sorted(path for path in named if not (project_root / path).exists())


def test_threat_model_names_what_is_not_defended(project_root: Path) -> None:
    """The page says what is defended and where that is proved, what is not, and how to report."""
    text = (project_root / "SECURITY.md").read_text(encoding="utf-8")
    defended = text.partition("## What is defended")[2].partition("## What is not defended")[0]
    rows = [line.split("|") for line in defended.splitlines() if line.startswith("| ") and "proved in" not in line]

    assert ["## Report a vulnerability", "## Supported versions", "## What is not defended"] == [
        line for line in text.splitlines() if line.startswith(("## Rep", "## Supp", "## What is not"))
    ]
    assert rows
    assert all("`tests/" in row[3] for row in rows)


def test_grpcurl_body_is_a_request(project_root: Path) -> None:
    """What the README sends with grpcurl is what the API takes."""
    (command,) = blocks(project_root / "README.md", "console")
    match = re.search(r"-d '([^']*)'", command)
    assert match is not None

    request = json_format.Parse(match.group(1), authorization_pb2.AuthorizeRequest())

    assert b'{"repo_path": "/srv/app"}' == request.call.arguments_json
    assert command.strip().endswith("pdp.v1.AuthorizationService/Authorize")


def test_settings_table_is_current(project_root: Path) -> None:
    """The README names every setting with its spellings and default, and no other."""
    rows = re.findall(
        r"^\| `([a-z_.]+)` \| `(PDP_\w+)` \| `(--[a-z-]+)` \| `?([^|`]*)`? \| (.*) \|$",
        readme(project_root),
        re.MULTILINE,
    )

    assert [tuple(row) for row in describe()] == rows


def test_limits_table_is_current(project_root: Path) -> None:
    """The README's limits are the code's."""
    text = readme(project_root)
    limits = DEFAULT_LIMITS
    depth, nodes, delegation = limits.arguments_depth, limits.arguments_nodes, limits.delegation_depth
    kib, mib, hour, minute = 1024, 1024**2, 3600, 60

    for row in (
        f"| message, metadata | {limits.message_bytes // kib} KiB, {limits.metadata_bytes // kib} KiB |",
        f"| arguments | {limits.arguments_bytes // kib} KiB |",
        f"| depth, values, string of arguments | {depth}, {nodes:,}, {limits.string_bytes // kib} KiB |",
        f"| calls in a batch | {limits.batch_size} |",
        f"| policy file, bundle | {limits.policy_file_bytes // mib} MiB, {limits.bundle_bytes // mib} MiB |",
        f"| brackets and operators of one policy | {limits.policy_depth}, {limits.policy_terms} |",
        f"| tool patterns of a session | {limits.tool_patterns} |",
        f"| life of a session, depth of delegation | {limits.session_seconds // hour:.0f} h, {delegation} |",
        f"| open streams, idle time of one | {limits.streams}, {limits.stream_idle_seconds // minute:.0f} min |",
        f"| concurrent calls | {limits.concurrent_calls} |",
        f"| waiting time of a call | {limits.wait_seconds:g} s |",
    ):
        assert row in text


def readme(project_root: Path) -> str:
    """Return the text of the README."""
    return (project_root / "README.md").read_text(encoding="utf-8")


def test_readme_mcp_configuration_works(project_root: Path, place: Path, environment: dict[str, str]) -> None:
    """Whoever puts it into an MCP client gets one allowed and one denied call after a person's yes."""
    (text,) = blocks(project_root / "README.md", "json mcp")
    subprocess.run(["git", "init", "--quiet", str(place)], check=True)
    programs = Path(sys.executable).parent
    configured = text.replace("/srv/app/.venv/bin", str(programs)).replace("/srv/app", str(place))
    (server,) = json.loads(configured)["mcpServers"].values()

    async def task() -> tuple[str, str]:
        parameters = StdioServerParameters(command=server["command"], args=server["args"], env=environment)
        async with MCPClient(stdio_client(parameters)) as client:

            async def call(tool: str) -> str:
                (content,) = (await client.call_tool(tool, {"repo_path": str(place)})).content
                assert isinstance(content, TextContent)
                return content.text

            # By its path: the shell of the person may not find it.
            found = re.search(rf"`({re.escape(server['command'])} session approve [^`]*)`", await call("git_status"))
            assert found is not None
            await asyncio.to_thread(run, f"{found.group(1)} --yes", place, environment)
            async with asyncio.timeout(PAGE_SECONDS):
                while "Waiting for approval" in (allowed := await call("git_status")):  # noqa: ASYNC110 - the proxy is another process
                    await asyncio.sleep(0.1)
            return allowed, await call("git_reset")

    # A path that is short: a socket's may have 107 bytes.
    with TemporaryDirectory(prefix="pdp-") as state:
        environment = environment | {"XDG_STATE_HOME": state}
        allowed, denied = asyncio.run(task())

    assert "Repository status" in allowed
    assert denied.startswith("Denied (forbid): the call of `git/git_reset` did not run")
