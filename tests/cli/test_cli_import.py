"""`pdp tools import`: catalogues from files, from stdin and from real servers, and overlays that stay."""

from __future__ import annotations

import json
import logging
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pdp.policy.tools.catalogue import load_catalogue
from pdp.testing.bundles import tool
from tests.cli.conftest import Run

WITHOUT_CREDENTIALS = (
    "it wants credentials (status 401): give them in a file of headers, with a line such as `Authorization: Bearer …`"
)
ONE_SOURCE = "error: pass either a file (`-` for stdin), --command, --upstream or --servers"
CATALOGUE, OVERLAY = Path("policies/tools/files.json"), Path("policies/tools/files.yaml")

# A server of the official package that gives its tools one a page and says something on stderr.
PAGED_SERVER = """
import sys, anyio
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from mcp.types import ListToolsResult, Tool

async def listed(context, params):
    page = int(params.cursor or 0) if params else 0
    tool = Tool(name=f"get_{page}", description="one", inputSchema={"type": "object"})
    return ListToolsResult(tools=[tool], next_cursor=str(page + 1) if page < 2 else None)

async def main():
    server = Server("paged", on_list_tools=listed)
    async with stdio_server() as (reader, writer):
        await server.run(reader, writer, server.create_initialization_options())

print("noise", file=sys.stderr)
anyio.run(main)
"""


# The same by streamable HTTP, for callers with a token; it prints its port.
HTTP_SERVER = """
import socket, uvicorn
from mcp.server.lowlevel import Server
from mcp.types import ListToolsResult, Tool

async def listed(context, params):
    page = int(params.cursor or 0) if params else 0
    tool = Tool(name=f"get_{page}", title="Shown", description="one", inputSchema={"type": "object"})
    return ListToolsResult(tools=[tool], next_cursor=str(page + 1) if page < 2 else None)

app = Server("web", on_list_tools=listed).streamable_http_app()

async def guarded(scope, receive, send):
    if scope["type"] == "http" and (b"authorization", b"Bearer sesame") not in scope["headers"]:
        await send({"type": "http.response.start", "status": 401, "headers": []})
        await send({"type": "http.response.body", "body": b""})
    else:
        await app(scope, receive, send)

listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
uvicorn.Server(uvicorn.Config(guarded, log_level="critical")).run(sockets=[listener])
"""


@pytest.fixture
def web_server() -> Iterator[str]:
    """Run a tool server that answers by HTTP, and return its URL."""
    pytest.importorskip("uvicorn")
    with subprocess.Popen([sys.executable, "-c", HTTP_SERVER], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}/mcp"
        process.kill()


def answer(*names: str, description: str = "x") -> str:
    """Return a `tools/list` answer."""
    return json.dumps({"tools": [tool(name) | {"description": description} for name in names]})


def private(name: str, text: str) -> str:
    """Write a file that nobody else can read or change, and return its name."""
    Path(name).write_text(text, encoding="ascii")
    Path(name).chmod(0o600)
    return name


def command(program: str) -> str:
    """Return the command line of a Python program."""
    return shlex.join([sys.executable, "-c", program])


def test_import_from_file_writes_catalogue_and_overlay(run: Run) -> None:
    """The catalogue holds the definitions, and the overlay proposes a risk group for each tool."""
    Path("answer.json").write_text(answer("get_file", "delete_file"), encoding="utf-8")

    done = run("tools", "import", "files", "answer.json")

    assert (0, "") == (done.exit_code, done.stderr)
    assert [
        "policies/tools/files.json: 2 tools: 2 added, 0 changed, 0 removed",
        "  + delete_file",
        "  + get_file",
        "policies/tools/files.yaml: proposed; review its risk groups before you rely on them",
    ] == done.stdout.splitlines()
    catalogue = load_catalogue({f"tools/{path.name}": path.read_bytes() for path in (CATALOGUE, OVERLAY)})
    assert {"files/delete_file": "destructive", "files/get_file": "read_only"} == {
        action: one.risk for action, one in catalogue.tools.items()
    }


