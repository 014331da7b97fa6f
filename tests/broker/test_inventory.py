"""The inventory finds the secrets that lie about, says who can read them, and never shows one."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory

import pytest
from click.testing import CliRunner

from pdp.broker.cli.root import root
from pdp.broker.inventory.finding import Find, take_inventory
from pdp.broker.inventory.shapes import recognised
from pdp.broker.inventory.texts import UnreadableError, named_texts
from pdp.testing.waiting import wait_until

GITHUB = "ghp_" + "aB3" * 12
UNKNOWN = "9f8e7d6c5b4a39281706"


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("ANY", GITHUB, "github"),
        ("ANY", "github_pat_" + "a1_" * 12, "github"),
        ("ANY", f"Bearer {GITHUB}", "github"),
        ("ANY", "glpat-" + "x1" * 12, "gitlab"),
        ("ANY", "xoxb-1234567890-abcdef", "slack"),
        ("ANY", "sk-ant-api03-" + "x1" * 20, "anthropic"),
        ("ANY", "sk-proj-" + "x1" * 20, "openai"),
        ("ANY", "sk_live_" + "x1" * 10, "stripe"),
        ("ANY", "AKIAIOSFODNN7EXAMPLE", "aws"),
        ("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG/bPxRfiCY", "aws"),
        ("ANY", "-----BEGIN PRIVATE KEY-----\nMIIB", "private-key"),
        ("DATABASE_URL", "postgresql+psycopg://alice:s3cret@db/app", "postgresql"),
        ("url", "https://alice:s3cret@tickets.example.com/x", "tickets-example-com"),
        ("url", f"https://mcp.example.com/sse?api_key={UNKNOWN}", "other"),
        ("BRAVE_API_KEY", UNKNOWN, "brave"),
        ("api-key", UNKNOWN, "other"),
        ("acmeApiKey", UNKNOWN, "acme"),
        ("X-Figma-Token", UNKNOWN, "figma"),
        ("X-Api-Key", UNKNOWN, "other"),
        ("PGPASSWORD", "hunter2", "pg"),
        ("Authorization", f"Bearer {UNKNOWN}", "other"),
    ],
)
def test_a_secret_is_known_by_its_form_or_name(name: str, value: str, kind: str) -> None:
    """A form that an issuer gives it, a login in a URL, or the name under which it stands."""
    shape = recognised(name, value)

    assert shape
    assert kind == shape.kind


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GITHUB_TOKEN", ""),
        ("GITHUB_TOKEN", "${GITHUB_TOKEN}"),
        ("GITHUB_TOKEN", "$GITHUB_TOKEN"),
        ("GITHUB_TOKEN", "<your token>"),
        ("GITHUB_TOKEN", "your-token-goes-here"),
        ("GITHUB_TOKEN", "xxxxxxxxxxxxxxxxxxxx"),
        ("GITHUB_TOKEN", "op://vault/github/token"),
        ("Authorization", "Bearer ${input:token}"),
        ("TOKEN_FILE", "/run/secrets/token-of-github"),
        ("API_KEY", "/run/secrets/token-of-github"),
        ("API_KEY", "short"),
        ("PUBLIC_KEY", UNKNOWN),
        ("DATABASE_URL", "postgresql://alice:${PASSWORD}@db/app"),
        ("url", "https://api.example.com/v1?token_file=/run/secrets/x"),
        ("url", "http://[broken"),
        ("url", "a://?x=" * 5_000),
        ("description", "a tool that needs a token and a password"),
        ("LOG_LEVEL", "information-and-more"),
    ],
)
def test_what_is_no_secret_is_left_alone(name: str, value: str) -> None:
    """Placeholders, references, paths, short words and texts under other names are no finds."""
    assert recognised(name, value) is None


CLIENT = """{
  // as editors allow
  "mcpServers": {
    "github": {"command": "x", "args": ["--token", "GITHUB", "--port=8080"], "env": {"A": "1", "B_TOKEN": "UNKNOWN"}},
    "remote": {"url": "https://mcp.acme.example/mcp", "headers": {"Authorization": "Bearer UNKNOWN"},},
  },
}""".replace("GITHUB", GITHUB).replace("UNKNOWN", UNKNOWN)


@pytest.mark.parametrize(
    ("file", "text", "places"),
    [
        (
            "mcp.json",
            CLIENT,
            {
                "mcpServers.github.args.1",
                "mcpServers.github.env.B_TOKEN",
                "mcpServers.remote.headers.Authorization",
            },
        ),
        ("x.toml", f'[mcp_servers.a.env]\nA_TOKEN = "{UNKNOWN}"\n', {"mcp_servers.a.env.A_TOKEN"}),
        ("x.yaml", f"servers:\n  a: {{env: [A_TOKEN={UNKNOWN}]}}\n", {"servers.a.env.0"}),
        (".env", f"# A\nexport A_TOKEN='{UNKNOWN}'\nB_TOKEN={UNKNOWN} # of B\nC=1\nnoise\n", {"A_TOKEN", "B_TOKEN"}),
        ("environ", f"A_TOKEN={UNKNOWN}\0HOME=/root\0", {"A_TOKEN"}),
        ("environ", "ANY=-----BEGIN PRIVATE KEY-----\nMIIB\n\0B_PASSWORD='a'bcd\0", {"ANY", "B_PASSWORD"}),
        ("twice.json", f'{{"A_TOKEN": "{UNKNOWN}", "A_TOKEN": ""}}', {"A_TOKEN"}),
    ],
)
def test_each_format_is_read_with_its_names(file: str, text: str, places: set[str]) -> None:
    """JSON with comments, TOML, YAML, lines of variables, and the environment of a process."""
    found = {one.place for one in named_texts(PurePath(file), text.encode()) if recognised(one.name, one.value)}

    assert places == found


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("a.json", b'{"a": '),
        ("a.json", b"[" * 100_000),
        ("a.json", b'{"a": "' + b'\\"' * 1_000_000),
        ("a.json", b"/*" * 1_000_000),
        ("a.toml", b"a = "),
        ("a.yaml", b"a: [" * 100),
        (".env", b"A_TOKEN=\xff\xfe"),
    ],
)
def test_a_broken_file_is_named_and_costs_little(file: str, content: bytes) -> None:
    """What is not in its format is said in one line that holds nothing of it."""
    with pytest.raises(UnreadableError, match=r"^(not JSON|not TOML|not plain YAML|not UTF-8|too deep)[ (),a-z0-9]*$"):
        list(named_texts(PurePath(file), content))


def test_folders_are_searched_for_known_names_and_named_files_are_read(tmp_path: Path) -> None:
    """A folder gives the files of MCP clients and tools; packages and other files are left alone."""
    for name in (".env", "a/mcp.json", "a/.codex/config.toml", "other/config.toml", "node_modules/b/.env", "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("" if name.endswith(".toml") else "{}")
    os.mkfifo(tmp_path / ".env.pipe")

    found = take_inventory([tmp_path, tmp_path / "notes.txt", tmp_path / ".env"])

    assert 4 == found.read
    assert {tmp_path / ".env.pipe": "not a file"} == found.unread


@pytest.mark.parametrize(
    ("folder_mode", "file_mode", "readers"),
    [
        (0o755, 0o644, "everyone on this machine"),
        (0o700, 0o644, "{user} alone"),
        (0o755, 0o600, "{user} alone"),
        (0o750, 0o640, "{user}, and the group"),
    ],
)
def test_readers_are_those_whom_file_and_folders_let_in(folder_mode: int, file_mode: int, readers: str) -> None:
    """A file that everyone may read is everyone's only where its folders let them through."""
    # Not `tmp_path`, into which nobody else may.
    with TemporaryDirectory() as folder:
        file = Path(folder) / ".env"
        file.write_text(f"GITHUB_TOKEN={GITHUB}")
        file.chmod(file_mode)
        file.parent.chmod(folder_mode)

        (find,) = take_inventory([file]).finds

    assert find.readers.startswith(readers.format(user=find.user))


