"""Commands that need no server: start-up files, the policy folder, the version, and errors in one line."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import click
import pytest

from pdp import __version__
from pdp.app.embedded import compile_once
from pdp.cli.bundle.versions import PACKING, bundle
from pdp.cli.groups import CommandEntry, CommandTable
from pdp.cli.root import COMMANDS, root
from pdp.config.reading import describe, section_titles
from pdp.limits import DEFAULT_LIMITS
from pdp.model import Role
from pdp.policy.contents import read_folder
from pdp.policy.loading import load_bundle
from pdp.testing.bundles import with_terms
from tests.cli.conftest import Run
from tests.machinery.servers.commandline import start_server, stop_server, write_bundle

ROLES = sorted(role.value for role in Role)


def commands(group: click.Group, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield every command with the words that lead to it."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield (*words, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*words, name))


def test_init_writes_secrets_for_their_owner_alone(run: Run) -> None:
    """`pdp init` writes tokens and key, and only their owner can read them."""
    done = run("init", "--data-dir", "d")

    assert (0, "") == (done.exit_code, done.stderr)
    files = [Path("d/record.key"), Path("d/callers.yaml"), *(Path(f"d/tokens/{role}.token") for role in ROLES)]
    assert [0o600] * len(files) == [stat.S_IMODE(path.stat().st_mode) for path in files]
    assert [0o700] * 2 == [stat.S_IMODE(Path(folder).stat().st_mode) for folder in ("d", "d/tokens")]
    assert 32 == len(Path("d/record.key").read_bytes())


def test_init_overwrites_nothing(run: Run) -> None:
    """A second `pdp init` changes no byte and leaves nothing behind."""
    run("init")
    before = {path: path.read_bytes() for path in Path(".pdp").rglob("*") if path.is_file()}

    done = run("init")

    assert (0, "nothing to do: `.pdp` is complete\n") == (done.exit_code, done.stdout)
    assert before == {path: path.read_bytes() for path in Path(".pdp").rglob("*") if path.is_file()}


def test_init_adds_only_what_is_missing(run: Run) -> None:
    """A lost key is written anew, and the callers stay."""
    run("init")
    callers = Path(".pdp/callers.yaml").read_bytes()
    Path(".pdp/record.key").unlink()

    done = run("init")

    assert "wrote .pdp/record.key\n" == done.stdout
    assert callers == Path(".pdp/callers.yaml").read_bytes()


def test_data_folder_must_be_a_folder(run: Run) -> None:
    """A file in the place of the data folder is named, with the setting."""
    Path("d").write_text("", encoding="ascii")

    done = run("init", "--data-dir", "d")

    assert (2, "error: `data_dir` is not a folder: `d`\n") == (done.exit_code, done.stderr)


def test_init_marks_callers_for_development_on_demand(run: Run) -> None:
    """What `pdp init` makes is to be kept, and with `--development` it is for trying things out."""
    run("init", "--data-dir", "kept")
    run("init", "--data-dir", "tried", "--development")

    marked = [Path(folder, "callers.yaml").read_text().count("development: true") for folder in ("kept", "tried")]
    assert [0, len(ROLES)] == marked


def test_init_shows_no_secret(run: Run) -> None:
    """What `pdp init` prints holds no token."""
    done = run("init")

    assert "pdpt_" not in done.output
    assert Path(".pdp/tokens/pep.token").read_text(encoding="ascii").startswith("pdpt_")


def test_version(run: Run) -> None:
    """`pdp version` and `pdp --version` name the version, for people and for scripts."""
    assert f"pdp {__version__}\n" == run("--version").stdout
    assert run("version").stdout.startswith(f"pdp {__version__} · cedarpy ")
    assert __version__ == json.loads(run("version", "--json").stdout)["pdp"]


def test_check_accepts_good_folder(run: Run, policies: Path) -> None:
    """A folder that loads is said to load, with the version that a server would report."""
    write_bundle(policies, schema=with_terms("ticket?: String"))
    bundle = load_bundle(read_folder(policies, DEFAULT_LIMITS), DEFAULT_LIMITS, compile_once())

    done = run("check", str(policies))
    as_json = run("check", "--json")

    assert (0, f"{policies}: 3 policies, 2 tools, {bundle.version}\n") == (done.exit_code, done.stdout)
    assert {"valid": True, "version": bundle.version, "problems": []} == json.loads(as_json.stdout)


def test_check_names_file_and_line(run: Run, tmp_path: Path) -> None:
    """Each problem of a folder names file, line and column, and the exit code is 1."""
    wrong = '\n@id("files/wrong")\npermit (principal, action, resource) when { principal.shoe == 3 };\n'
    folder = write_bundle(tmp_path / "bad", policies={"files": wrong}, schema=with_terms("ticket?: String"))

    done = run("check", str(folder))
    as_json = run("check", str(folder), "--json")

    assert (1, "") == (done.exit_code, done.stderr)
    assert done.stdout.startswith(f"{folder}/files.cedar:3:45: error[unknown-attribute]: ")
    answer = json.loads(as_json.stdout)
    assert (1, False, "") == (as_json.exit_code, answer["valid"], answer["version"])
    assert [("files.cedar", 3)] == [(problem["file"], problem["line"]) for problem in answer["problems"]]


def test_check_names_all_problems(run: Run, tmp_path: Path) -> None:
    """Problems of several files are printed together."""
    folder = write_bundle(
        tmp_path / "bad", overlays={"files": "tools: {raed: {risk: read_only}}"}, directory="user: {}"
    )

    done = run("check", str(folder))

    assert 1 == done.exit_code
    assert {f"{folder}/tools/files.yaml:1", f"{folder}/directory.yaml:1"} == {
        ":".join(line.split(":")[:2]) for line in done.stdout.splitlines() if ": error[" in line
    }


def test_check_reads_the_limits_of_the_settings(run: Run, policies: Path) -> None:
    """A folder is checked against the limits that the server would have."""
    done = run("check", str(policies), env={"PDP_LIMITS__BUNDLE_BYTES": "10"})

    assert 1 == done.exit_code
    assert "the bundle is larger than 10 bytes (limit `bundle_bytes`)" in done.stdout


def test_schema_is_the_whole_schema(run: Run, policies: Path) -> None:
    """The printed schema holds the author's types and an action for each tool."""
    done = run("schema", str(policies))

    assert 0 == done.exit_code
    for part in ("entity Thing", 'action "files/read"', 'action "files/write"', '"pdp/request_session"', "read_only"):
        assert part in done.stdout