def test_what_policies_cannot_see_is_said(run: Run) -> None:
    """Import, list and the proposed overlay name opaque parameters with the reason; import warns of bad tools."""
    pay = tool("pay", {"amount": {"type": "number"}, "to": {"type": "string"}})
    bad = tool("bad", {"x": {"$ref": "https://example.com/x"}})

    done = run("tools", "import", "files", "-", stdin=json.dumps({"tools": [pay, bad]}))
    listed = run("tools", "list")
    as_json = json.loads(run("tools", "list", "--json").stdout)

    assert 0 == done.exit_code, done.output
    assert "policies cannot see `amount` of pay: a number; `type: decimal` would type it" in done.stdout
    assert "warning: every call of `files/bad` is denied: " in done.stdout
    assert '    # policies cannot see "amount": a number; `type: decimal` would type it\n' in OVERLAY.read_text("utf-8")
    assert [["bad", "everything:"], ["pay", "amount"]] == [
        [line.split()[0].removeprefix("files/"), line.split()[4]] for line in listed.stdout.splitlines()[1:]
    ]
    assert [["x"], ["amount"]] == [list(one["opaque"]) for one in as_json]


def test_list_shows_the_labels_that_tools_add(run: Run) -> None:
    """What a call adds to its session, as `pdp session show` does; nothing for a tool that adds none."""
    run("tools", "import", "files", "-", stdin=json.dumps({"tools": [tool("fetch"), tool("save")]}))
    OVERLAY.write_text("tools: {fetch: {risk: read_only, adds_labels: [untrusted, far]}}\n", encoding="utf-8")

    listed = run("tools", "list").stdout.splitlines()
    as_json = json.loads(run("tools", "list", "--json").stdout)

    assert "adds labels" in listed[0]
    assert listed[1].split("read_only")[1].strip().startswith("far, untrusted ")
    assert {"fetch": ["far", "untrusted"], "save": []} == {one["tool"]: one["adds_labels"] for one in as_json}


def test_import_from_stdin_says_what_changed(run: Run) -> None:
    """A second import names what was added, changed and removed, and keeps the overlay."""
    run("tools", "import", "files", "-", stdin=answer("same", "gone") + "\n")
    OVERLAY.write_text("tools: {same: {risk: destructive}}\n", encoding="utf-8")
    listed = json.loads(answer("same"))["tools"] + json.loads(answer("new"))["tools"]

    done = run("tools", "import", "files", "-", stdin=json.dumps(listed))
    changed = run("tools", "import", "files", "-", "--json", stdin=answer("same", "new", description="other"))

    assert [
        "policies/tools/files.json: 2 tools: 1 added, 0 changed, 1 removed",
        "  + new",
        "  - gone",
        "policies/tools/files.yaml: kept; it does not name new, so these count as destructive",
    ] == done.stdout.splitlines()
    facts = json.loads(changed.stdout)
    assert ([], ["new", "same"], []) == (facts["added"], facts["changed"], facts["removed"])
    assert (False, ["new"]) == (facts["overlay_written"], facts["not_in_overlay"])
    assert "tools: {same: {risk: destructive}}\n" == OVERLAY.read_text(encoding="utf-8")


