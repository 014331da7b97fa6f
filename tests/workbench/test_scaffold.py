"""`pdp new`: what it writes passes the check and its own tests, whatever tools the server has."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from pdp.cli.root import root
from pdp.errors import BundleError
from pdp.limits import DEFAULT_LIMITS
from pdp.policy.contents import belongs
from pdp.policy.loading import load_bundle
from pdp.policy.tools.catalogue import load_catalogue, tool_definitions
from pdp.testing.bundles import compile_here, tool
from pdp.workbench.reading import read_suite
from pdp.workbench.runner import Report, run
from pdp.workbench.samples import sample_arguments
from pdp.workbench.scaffold import example_definitions, scaffold

STRING = {"type": "string"}
READ = tool("read", {"kind": {"type": "string", "enum": ["b", "a"]}}, ["kind"], annotations={"readOnlyHint": True})
WRITE = tool("write", {"n": {"type": "integer"}}, ["n"], annotations={"destructiveHint": False})
WIPE = tool("wipe", {"ids": {"type": "array", "items": {"type": "integer"}}}, ["ids"])


def made_and_run(server: str, definitions: Sequence[Mapping[str, Any]]) -> Report:
    """Make a bundle, load it, and run its own tests."""
    files = scaffold(server, definitions)
    bundle = load_bundle({n: text for n, text in files.items() if belongs(n)}, DEFAULT_LIMITS, compile_here)
    suites = [read_suite(name, text) for name, text in files.items() if name.startswith("tests/")]
    return run(bundle, suites)


@pytest.mark.parametrize(
    ("server", "definitions", "cases"),
    [
        ("notes", example_definitions(), 17),
        ("all", [READ, WRITE, WIPE], 17),
        ("reads", [READ], 13),
        ("Writes.Only", [WRITE], 13),
        ("wipes", [WIPE], 13),
        ("far", [tool("read\U0001f600", {"k": {"type": "string", "enum": ["\U0001f600"]}}, ["k"])], 13),
        ("no_samples", [tool("x", {"n": {"type": "string", "enum": []}}, ["n"])], 6),
    ],
)
def test_new_bundle_passes_its_tests(server: str, definitions: Sequence[Mapping[str, Any]], cases: int) -> None:
    """Policies and tests are there for the risk groups that the server has, and fit together."""
    report = made_and_run(server, definitions)

    assert [] == [(result.case.name, result.problems) for result in report.failed]
    assert cases == len(report.results)


@pytest.mark.parametrize("name", ["github-mcp-server", "mcp-server-git", "mcp-server-fetch", "server-filesystem"])
def test_new_bundle_for_a_real_server_passes_its_tests(test_data: Path, name: str) -> None:
    """Real tool lists lead to bundles that load and pass."""
    definitions = tool_definitions((test_data / "mcp-tools" / f"{name}.tools.json").read_bytes())

    assert [] == [(result.case.name, result.problems) for result in made_and_run(name, definitions).failed]


def test_arguments_are_made_up_for_required_parameters() -> None:
    """The first value that the tool's own schema takes, of each required parameter and of no other."""
    properties = {
        "s": {"type": "string"},
        "e": {"type": "string", "enum": ["z", "y"]},
        "n": {"type": "integer"},
        "b": {"type": "boolean"},
        "l": {"type": "array", "items": {"type": "integer"}},
        "o": {"type": "object", "properties": {"x": {"type": "boolean"}}, "required": ["x"]},
        "few": {"type": "array", "items": {"$ref": "#/$defs/edit"}, "minItems": 1},
        "any": {"anyOf": [{"type": "integer", "minimum": 5}, {"type": "string"}]},
        "unasked": {"type": "string"},
    }
    one = tool("t", properties, ["s", "e", "n", "b", "l", "o", "few", "any"])
    one["inputSchema"]["$defs"] = {"edit": {"type": "object", "properties": {"old": STRING}, "required": ["old"]}}
    listed = {"tools": [one]}
    catalogue = load_catalogue({"tools/a.json": json.dumps(listed).encode()})

    made = sample_arguments(catalogue.tools["a/t"])

    assert {
        "s": "example",
        "e": "y",
        "n": 1,
        "b": True,
        "l": [],
        "o": {"x": True},
        "few": [{"old": "example"}],
        "any": 5,
    } == made