def test_the_schema_declares_what_is_counted(run: Run, policies: Path) -> None:
    """Each name that a policy reads, for each tool; without one there is nothing of it."""
    without = run("schema", str(policies))
    rule = 'forbid (principal, action == Action::"files/write", resource) when { context.counts["files/read"] > 3 };'
    (policies / "often.cedar").write_text(f'@id("often/x") {rule}', encoding="utf-8")
    done = run("schema", str(policies))

    assert (0, 0, False) == (without.exit_code, done.exit_code, "counts" in without.stdout)
    assert 2 == done.stdout.count('counts: { "files/read": Long }')


def test_tools_list(run: Run, policies: Path) -> None:
    """Every tool is listed with its risk group; in plain columns without a terminal."""
    done = run("tools", "list")
    as_json = run("tools", "list", "--policies", str(policies), "--json")

    rows = [line.split()[:3] for line in done.stdout.splitlines()]
    assert [
        ["tool", "groups", "adds"],
        ["files/read", "read_only", "Server"],
        ["files/write", "mutating", "Server"],
    ] == rows
    assert ["read", "write"] == [one["tool"] for one in json.loads(as_json.stdout)]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("frob",), "error: no such command: `frob`; `pdp --help` lists the commands"),
        (("session", "aprove"), "error: no such command: `aprove`; did you mean `approve`?"),
        (("store", "frob"), "error: no such command: `frob`; `pdp store --help` lists the commands"),
        (("sevre",), "error: no such command: `sevre`; did you mean `serve`?"),
        (("init", "extra"), "error: got unexpected extra argument (extra)"),
        (("check", "--frob"), "error: no such option"),
        (("serve", "--server-threads", "many"), "error: `--server-threads` must be a whole number, not `many`"),
        (("serve", "--server-reflection", "--server-threads", "x"), "error: `--server-threads` must be a whole number"),
        (("serve", "--server-reflection=maybe"), "error: `--server-reflection` must be `true` or `false`, not `maybe`"),
        (("init", "--config", "nope.yaml"), "error: the configuration file: cannot read `nope.yaml`: no such file or"),
        (("tools", "list", "--policies", "nope"), "error: nope: does not exist"),
        (("schema", "nope"), "error: nope: does not exist"),
        (("session", "list"), "error: no token: `.pdp/tokens/approver.token` does not exist; run `pdp init`"),
        (("authorize", "git"), "error: missing argument 'TOOL'"),
        (("authorize", "git/git_log", "{}"), "error: `git/git_log`: name server and tool in two words: git git_log"),
        (
            ("session", "request", "--duration", "soon"),
            "error: invalid value for '--duration': `soon` is not a duration",
        ),
        (("session", "request", "--duration", "0"), "error: invalid value for '--duration': `0` is not a duration"),
    ],
)
def test_errors_take_one_line(run: Run, words: tuple[str, ...], expected: str) -> None:
    """A wrong use or an error is one line on stderr without a traceback, and exit code 2."""
    done = run(*words)

    assert (2, "") == (done.exit_code, done.stdout)
    assert done.stderr.startswith(expected)
    assert 1 == done.stderr.count("\n")