def test_import_replaces_an_overlay_only_when_forced(run: Run) -> None:
    """`--force` writes a new proposal over the author's overlay."""
    run("tools", "import", "files", "-", stdin=answer("get_file"))
    OVERLAY.write_text("tools: {get_file: {risk: destructive}}\n", encoding="utf-8")

    done = run("tools", "import", "files", "-", "--force", stdin=answer("get_file"))

    assert 0 == done.exit_code
    assert "get_file: {risk: read_only}" in OVERLAY.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "text", "expected"),
    [
        (("files", "-"), "{", "error: stdin: not JSON (line 1, column 2)"),
        (("files", "-"), "{}", "error: stdin: not a `tools/list` answer: a list of tools is expected"),
        (("files", "-"), '{"tools": [], "nextCursor": "2"}', "error: stdin: one page of several"),
        (("files", "-"), answer("a", "a"), "error: tools/files.json: tool `a` appears twice"),
        (("files", "-"), answer("a\x1b[2J"), "error: tools/files.json: a tool's name holds a control"),
        (("pdp", "-"), answer("a"), "error: the server name `pdp` is reserved"),
        (("../x", "-"), answer("a"), "error: a server's name must be 1 to 64 characters of"),
        (("files",), "", ONE_SOURCE),
        (
            ("files", "-", "--command", "x"),
            "",
            ONE_SOURCE,
        ),
        (("files", "nope.json"), "", "error: `nope.json`: no such file or directory"),
        (("--command", "x"), "", "error: pass the server's name in the catalogue"),
        (("files", "--upstream", "x"), "", "error: the server's URL must be `https://…`, or `http://…` on loopback"),
        (("files", "--upstream", "http://a.example"), "", "error: the server's URL must be `https://…`, or `http://…`"),
        (("files", "--upstream", "https://a.example", "--headers-file", "no"), "", "error: cannot read `no`: no such"),
        (("files", "-", "--headers-file", "x"), "", "error: --headers-file needs --upstream"),
        (("--servers", "x", "--upstream-tls-roots", "x"), "", "error: --upstream-tls-roots needs --upstream"),
        (("--servers", "no-such-file"), "", "error: cannot read `no-such-file`: no such file or directory"),
        (("files", "--command", "'"), "", "error: --command is not a command line: no closing quotation"),
        (("files", "-", "--policies", "policy"), answer("a"), "error: the policy folder `policy` does not exist"),
        (("files", "--command", ""), "", "error: --command is empty"),
        (("files", "--command", "no-such-program"), "", "error: cannot list the tools of `no-such-program`: no such"),
        (("files", "--", "no-such-program"), "", "error: cannot list the tools of `no-such-program`: no such"),
        (("files", "-", "--", "x"), "", ONE_SOURCE),
        (("--", "x", "-y"), "", "error: pass the server's name in the catalogue"),
    ],
)
def test_what_cannot_be_imported_is_refused(run: Run, words: tuple[str, ...], text: str, expected: str) -> None:
    """A wrong answer or a wrong use is one line, and writes nothing."""
    done = run("tools", "import", *words, stdin=text)

    assert (2, "") == (done.exit_code, done.stdout)
    assert done.stderr.startswith(expected)
    assert 1 == done.stderr.count("\n")
    assert [] == list(Path().iterdir())


def test_import_from_a_real_server(run: Run) -> None:
    """The tools of a real MCP server are imported over stdio; a second import finds nothing new."""
    pytest.importorskip("mcp_server_git")

    first = run("tools", "import", "git", "--command", f"{sys.executable} -m mcp_server_git")
    second = run("tools", "import", "git", "--command", f"{sys.executable} -m mcp_server_git")

    assert (0, 0) == (first.exit_code, second.exit_code), first.output
    assert "  + git_status\n" in first.stdout
    assert "0 added, 0 changed, 0 removed" in second.stdout


def test_import_reads_all_pages(run: Run) -> None:
    """A server that gives its tools page by page is read to the end."""
    pytest.importorskip("mcp")

    done = run("tools", "import", "paged", "--command", command(PAGED_SERVER))

    assert 0 == done.exit_code, done.output
    assert ["  + get_0", "  + get_1", "  + get_2"] == done.stdout.splitlines()[1:4]


def test_what_follows_two_dashes_is_the_server(run: Run) -> None:
    """Its words are taken as they are, as by `pdp mcp`."""
    pytest.importorskip("mcp")

    done = run("tools", "import", "paged", "--", sys.executable, "-c", PAGED_SERVER)

    assert 0 == done.exit_code, done.output
    assert ["  + get_0", "  + get_1", "  + get_2"] == done.stdout.splitlines()[1:4]


def test_server_sees_no_variable_of_ours(run: Run) -> None:
    """A tool server that is started gets the environment without what belongs to the PDP."""
    pytest.importorskip("mcp")
    told = "import os, sys; sys.exit(' '.join(sorted(n for n in os.environ if 'PDP_' in n)))"

    done = run("tools", "import", "x", "--command", command(told), env={"PDP_SESSION_HANDLE": "s", "NOT_PDP_X": "t"})

    assert f"error: cannot list the tools of `{sys.executable}`: connection closed; it said: NOT_PDP_X\n" == done.stderr


def test_silent_server_is_given_up(run: Run) -> None:
    """A server that does not answer in time is an error."""
    pytest.importorskip("mcp")

    done = run("tools", "import", "x", "--timeout", "1", "--command", command("import sys; sys.stdin.read()"))

    assert (2, f"error: cannot list the tools of `{sys.executable}`: no answer in 1 s\n") == (
        done.exit_code,
        done.stderr,
    )


