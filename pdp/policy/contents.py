"""The files of a bundle and their contents, read but not compiled."""

from __future__ import annotations

import os
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from pdp.errors import BundleError, Problem, reason_of
from pdp.foundation.inside import open_inside, require_inside
from pdp.foundation.jsontext import canonical, digest
from pdp.foundation.nearest import nearest
from pdp.foundation.yamltext import Section, load_section
from pdp.limits import Limits
from pdp.policy.declared import read_groups, read_obligations
from pdp.policy.directory import Directory, load_directory
from pdp.policy.labels import Label, read_labels
from pdp.policy.provenance import read_known
from pdp.policy.tools.catalogue import Catalogue, load_catalogue
from pdp.policy.tools.overlay import Declared
from pdp.policy.tools.parameters import RecordType
from pdp.policy.tools.typing import facts_type

MANIFEST = "bundle.yaml"
SCHEMA = "schema.cedarschema"
# Tests are next to the policies but not part of the bundle: its version does not depend on them.
TESTS = "tests"
# The longest name that fits into the header of a packed file.
NAME_BYTES = 100
# The code of a warning about a file that looks like one of a bundle and is none.
NOT_READ = "not-read"
_ALIKE = 0.8

_MANIFEST_KEYS = (
    "name",
    "label",
    "labels",
    "groups",
    "obligations",
    "known",
    "caller_facts",
    "session_seconds",
    "request_seconds",
)

_FEWEST_FILES = 64
_BYTES_FOR_A_FILE = 2048

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """A bundle's parts; durations are in seconds.

    `policies` maps a file to its text, `labels` a name to its label, `groups` the name of a further group of actions to
    its meaning, and `obligations` the same for those that only gateways know. `known` names the attributes of users
    that hold whom and what they know.
    """

    name: str
    label: str
    session_seconds: float
    request_seconds: float
    caller_facts: RecordType
    labels: Mapping[str, Label]
    groups: Mapping[str, str]
    obligations: Mapping[str, str]
    known: tuple[str, ...]
    schema: str
    policies: Mapping[str, str]
    catalogue: Catalogue
    directory: Directory


def read_folder(folder: Path, limits: Limits) -> dict[str, bytes]:
    """Read the files of a bundle from a folder, without other files (tests, notes).

    Of a folder beyond the limits it reads only so much that `require_sizes` refuses it. Raise `BundleError` when the
    folder or a file cannot be read, or is a link out of the folder.
    """
    files: dict[str, bytes] = {}
    size = 0
    if not folder.is_dir():
        problem = "is not a folder" if folder.exists() else "does not exist; `pdp new` creates a policy folder"
        raise BundleError((Problem(str(folder), 0, problem),))
    try:
        for path in sorted(_inside(folder)):
            name = path.relative_to(folder).as_posix()
            if belongs(name):
                if not name.isprintable():
                    # Also names that are not UTF-8 on disk; a digest or a message cannot hold them.
                    raise BundleError((Problem(ascii(name), 0, "a file's name must be printable"),))
                # An unreadable file, for example a broken link, is an error: it may hold a forbid.
                with open_inside(folder, path) as stream:
                    # One byte more than the limit shows that the file is too large.
                    files[name] = stream.read(limits.policy_file_bytes * 8 + 1)
                size += len(files[name])
                if size > limits.bundle_bytes or len(files) > most_files(limits):
                    # The rest might not fit into the memory: files with gaps take no room on a disk.
                    break
    except OSError as error:
        raise BundleError((Problem(str(folder), 0, f"cannot be read: {reason_of(error)}"),)) from None
    if not files:
        raise BundleError((Problem(str(folder), 0, "holds no bundle"),))
    return files


def _inside(folder: Path) -> Iterator[Path]:
    # `rglob` is not used: it skips folders that cannot be read.
    yield from folder.iterdir()
    tools = folder / "tools"
    if os.path.lexists(tools):
        require_inside(folder, tools)
        yield from tools.iterdir()


def overlooked(folder: Path) -> Iterator[Problem]:
    """Yield a warning for each file that is not read although its name says that it is a policy, schema or overlay.

    It may hold a forbid. Hidden files and tests are left out. Raise `OSError` when the folder cannot be read.
    """
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        parts = PurePosixPath(name).parts
        if not (belongs(name) or parts[0] == TESTS or any(part.startswith(".") for part in parts)) and _like_ours(name):
            yield Problem(
                name if name.isprintable() else ascii(name),
                0,
                "is not read",
                severity="warning",
                code=NOT_READ,
                help=f"`{MANIFEST}`, `directory.yaml`, `{SCHEMA}` and `*.cedar` are read in the folder itself, and "
                "`*.json` and `*.yaml` in `tools`",
            )


def _like_ours(name: str) -> bool:
    path = PurePosixPath(name)
    if path.suffix.lower() in (".cedar", ".cedarschema"):
        return True
    if path.parent == PurePosixPath("tools"):
        return path.suffix.lower() in (".yml", ".yaml", ".json")
    return bool(nearest(name, (MANIFEST, "directory.yaml"), alike=_ALIKE))


