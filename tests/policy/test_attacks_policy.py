"""What hostile or unlucky files and texts do to the reading of bundles and arguments: nothing but a told problem."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from threading import Event
from typing import Any

import cedarpy
import pytest

from pdp.bundles.watching import FolderWatch
from pdp.errors import BundleError, InvalidJSONError
from pdp.foundation.jsontext import parse
from pdp.foundation.nearest import nearest
from pdp.foundation.yamltext import load_section
from pdp.limits import DEFAULT_LIMITS
from pdp.policy.analysis import reads
from pdp.policy.contents import read_folder, require_sizes
from pdp.policy.loading import check_bundle, load_bundle
from pdp.testing.bundles import bundle_files, compile_here, tool

SCALARS = [
    "!!int ''",
    "!!float ''",
    "!!bool perhaps",
    "!!timestamp soon",
    "1" + ":1" * 300 + ".0",
    "1" + ":59" * 100_000,
    "9" * 5000,
]


@pytest.mark.parametrize("scalar", SCALARS, ids=range(len(SCALARS)))
def test_scalars_that_yaml_cannot_make_are_problems(scalar: str) -> None:
    """A value that the YAML library stumbles over is told with its line, whatever it raises."""
    with pytest.raises(BundleError) as caught:
        load_section("directory.yaml", f"a: 1\nb: {scalar}".encode())

    assert ("directory.yaml", 2) == (caught.value.problems[0].file, caught.value.problems[0].line)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"a: 1\nb: \xff\n", "directory.yaml:2: not UTF-8"),
        ("a: 1\n".encode("utf-16"), "directory.yaml:1: not UTF-8"),
        (b"a: 1\nb: \x07\n", "directory.yaml:2: not YAML: control characters are not allowed"),
    ],
)
def test_bytes_that_yaml_cannot_hold_have_their_line(content: bytes, problem: str) -> None:
    """In a long file, a byte that no editor shows is found by its line alone."""
    with pytest.raises(BundleError) as caught:
        load_section("directory.yaml", content)

    assert problem == str(caught.value)


def test_long_names_are_compared_with_no_other() -> None:
    """Comparing takes the square of the length: a name that fills a file would take hours."""
    assert "a" * 255 == nearest("a" * 256, ["a" * 255])
    assert "" == nearest("a" * 257, ["a" * 256])


@pytest.mark.parametrize("name", [b"\xff.cedar", b"a\nb.cedar"])
def test_file_names_that_cannot_be_told_are_refused(tmp_path: Path, name: bytes) -> None:
    """A policy under an odd name is a problem, neither overlooked nor a crash."""
    path = bytes(tmp_path) + b"/" + name
    Path(path.decode("utf-8", "surrogateescape")).write_bytes(b"")

    with pytest.raises(BundleError, match="must be printable") as caught:
        read_folder(tmp_path, DEFAULT_LIMITS)

    assert caught.value.problems[0].file.isascii()


@pytest.mark.parametrize("name", ["guardrails.cedar", "tools", "tools/files.yaml"])
@pytest.mark.parametrize("kind", ["link to nowhere", "folder"])
def test_what_cannot_be_read_is_not_overlooked(tmp_path: Path, name: str, kind: str) -> None:
    """A forbid behind a link to nowhere would be missing without a word."""
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    (tmp_path / "directory.yaml").write_bytes(b"")
    if kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("nowhere")

    if (name, kind) == ("tools", "folder"):
        assert list(read_folder(tmp_path, DEFAULT_LIMITS)) == ["directory.yaml"]
    else:
        with pytest.raises(BundleError, match=r"not a file that can be read|cannot be read"):
            read_folder(tmp_path, DEFAULT_LIMITS)


def test_files_beyond_a_bundle_are_not_read(tmp_path: Path) -> None:
    """Files with gaps take no room on a disk, and all of them together would not fit into the memory."""
    for number in range(20):
        with (tmp_path / f"{number:02}.cedar").open("wb") as file:
            file.truncate(DEFAULT_LIMITS.policy_file_bytes * 8)

    found = read_folder(tmp_path, DEFAULT_LIMITS)

    assert len(found) == 2
    with pytest.raises(BundleError, match="the bundle is larger than"):
        require_sizes(found, DEFAULT_LIMITS)


def contents(**changes: bytes) -> dict[str, bytes]:
    """Return a small bundle, some of its files replaced."""
    files = bundle_files(policies={}, tools={"files": [tool("read")]}, directory="users: {alice: {}}")
    return files | {name.replace("_", "."): content for name, content in changes.items()}


def test_files_are_read_here_only_when_the_child_has_read_them() -> None:
    """What keeps its reader busy or ends it does so in the child process first."""
    asked: list[Mapping[str, Any]] = []

    def refuse(job: Mapping[str, Any]) -> dict[str, Any]:
        asked.append(job)
        return {"problems": [{"file": "bundle.yaml", "line": 1, "message": "told by the child"}]}

    with pytest.raises(BundleError, match="told by the child"):
        load_bundle(contents(bundle_yaml=b"a: [", directory_yaml=b"\xff"), DEFAULT_LIMITS, refuse)

    assert 1 == len(asked)


def test_bytes_that_are_no_text_reach_the_child_as_they_are() -> None:
    """The child names the file and line of what is not UTF-8."""
    with pytest.raises(BundleError, match=r"schema\.cedarschema:2: not UTF-8"):
        check_bundle(contents(schema_cedarschema=b"\n\xff"), DEFAULT_LIMITS, compile_here)


@pytest.mark.parametrize("file", ["schema_cedarschema", "files_cedar"])
def test_a_byte_order_mark_is_told(file: str) -> None:
    """Some editors begin a file with it, none shows it, and the engine speaks of an invalid token."""
    with pytest.raises(BundleError, match=r":1: it begins with a byte order mark"):
        check_bundle(contents(**{file: b"\xef\xbb\xbf// c\n"}), DEFAULT_LIMITS, compile_here)


@pytest.mark.parametrize("policy", ['@id("files\n/\u202ex")permit(principal,action,resource);', 'permit("a\nb");'])
def test_problems_are_one_line_whatever_they_quote(policy: str) -> None:
    """What stands in a file cannot forge a line of a log."""
    with pytest.raises(BundleError) as caught:
        load_bundle(contents(files_cedar=policy.encode()), DEFAULT_LIMITS, compile_here)

    assert all(str(problem).isprintable() for problem in caught.value.problems)


def test_change_before_the_watch_began_is_told(tmp_path: Path) -> None:
    """Whoever loaded the folder read it some time before: its first settled state counts as a change."""
    (tmp_path / "a.cedar").write_text("x", encoding="utf-8")
    changed = Event()

    def take() -> bool:
        changed.set()
        return True

    watch = FolderWatch(tmp_path, take, interval=0.01)

    watch.start()

    assert changed.wait(30)
    watch.stop()


BELOW_A_SERVER = [
    ('principal in Server::"s"', ["resource"]),
    ('principal has home && principal.home in Server::"s"', ["resource"]),
    ('[principal.home].contains(Thing::"t") && Thing::"t" in [UserGroup::"g", Server::"s"]', ["resource"]),
    ("principal in principal.team", ["resource"]),
    ('principal.home is Thing in Server::"s"', ["resource"]),
    ('principal in UserGroup::"g" || principal in [UserGroup::"g", UserGroup::"h"]', []),
    ('principal is User in UserGroup::"g" || principal is User', []),
    ('action in [Action::"a", Action::"b"]', []),
]


@pytest.mark.parametrize(("condition", "expected"), BELOW_A_SERVER)
def test_what_stands_below_a_server_depends_on_the_resource(condition: str, expected: list[str]) -> None:
    """A call's resource stands below the call's server, so a hierarchy test that could end there reads it."""
    text = f"permit (principal, action, resource) when {{ {condition} }};"
    (policy,) = json.loads(cedarpy.policies_to_json_str(text))["staticPolicies"].values()

    assert expected == reads(policy)


def test_principal_scope_below_a_server_depends_on_the_resource() -> None:
    """The same in the scope."""
    text = 'permit (principal is User in Server::"s", action, resource);'
    (policy,) = json.loads(cedarpy.policies_to_json_str(text))["staticPolicies"].values()

    assert ["resource"] == reads(policy)


@pytest.mark.parametrize("number", [b"1e99999999999999999999", b"-1E-99999999999999999999", b"9" * 5000])
def test_numbers_beyond_all_bounds_are_refused(number: bytes) -> None:
    """A number that nothing holds is bad JSON, not an error of ours."""
    with pytest.raises(InvalidJSONError, match="a number is too long"):
        parse(b'{"amount":' + number + b"}")


def test_string_without_an_end_takes_no_time() -> None:
    """Looking for the end of a string again from each of its quotes would hold the interpreter for most of a minute."""
    script = (
        "from pdp.errors import InvalidJSONError\n"
        "from pdp.foundation.jsontext import parse\n"
        "try:\n"
        "    parse(b'[' + b'[],' * 40 + b'\"' + b'\\\\\"' * 65000)\n"
        "except InvalidJSONError as error:\n"
        "    print(error)\n"
    )

    done = subprocess.run([sys.executable, "-c", script], timeout=15, capture_output=True, text=True, check=True)

    assert "not JSON (line 1, column 122)\n" == done.stdout