def test_import_by_http(run: Run, web_server: str) -> None:
    """A server that answers at a URL is read to its last page, with headers from a file; so is one of a file."""
    headers = private("headers", "Authorization: Bearer sesame\n")
    private("servers.yaml", f"web: {{upstream: '{web_server}', headers_file: {headers}}}\n")

    done = run("tools", "import", "web", "--upstream", web_server, "--headers-file", headers)
    refused = run("tools", "import", "web", "--upstream", web_server)
    again = run("tools", "import", "web", "--servers", "servers.yaml")

    assert 0 == done.exit_code, done.output
    assert ["  + get_0", "  + get_1", "  + get_2"] == done.stdout.splitlines()[1:4]
    assert (2, f"error: cannot list the tools of `{web_server}`: {WITHOUT_CREDENTIALS}\n") == (
        refused.exit_code,
        refused.stderr,
    )
    assert "3 tools: 0 added, 0 changed, 0 removed" in again.stdout


def test_all_servers_of_a_file_are_imported_or_none(run: Run, web_server: str) -> None:
    """Each has its files; while one of them does not answer, nothing is written, and another can be named."""
    good = f"{{upstream: '{web_server}', headers_file: {private('headers', 'Authorization: Bearer sesame')}}}"
    private("servers.yaml", f"one: {good}\ntwo: {good}\n")
    private("broken.yaml", f"one: {good}\ntwo: {{upstream: '{web_server}'}}\n")

    refused = run("tools", "import", "--servers", "broken.yaml")
    written = Path("policies").exists()
    unknown = run("tools", "import", "thre", "--servers", "servers.yaml")
    single = run("tools", "import", "one", "--servers", "broken.yaml", "--json")
    both = run("tools", "import", "--servers", "servers.yaml", "--json")

    assert (2, False) == (refused.exit_code, written)
    assert f"cannot list the tools of `{web_server}`: {WITHOUT_CREDENTIALS}" in refused.stderr
    assert "error: `servers.yaml`: unknown server: `thre`" in unknown.stderr
    assert ["get_0", "get_1", "get_2"] == json.loads(single.stdout)["added"]
    assert [("policies/tools/one.json", []), ("policies/tools/two.json", ["get_0", "get_1", "get_2"])] == [
        (one["catalogue"], one["added"]) for one in json.loads(both.stdout)
    ]


def test_nothing_at_the_url_is_an_error(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing answers, one line says so."""
    pytest.importorskip("mcp")

    # As outside of tests: without a handler, logs go to stderr.
    monkeypatch.setattr(logging.getLogger(), "handlers", [])

    done = run("tools", "import", "x", "--upstream", "http://127.0.0.1:9/mcp", "--timeout", "20")

    assert 2 == done.exit_code
    assert done.stderr.startswith("error: cannot list the tools of `http://127.0.0.1:9/mcp`: no connection: ")
    assert 1 == done.stderr.count("\n")


def test_missing_package_is_named() -> None:
    """Without the optional `mcp` package, `--command` says what to install."""
    program = (
        "import sys; sys.modules['mcp'] = None; sys.argv = ['pdp', 'tools', 'import', 'x', '--command', 'y']; "
        "from pdp.cli import main; main()"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)

    assert (2, "error: `mcp` is not installed: pip install 'agent-pdp[demo]'\n") == (done.returncode, done.stderr)


def test_all_shared_tool_lists_import(run: Run, test_data: Path) -> None:
    """Every real tool list of the test material becomes a catalogue that loads with its proposed overlay."""
    lists = sorted((test_data / "mcp-tools").glob("*.tools.json"))

    counts = []
    for path in lists:
        done = run("tools", "import", path.name.removesuffix(".tools.json"), str(path), "--json")
        assert 0 == done.exit_code, done.output
        counts.append(json.loads(done.stdout)["tools"])

    files = {f"tools/{path.name}": path.read_bytes() for path in Path("policies/tools").iterdir()}
    assert (5, 146, 146) == (len(lists), sum(counts), len(load_catalogue(files).tools))