def test_every_wrong_setting_has_its_line(run: Run) -> None:
    """All that is wrong with the configuration is said at once."""
    done = run("init", env={"PDP_CACHE__SIZE": "x", "PDP_CAHCE__SIZE": "1"})

    assert [
        "error: `PDP_CACHE__SIZE` must be a whole number, not `x`",
        "error: unknown setting: `PDP_CAHCE__SIZE`; did you mean `PDP_CACHE__SIZE`?",
    ] == done.stderr.splitlines()


def test_debugging_shows_where_an_error_comes_from(run: Run) -> None:
    """With `PDP_DEBUG=1` the traceback comes before the line."""
    done = run("tools", "list", "--policies", "nope", env={"PDP_DEBUG": "1"})

    assert 2 == done.exit_code
    assert done.stderr.startswith("Traceback")
    assert done.stderr.endswith("error: nope: does not exist; `pdp new` creates a policy folder\n")


@pytest.mark.parametrize("words", [(), ("session",), ("tools",)])
def test_group_alone_shows_its_help(run: Run, words: tuple[str, ...]) -> None:
    """Without a command, the commands are shown, as a wrong use."""
    done = run(*words)

    assert 2 == done.exit_code
    assert "Commands:" in done.stderr
    assert "error:" not in done.stderr


@pytest.mark.parametrize(("words", "command"), list(commands(root)))
def test_every_command_explains_itself(run: Run, words: tuple[str, ...], command: click.Command) -> None:
    """Every command has help with an example of its own."""
    done = run(*words, "--help")

    assert 0 == done.exit_code
    if not isinstance(command, click.Group):
        assert f"Example: pdp {' '.join(words)}" in " ".join(done.stdout.split())


@pytest.mark.parametrize(("table", "entries"), [(root, COMMANDS), (bundle, PACKING)], ids=["pdp", "pdp bundle"])
def test_table_of_commands_is_true(table: CommandTable, entries: Mapping[str, CommandEntry]) -> None:
    """What the help of a table says about a command is how the command's own help begins."""
    context = click.Context(table)
    known = {name: table.get_command(context, name) for name in entries}

    assert {name: entry.summary for name, entry in entries.items()} == {
        name: command.get_short_help_str(200) for name, command in known.items() if command
    }


@pytest.mark.parametrize(
    ("words", "blocked", "code"),
    [
        (["--help"], ["cedarpy", "grpc", "yaml", "rich", "opentelemetry"], 0),
        (["version"], ["cedarpy", "grpc", "opentelemetry", "apsw"], 0),
        (["init"], ["cedarpy", "opentelemetry", "apsw", "rich"], 0),
        (["tools", "list", "--help"], ["grpc", "mcp", "opentelemetry"], 0),
        (["authorize", "a", "b"], ["cedarpy", "opentelemetry", "apsw", "mcp"], 2),
    ],
)
def test_command_starts_without_what_it_does_not_need(words: list[str], blocked: list[str], code: int) -> None:
    """A command works where a library that it does not need is absent."""
    program = (
        f"import sys; sys.modules.update(dict.fromkeys({blocked!r})); sys.argv = ['pdp', *{words!r}]; "
        "from pdp.cli import main; main()"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)

    assert code == done.returncode, done.stderr
    assert "internal error" not in done.stderr