@pytest.fixture
def holder() -> Iterator[subprocess.Popen[bytes]]:
    """Run a process that has a secret in its environment."""
    with subprocess.Popen(["sleep", "60"], env={"PATH": os.environ["PATH"], "BRAVE_API_KEY": UNKNOWN}) as process:
        # `Popen` returns while the new program is still being loaded, when its environment reads as empty.
        wait_until(lambda: bool(Path(f"/proc/{process.pid}/environ").read_bytes()))
        yield process
        process.kill()


def test_the_environment_of_a_process_is_found_with_its_start(holder: subprocess.Popen[bytes]) -> None:
    """A secret in a running process is a find of that process, and as old as it is."""
    finds = {find.file: find for find in take_inventory([], processes=True).finds}

    find: Find = finds[Path(f"/proc/{holder.pid}/environ")]
    assert ("brave", "BRAVE_API_KEY of `sleep`") == (find.shape.kind, find.place)
    assert abs(time.time() - find.since) < 60


def test_the_command_shows_where_and_how_and_never_what(tmp_path: Path) -> None:
    """Each find has its place, its readers, and the commands that move it; equal secrets are one."""
    (tmp_path / "mcp.json").write_text(CLIENT)
    login = "DATABASE_URL=postgresql://alice:s3cret@db/app"
    (tmp_path / ".env").write_text(f"COPY_TOKEN={GITHUB}\nAWS_SECRET_ACCESS_KEY=wJalrXUtnFEMIK7MDENGbPx\n{login}\n")

    done = CliRunner().invoke(root, ["inventory", str(tmp_path)])
    plain = CliRunner().invoke(root, ["inventory", str(tmp_path), "--json"])

    assert (1, 1) == (done.exit_code, plain.exit_code)
    assert not any(secret in done.output + plain.output for secret in (GITHUB, UNKNOWN, "wJalrXUtnFEMIK7MDENGbPx"))
    assert "4 secrets in 6 places; 2 files read" in done.output
    assert " connection add github --kind github --upstream https://api.github.com --mode proxy\n" in done.output
    finds = json.loads(plain.output)["finds"]
    assert {"COPY_TOKEN", "mcpServers.github.args.1"} == {one["place"] for one in finds if one["kind"] == "github"}
    assert 1 == len({one["secret"] for one in finds if one["kind"] == "github"})
    (remote,) = (one for one in finds if one["place"].startswith("mcpServers.remote"))
    assert "https://mcp.acme.example" == remote["upstream"]
    assert "mcp-acme-example" == remote["kind"]
    (aws,) = (one for one in finds if one["kind"] == "aws")
    assert ([], True) == (aws["commands"], bool(aws["uncovered"]))
    (database,) = (one for one in finds if one["place"] == "DATABASE_URL")
    assert "`pdp-broker connection add --database`" in database["uncovered"]


def test_nothing_found_is_success_and_nothing_named_an_error(tmp_path: Path) -> None:
    """Scripts learn by the exit code whether a secret lies about."""
    (tmp_path / ".env").write_text("LOG_LEVEL=info\n")

    assert 0 == CliRunner().invoke(root, ["inventory", str(tmp_path)]).exit_code
    assert 2 == CliRunner().invoke(root, ["inventory"]).exit_code