def belongs(name: str) -> bool:
    """Return whether a file, named relative to the bundle, is part of it."""
    path = PurePosixPath(name)
    if any(part.startswith(".") for part in path.parts):
        return False
    if path.parent == PurePosixPath("tools"):
        return path.suffix in (".json", ".yaml")
    return len(path.parts) == 1 and (name in (MANIFEST, "directory.yaml", SCHEMA) or path.suffix == ".cedar")


def version_of(files: Mapping[str, bytes]) -> str:
    """Return a bundle's version: the digest of the names and contents of its files."""
    return digest(canonical({name: digest(content) for name, content in files.items()}))


def read_contents(files: Mapping[str, bytes], limits: Limits) -> Contents:
    """Read the contents of a bundle's files. Raise `BundleError` naming every problem found."""
    require_sizes(files, limits)
    problems: list[Problem] = []
    manifest = _collect(problems, Section(MANIFEST, 1), lambda: load_section(MANIFEST, files.get(MANIFEST, b"")))
    problems += manifest.unknown_keys(_MANIFEST_KEYS)
    labels, groups = read_labels(manifest, problems), read_groups(manifest, problems)
    declared = Declared(labels=labels, groups=groups)
    directory = _collect(problems, Directory(), lambda: load_directory(files))
    contents = Contents(
        name=_text(manifest, "name", "bundle", problems),
        label=_text(manifest, "label", "", problems),
        session_seconds=_seconds(manifest, "session_seconds", limits, problems),
        request_seconds=_seconds(manifest, "request_seconds", limits, problems),
        caller_facts=_collect(problems, facts_type({}), lambda: _facts(manifest)),
        labels=labels,
        groups=groups,
        obligations=read_obligations(manifest, problems),
        known=read_known(manifest, directory, problems),
        schema=_decode(SCHEMA, files.get(SCHEMA, b""), problems),
        policies={
            name: _decode(name, content, problems) for name, content in sorted(files.items()) if name.endswith(".cedar")
        },
        catalogue=_collect(problems, Catalogue(tools={}), lambda: load_catalogue(files, declared)),
        directory=directory,
    )
    if SCHEMA not in files:
        problems.append(Problem(SCHEMA, 0, "is missing: it declares `User`, `Agent`, `Session`, `Grant` and `Server`"))
    if problems:
        raise BundleError(tuple(problems))
    return contents


def _facts(manifest: Section) -> RecordType:
    try:
        return facts_type(manifest.get("caller_facts"))
    except ValueError as error:
        raise BundleError((manifest.problem(f"`caller_facts`: {error}", "caller_facts"),)) from None


def titles_of(files: Mapping[str, bytes]) -> tuple[str, str]:
    """Return a bundle's name and label, for listings; empty where its manifest cannot be read."""
    try:
        manifest = load_section(MANIFEST, files.get(MANIFEST, b""))
    except BundleError:
        return "", ""
    problems: list[Problem] = []
    return _text(manifest, "name", "bundle", problems), _text(manifest, "label", "", problems)


def require_sizes(files: Mapping[str, bytes], limits: Limits) -> None:
    """Raise `BundleError` when a file, or all files together, exceed the limits."""
    problems = []
    if len(files) > most_files(limits):
        problems.append(Problem("", 0, f"more than {most_files(limits)} files (limit `bundle_bytes`)"))
    for name, content in files.items():
        if len(name.encode("utf-8", "surrogateescape")) > NAME_BYTES:
            problems.append(Problem(name, 0, f"a file's name must be at most {NAME_BYTES} bytes"))
        # Real tool lists are larger than a policy file should be.
        bound = limits.policy_file_bytes * (8 if name.startswith("tools/") else 1)
        if len(content) > bound:
            problems.append(Problem(name, 0, f"larger than {bound} bytes (limit `policy_file_bytes`)"))
    if sum(map(len, files.values())) > limits.bundle_bytes:
        problems.append(Problem("", 0, f"the bundle is larger than {limits.bundle_bytes} bytes (limit `bundle_bytes`)"))
    if problems:
        raise BundleError(tuple(problems))


def most_files(limits: Limits) -> int:
    """Return how many files a bundle may have: packing them must not take much more than their content."""
    return max(_FEWEST_FILES, limits.bundle_bytes // _BYTES_FOR_A_FILE)


def _collect(problems: list[Problem], default: T, load: Callable[[], T]) -> T:
    try:
        return load()
    except BundleError as error:
        problems += error.problems
        return default


def _decode(name: str, content: bytes, problems: list[Problem]) -> str:
    if content.startswith(BOM_UTF8):
        problems.append(
            Problem(name, 1, "it begins with a byte order mark, which Cedar does not read; save it without")
        )
        return ""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        problems.append(Problem(name, content.count(b"\n", 0, error.start) + 1, "not UTF-8"))
        return ""


def _text(manifest: Section, key: str, default: str, problems: list[Problem]) -> str:
    value = manifest.get(key, default)
    if isinstance(value, str) and value.isprintable() and len(value) <= 128:  # noqa: PLR2004 - as ids
        return value
    problems.append(manifest.problem(f"`{key}` must be one printable line of at most 128 characters", key))
    return default


def _seconds(manifest: Section, key: str, limits: Limits, problems: list[Problem]) -> float:
    value: Any = manifest.get(key, 3600)
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= limits.session_seconds:
        return float(value)
    problems.append(manifest.problem(f"`{key}` must be seconds, at most {limits.session_seconds:g}", key))
    return 3600.0