def test_module_is_the_program() -> None:
    """`python -m pdp.cli` is `pdp`."""
    done = subprocess.run(
        [sys.executable, "-m", "pdp.cli", "version"], capture_output=True, text=True, check=False, timeout=60
    )

    assert (0, "") == (done.returncode, done.stderr)
    assert done.stdout.startswith("pdp ")


def test_callers_that_stand_elsewhere_are_not_made_up(run: Run) -> None:
    """With a file of callers that is kept elsewhere, `pdp init` writes no tokens, only the keys."""
    Path("elsewhere").mkdir()

    done = run("init", env={"PDP_CALLERS__FILE": "elsewhere/callers.yaml"})

    assert 0 == done.exit_code
    assert [] == [path.name for path in (*Path(".pdp").glob("tokens"), *Path(".pdp").glob("callers*"))]
    assert [] == list(Path("elsewhere").iterdir())


def test_a_server_knows_callers_that_stand_elsewhere(run: Run, policies: Path) -> None:
    """The server reads the file of callers that the setting names."""
    run("init", "--data-dir", "desk")

    server = start_server(policies.parent, "--callers-file", "desk/callers.yaml")
    token = ("--token-file", "desk/tokens/author.token")
    done = run("bundle", "list", *token, env={"PDP_ADDRESS": server.address})
    stop_server(server)

    assert 0 == done.exit_code, done.output
    assert not Path(".pdp/tokens").exists()


def test_settings_are_listed_by_section(run: Run) -> None:
    """The help of `serve` has a heading for each section of the settings, and every setting below it."""
    lines = run("serve", "--help").stdout.splitlines()

    begins = {title: lines.index(f"{title.removesuffix('.')}:") for title in section_titles().values()}
    assert sorted(begins.values()) == list(begins.values())
    for row in describe():
        section = row.name.partition(".")[0] if "." in row.name else ""
        place = next(number for number, line in enumerate(lines) if line.split()[:1] == [row.flag])
        heading = max((begin for begin in begins.values() if begin < place), default=-1)
        assert (begins[section_titles()[section]] if section else -1) == heading, row.name


# Why a command has no `--json`: what a script needs of it is there without.
_A_DOOR = "it runs until it is stopped"
_A_FILE = "what it prints is itself a file, in a format of its own"
_BY_CODE = "it writes files that the caller has named, and its exit code says whether"
WITHOUT_JSON = {
    "serve": "it runs until it is stopped; its log has `log.format`",
    "console": "it runs until it is stopped, and speaks to a browser",
    "signals serve": "it runs until it is stopped, and speaks to transmitters",
    "mcp": "it speaks MCP on stdout, until its client stops it",
    "door agentgateway": _A_DOOR,
    "door authzen": _A_DOOR,
    "door envoy": _A_DOOR,
    "fmt": _BY_CODE,
    "new": _BY_CODE,
    "schema": _A_FILE,
    "audit export": _A_FILE,
    "telemetry dashboard": _A_FILE,
    "telemetry alerts": _A_FILE,
    "telemetry names": _A_FILE,
    "deployment container": _A_FILE,
    "deployment kubernetes": _A_FILE,
    "deployment settings": _A_FILE,
    "deployment systemd": _A_FILE,
}


def test_scripts_can_read_every_answer() -> None:
    """Every command that answers something prints JSON on demand."""
    single = ((" ".join(words), one) for words, one in commands(root) if not isinstance(one, click.Group))
    without = {name for name, one in single if not any("--json" in option.opts for option in one.params)}

    assert WITHOUT_JSON.keys() == without


def test_an_error_moves_nothing_on_the_terminal(run: Run) -> None:
    """What it quotes can be of a server or a file of others, and is escaped."""
    done = run("tools", "import", "files", "a\u202eb\u009b2Jc")

    assert (2, "error: `a\\u202eb\\x9b2Jc`: no such file or directory\n") == (done.exit_code, done.stderr)