@pytest.mark.parametrize(
    ("server", "definitions", "said"),
    [
        ("Sessions", [READ], "`sessions.cedar` is taken, so rename the server `Sessions`"),
        ("empty", [], "the server `empty` has no tools"),
        ("twice", [READ, READ], "tools/twice.json: tool `read` appears twice"),
        ("none", [{"inputSchema": {}}], "tools/none.json: a tool without a name"),
    ],
)
def test_server_without_a_bundle_is_named(server: str, definitions: Sequence[Mapping[str, Any]], said: str) -> None:
    """What no bundle can be made for is said before anything is written."""
    with pytest.raises(BundleError) as caught:
        scaffold(server, definitions)

    assert said == str(caught.value)


@pytest.mark.parametrize("words", [(), ("--server", "git", "--tools", "git.json")])
def test_command_writes_what_check_and_test_accept(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, project_root: Path
) -> None:
    """`pdp new`, `pdp check` without a warning, `pdp test`: one after the other."""
    monkeypatch.chdir(tmp_path)
    Path("git.json").write_bytes((project_root / "tests" / "fixtures" / "git.tools.json").read_bytes())
    runner = CliRunner()

    made = runner.invoke(root, ["new", "mine", *words], prog_name="pdp")
    checked = runner.invoke(root, ["check", "mine"], prog_name="pdp")
    passed = runner.invoke(root, ["test", "mine"], prog_name="pdp")

    assert (0, 0, 0) == (made.exit_code, checked.exit_code, passed.exit_code)
    assert "pdp test mine" in made.output
    assert 1 == len(checked.output.splitlines())
    listed = re.findall(r"^(\S+ +)\S", Path("mine/README.md").read_text("utf-8").split("```")[1], re.MULTILINE)
    assert {len("schema.cedarschema     ")} == {len(column) for column in listed}


def test_the_samples_of_the_manifest_load() -> None:
    """What the new `bundle.yaml` shows in comments declares an obligation when an author takes it over."""
    files = scaffold("all", [READ, WRITE, WIPE])
    written = files["bundle.yaml"].decode()
    files["bundle.yaml"] = re.sub(r"^# (obligations:|  )", r"\1", written, flags=re.MULTILINE).encode()

    bundle = load_bundle({n: text for n, text in files.items() if belongs(n)}, DEFAULT_LIMITS, compile_here)

    assert ["log_access"] == list(bundle.declared_obligations)


def test_folder_that_holds_something_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with anything in it, or a file, is never written into; an empty folder is."""
    monkeypatch.chdir(tmp_path)
    Path("full").mkdir()
    Path("full/note").write_text("", encoding="utf-8")
    Path("empty").mkdir()

    codes = [
        CliRunner().invoke(root, ["new", name], prog_name="pdp").exit_code for name in ("full", "full/note", "empty")
    ]

    assert [2, 2, 0] == codes
    assert ["note"] == [path.name for path in Path("full").iterdir()]


def test_server_and_tools_go_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server without its tools, or tools without a name, make no bundle."""
    monkeypatch.chdir(tmp_path)

    done = CliRunner().invoke(root, ["new", "mine", "--server", "git"], prog_name="pdp")

    assert 2 == done.exit_code
    assert not Path("mine").exists()


def test_the_example_is_the_shipped_bundle(tmp_path: Path, project_root: Path) -> None:
    """`pdp new --example` writes `policies/`, to the byte."""
    shipped = content(project_root / "policies")

    done = CliRunner().invoke(root, ["new", str(tmp_path / "mine"), "--example"], prog_name="pdp")

    assert 0 == done.exit_code
    assert shipped
    assert shipped == content(tmp_path / "mine")


def content(folder: Path) -> dict[str, bytes]:
    """Return the content of every file of a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
