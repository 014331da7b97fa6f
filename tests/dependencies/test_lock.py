"""The lock of dependencies: it holds what the project asks for, each by its hashes, and CI installs nothing else."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from pdp.doctor.machine import LIBRARIES
from pdp.foundation.extras import DISTRIBUTION, EXTRA_OF

# What `.ci/run` installs, by way of the Makefile.
EXTRAS = ("server", "authzen", "mcp", "console", "demo", "dev", "fuzz")
# The lock of everything, and the one of what serves, which goes with the package.
LOCKS = (
    "requirements.lock",
    "pdp/deployment/requirements.lock",
    "tests/doors/adapters/requirements.lock",
    "tests/doors/apart/requirements.lock",
    "tests/doors/guarded/requirements.lock",
    "tests/doors/envoy/real/requirements.lock",
    "tests/console/people/requirements.lock",
    "tests/broker/real/requirements.lock",
    "tests/sessions/postgres/requirements.lock",
)
# The agent frameworks, which only the environments of `make doors` hold: the distribution of what is imported.
TOGETHER = {
    "agents": "openai-agents",
    "claude_agent_sdk": "claude-agent-sdk",
    "fastmcp": "fastmcp",
    "langchain": "langchain",
    "pydantic_ai": "pydantic-ai-slim",
}
# They need older libraries than the others.
APART = {"google.adk": "google-adk", "strands": "strands-agents"}
FRAMEWORKS = {**TOGETHER, **APART}
_HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


class Locked(NamedTuple):
    """One entry of the lock: the requirement, which names one version, and how many files may be installed for it."""

    requirement: Requirement
    hashes: int

    @property
    def version(self) -> str:
        """Return the version."""
        [specifier] = self.requirement.specifier
        return specifier.version


# Under the LGPL 3, which binds nobody who imports a library unchanged; only what can use PostgreSQL has them.
LESSER = {"psycopg", "psycopg-binary"}


def read_lock(text: str) -> dict[str, list[Locked]]:
    """Return the entries of a lock by name; one name may have several, for different platforms."""
    entries: dict[str, list[Locked]] = {}
    joined = re.sub(r" \\\n\s+", " ", text)
    for line in joined.splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            requirement = Requirement(line.split(" --hash=")[0])
            locked = Locked(requirement, len(_HASH.findall(line)))
            entries.setdefault(canonicalize_name(requirement.name), []).append(locked)
    return entries


def lock_for_this_machine(entries: dict[str, list[Locked]]) -> dict[str, Locked]:
    """Return the entry of each name whose marker holds here."""
    return {
        name: one
        for name, found in entries.items()
        for one in found
        if one.requirement.marker is None or one.requirement.marker.evaluate()
    }


def unmet(wanted: list[str], entries: dict[str, list[Locked]]) -> list[Requirement]:
    """Return the requirements of others than the project itself that no entry satisfies."""
    return [
        one
        for one in map(Requirement, wanted)
        if one.name != DISTRIBUTION
        if not any(one.specifier.contains(found.version) for found in entries.get(canonicalize_name(one.name), ()))
    ]


@pytest.fixture(scope="module")
def text(project_root: Path) -> str:
    """Return the lock as it stands in the project."""
    return (project_root / "requirements.lock").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def project(project_root: Path) -> dict[str, Any]:
    """Return the project's own description."""
    return tomllib.loads((project_root / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("lock", LOCKS)
def test_every_entry_names_one_version_and_its_hashes(project_root: Path, lock: str) -> None:
    """A version that is not exact, or a file without a hash, would let anybody choose what runs here."""
    for found in read_lock((project_root / lock).read_text(encoding="utf-8")).values():
        for one in found:
            assert ["=="] == [specifier.operator for specifier in one.requirement.specifier], one
            assert "*" not in one.version
            assert one.hashes, one
            assert one.requirement.url is None


@pytest.mark.parametrize("lock", LOCKS)
def test_the_lock_names_no_place(project_root: Path, lock: str) -> None:
    """A host or an option in it would decide where packages come from."""
    text = (project_root / lock).read_text(encoding="utf-8")

    assert [] == re.findall(r"https?:|^\s*-(?!-hash)\S*", text, re.MULTILINE)


def test_the_lock_satisfies_the_project(text: str, project: dict[str, Any]) -> None:
    """Every requirement of the project and of the extras that CI installs is locked, within its bounds."""
    entries = read_lock(text)
    table = project["project"]
    wanted = [*table["dependencies"], *(one for extra in EXTRAS for one in table["optional-dependencies"][extra])]
    wanted += project["build-system"]["requires"]

    assert [] == unmet(wanted, entries), "run `make lock`"


def test_the_lock_of_what_serves_is_a_part_of_the_lock(project_root: Path, text: str, project: dict[str, Any]) -> None:
    """A server runs on the versions that the tests ran on, and with nothing that only developers need."""
    entries = read_lock(text)
    serving = read_lock((project_root / "pdp/deployment/requirements.lock").read_text(encoding="utf-8"))
    table = project["project"]

    wanted = [
        *table["dependencies"],
        *(one for extra in ("server", "postgres") for one in table["optional-dependencies"][extra]),
    ]

    assert [] == unmet(wanted, serving), "run `make lock`"
    for name, found in serving.items():
        assert {(one.version, one.hashes) for one in found} <= {(one.version, one.hashes) for one in entries[name]}, (
            name
        )
    assert {"pytest", "mypy", "hypothesis"}.isdisjoint(serving)


def test_the_lock_of_the_adapters_satisfies_the_project(project_root: Path, project: dict[str, Any]) -> None:
    """Their tests run with frameworks within the bounds of the extras, and with the product's own versions."""
    held = read_lock((project_root / LOCKS[2]).read_text(encoding="utf-8"))
    own = read_lock((project_root / LOCKS[0]).read_text(encoding="utf-8"))
    extras = project["project"]["optional-dependencies"]
    wanted = [one for extra in ("server", *(EXTRA_OF[name] for name in TOGETHER)) for one in extras[extra]]

    assert [] == unmet([*project["project"]["dependencies"], *wanted], held), "run `make lock-doors`"
    for name in held.keys() & own.keys():
        assert {one.version for one in held[name]} <= {one.version for one in own[name]}, name


@pytest.mark.parametrize(("folder", "frameworks"), [("apart", APART), ("guarded", ())])
def test_a_lock_with_older_libraries_satisfies_the_project(
    project_root: Path, project: dict[str, Any], folder: str, frameworks: Iterable[str]
) -> None:
    """Frameworks that cannot be beside the others run with versions within the bounds of the extras, too."""
    held = read_lock((project_root / f"tests/doors/{folder}/requirements.lock").read_text(encoding="utf-8"))
    extras = project["project"]["optional-dependencies"]
    wanted = [one for extra in ("server", *(EXTRA_OF[name] for name in frameworks)) for one in extras[extra]]

    assert [] == unmet([*project["project"]["dependencies"], *wanted], held), "run `make lock-doors`"


def test_each_library_of_an_extra_is_named_where_it_lacks(project: dict[str, Any]) -> None:
    """What the small installation lacks is known by the name of its import, with the extra that brings it."""
    extras = project["project"]["optional-dependencies"]
    provides = {**metadata.packages_distributions(), **{name: [held] for name, held in FRAMEWORKS.items()}}

    homes = {
        library: {
            extra
            for extra in (
                "server",
                "authzen",
                "mcp",
                "console",
                "parquet",
                "demo",
                "loop",
                "age",
                "pkcs11",
                "postgres",
                *(EXTRA_OF[name] for name in FRAMEWORKS),
            )
            for one in map(Requirement, extras[extra])
            if canonicalize_name(one.name) in map(canonicalize_name, provides.get(library, ()))
        }
        for library in EXTRA_OF
    }
    named = {canonicalize_name(one) for library in EXTRA_OF for one in provides.get(library, ())}

    assert {library: {extra} for library, extra in EXTRA_OF.items()} == homes
    assert [] == [one for one in extras["server"] if canonicalize_name(Requirement(one).name) not in named]


def test_the_lock_is_within_what_the_doctor_allows(text: str) -> None:
    """Versions that are known to be wrong, such as an SQLite that can corrupt a store, are outside of its bounds."""
    entries = read_lock(text)

    for name, (lowest, below) in LIBRARIES.items():
        bounds = Requirement(f"{name}>={lowest}" + (f",<{below}" if below else "")).specifier
        assert all(bounds.contains(one.version) for one in entries[canonicalize_name(name)]), name


def test_what_dependencies_need_is_locked_too(text: str) -> None:
    """With hashes demanded, one missing name stops an installation: each need of each locked package is met."""
    locked = lock_for_this_machine(read_lock(text))

    missing = []
    for name, one in locked.items():
        try:
            needs = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        extras = one.requirement.extras or {""}
        for need in map(Requirement, needs):
            if need.marker is not None and not any(need.marker.evaluate({"extra": extra}) for extra in extras):
                continue
            if canonicalize_name(need.name) not in locked:
                missing.append(f"{name} needs {need}")
    assert [] == missing, "run `make lock`"


def test_nothing_is_under_a_licence_that_binds_what_uses_it(text: str) -> None:
    """What is installed of the lock says in its own description that it is under no such licence."""
    found = {}
    for name in lock_for_this_machine(read_lock(text)):
        try:
            about: Any = metadata.metadata(name)
        except metadata.PackageNotFoundError:
            continue
        says = [about.get("License-Expression", ""), (about.get("License") or "").partition("\n")[0]]
        says += [one for one in about.get_all("Classifier") or [] if one.startswith("License")]
        found[name] = [
            one for one in says if re.search(r"GPL|General Public|SSPL|Business Source|Commons Clause", one or "")
        ]

    assert {} == {name: says for name, says in found.items() if says and name not in LESSER}


def test_ci_has_installed_the_lock_and_nothing_beside_it(text: str) -> None:
    """In CI each version is the locked one, and only pip and the project itself stand beside them."""
    if os.environ.get("CI") != "true":
        pytest.skip("this environment was perhaps set up otherwise")
    locked = {name: one.version for name, one in lock_for_this_machine(read_lock(text)).items()}
    installed = {canonicalize_name(one.metadata["Name"]): one.version for one in metadata.distributions()}

    assert locked == {name: version for name, version in installed.items() if name not in {"pip", DISTRIBUTION}}


def test_the_makefile_and_ci_install_by_hashes(project_root: Path) -> None:
    """Each installation demands hashes, or fetches nothing; the tools of `make audit` stand apart."""
    for name in ("Makefile", ".ci/run"):
        recipe = (project_root / name).read_text(encoding="utf-8")
        for line in recipe.splitlines():
            if "pip install" in line and "$(TOOLS)" not in line:
                assert "--require-hashes" in line or ("--no-deps" in line and "--no-build-isolation" in line), line


def test_the_rules_of_bandit_are_on(project: dict[str, Any]) -> None:
    """Ruff's `S` rules are bandit's; all are on, and what is ignored of them is ignored for named folders."""
    lint = project["tool"]["ruff"]["lint"]

    assert ["ALL"] == lint["select"]
    assert [] == [rule for rule in lint["ignore"] if rule.startswith("S") and not rule.startswith(("SIM", "SLF"))]
    ignored = {
        folder: [rule for rule in rules if re.fullmatch(r"S\d*", rule)]
        for folder, rules in lint["per-file-ignores"].items()
    }
    assert {"pdp/audit/**": ["S608"]} == {
        folder: rules for folder, rules in ignored.items() if rules and folder.startswith("pdp")
    }
