"""The package as somebody else has it: built, installed in fresh environments, and used outside of the checkout."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from pdp.deployment import container_file
from tests.machinery.credentials.certificates import write_certificate
from tests.machinery.pages import ONE_WORKER, PAGE_SECONDS, blocks, run, served, surroundings

pytestmark = pytest.mark.timeout(2 * PAGE_SECONDS)

ASK = """
from pdp.client import Client
with Client(token_file="pep.token", tls="ca.pem") as pdp:
    with pdp.session(user="alice", agent="coder", purpose="Read the history", tools=["git/*"]) as session:
        answer = session.authorize("git", "git_log", {"repo_path": "/srv/app"})
        print(answer.outcome.value, answer.basis, answer.policies)
"""
APPROVE = """
until SESSION=$(pdp session list --state requested --json | grep -o 'ses_[a-z0-9]*' | head -1); do :; done
pdp session approve "$SESSION" --yes
"""


@pytest.fixture(scope="module")
def dist(project_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return what `make dist` writes, for a copy of what it reads."""
    source, made = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in ("Makefile", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(project_root / name, source)
    for name in ("pdp", "policies"):
        left = shutil.ignore_patterns("__pycache__")
        shutil.copytree(project_root / name, source / name, symlinks=True, ignore=left)
    # `--old-file`: this environment is the one that is running, and is not made anew.
    words = ["make", "--old-file=ready/ready", "VENV=ready", f"BIN={Path(sys.executable).parent}", f"DIST={made}"]
    (source / "ready").mkdir()
    (source / "ready" / "ready").touch()
    subprocess.run([*words, "dist"], cwd=source, check=True, capture_output=True, timeout=PAGE_SECONDS)
    return made


@pytest.fixture(scope="module")
def home(project_root: Path, dist: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """Return a folder that was empty until the README's lines about the package, and the environment they lead to."""
    folder = tmp_path_factory.mktemp("home")
    environment = fresh(folder)
    script = "\n".join(blocks(project_root / "README.md", "sh package"))

    done = run(script, folder, {**environment, "DIST": str(dist)})

    assert 0 == done.returncode, done.stderr
    return folder, environment


@pytest.fixture(scope="module")
def client_home(
    dist: Path, home: tuple[Path, dict[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, str]]:
    """Return a folder with an environment that holds the package without any extra, for the same server."""
    folder = tmp_path_factory.mktemp("client")
    (wheel,) = dist.glob("*.whl")
    # The locked versions; the hashes are the business of who installs.
    pins = re.findall(r"^[\w.-]+==[\w.]+(?: ; [^\\\n]+)?", (dist / "requirements.lock").read_text(), re.MULTILINE)
    (folder / "pins.txt").write_text("\n".join(pins), encoding="utf-8")
    script = f"python3 -m venv .venv\n.venv/bin/pip install --constraint pins.txt {wheel}"

    environment = {**fresh(folder), "PDP_ADDRESS": home[1]["PDP_ADDRESS"]}
    done = run(script, folder, environment)

    assert 0 == done.returncode, done.stderr
    return folder, environment


def fresh(folder: Path) -> dict[str, str]:
    """Return an environment in which nothing of this one is found but the interpreter."""
    own = folder / ".venv" / "bin"
    kept = {name: value for name, value in surroundings(folder, own).items() if not name.startswith("PYTHON")}
    programs = os.pathsep.join([str(own), str(Path(sys.base_prefix) / "bin"), "/usr/bin", "/bin"])
    # `pip` would compile all that it installs, and most of it is never imported here.
    return {**kept, "PATH": programs, "PIP_COMPILE": "no"}


def listed(folder: Path, environment: dict[str, str]) -> dict[str, str]:
    """Return the version of each distribution that is installed, by its name."""
    done = run("pip list --format json --disable-pip-version-check", folder, environment)
    return {canonicalize_name(one["name"]): one["version"] for one in json.loads(done.stdout)}


@pytest.fixture
def serving(home: tuple[Path, dict[str, str]]) -> Iterator[Path]:
    """Return the folder of a server that runs from the package."""
    with served("pdp serve", *home):
        yield home[0]


def test_the_wheel_is_of_this_version_and_holds_what_is_shipped(dist: Path, project_root: Path) -> None:
    """Sdist and wheel carry the distribution's name; templates, policies and files for deployments are in the wheel."""
    (wheel,) = dist.glob("*.whl")
    names = set(ZipFile(wheel).namelist())
    version = tomllib.loads((project_root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]

    made = {f"agent_pdp-{version}.tar.gz", f"agent_pdp-{version}-py3-none-any.whl", "requirements.lock"}
    assert made == {path.name for path in dist.iterdir()}
    for folder, package in (("policies", "pdp/example"), ("pdp/deployment", "pdp/deployment")):
        held = {
            f"{package}/{path.relative_to(project_root / folder)}"
            for path in (project_root / folder).rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
        assert held
        assert set() == held - names


def test_the_quick_start_runs_from_the_package(project_root: Path, home: tuple[Path, dict[str, str]]) -> None:
    """Every command of the README works in a folder that was empty, with the package and the locked libraries alone.

    The server has its default of workers.
    """
    page = project_root / "README.md"
    (serve,) = blocks(page, "sh serve")
    folder, one_worker = home
    environment = {name: value for name, value in one_worker.items() if name != ONE_WORKER}

    with served(serve, folder, environment):
        done = run("\n".join(blocks(page, "sh")), folder, environment)

    assert 0 == done.returncode, done.stderr
    assert not (folder / "pdp").exists()


def test_nothing_but_the_lock_is_installed(home: tuple[Path, dict[str, str]], dist: Path) -> None:
    """What the README installs is what the lock names, in its versions, and the package."""
    locked = (dist / "requirements.lock").read_text(encoding="utf-8")
    installed = listed(*home)

    assert "cedarpy" in installed
    beside = {name for name, version in installed.items() if f"\n{name}=={version} " not in f"\n{locked}"}
    assert {"agent-pdp"} == beside - {"pip", "setuptools"}


def test_the_small_package_is_small(client_home: tuple[Path, dict[str, str]], project_root: Path) -> None:
    """Without an extra there is neither engine nor store, nor any other library of an extra."""
    project = tomllib.loads((project_root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    installed = listed(*client_home)

    assert "grpcio" in installed
    extra = {canonicalize_name(Requirement(one).name) for one in project["optional-dependencies"]["server"]}
    assert set() == extra & installed.keys()


def test_the_small_package_asks_a_server(client_home: tuple[Path, dict[str, str]], serving: Path) -> None:
    """`pdp.client` and the commands of clients work without an extra, against a real server."""
    folder, environment = client_home
    for role in ("pep", "approver", "author"):
        shutil.copy(serving / ".pdp" / "tokens" / f"{role}.token", folder)
    # By which it knows the server.
    (folder / ".pdp" / "tls").mkdir(parents=True)
    shutil.copy(serving / ".pdp" / "tls" / "ca.pem", folder / ".pdp" / "tls")
    shutil.copy(serving / ".pdp" / "tls" / "ca.pem", folder)
    environment = {**environment, "PDP_TLS_ROOTS": "ca.pem"}
    as_approver = {**environment, "PDP_TOKEN_FILE": "approver.token"}

    asking = subprocess.Popen(
        [folder / ".venv" / "bin" / "python", "-c", ASK], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
    )
    approved = run(APPROVE, folder, as_approver)
    output, _ = asking.communicate(timeout=PAGE_SECONDS)
    others = run("pdp health\npdp bundle list --token-file author.token", folder, environment)

    assert (0, 0) == (approved.returncode, others.returncode), approved.stderr + others.stderr
    assert "allow permit ('git/engineers-read',)\n" == output


@pytest.mark.parametrize("command", ["pdp serve", "pdp check policies", "pdp doctor"])
def test_the_small_package_says_what_a_server_needs(client_home: tuple[Path, dict[str, str]], command: str) -> None:
    """A command that decides is refused in one line, which says what to install."""
    done = run(command, *client_home)

    assert 2 == done.returncode
    assert re.fullmatch(r"error: `\w+` is not installed: pip install 'agent-pdp\[server\]'\n", done.stderr)


def test_the_version_is_printed_without_an_extra(client_home: tuple[Path, dict[str, str]]) -> None:
    """`pdp --version` and `pdp version` need no extra."""
    done = run("pdp --version; pdp version", *client_home)

    first, second = done.stdout.splitlines()
    assert second.startswith(f"{first} · python ")


def test_the_steps_for_systemd_lead_to_a_server(project_root: Path, dist: Path, tmp_path: Path) -> None:
    """The page's lines install by hashes and put everything where the unit and the settings look for it."""
    root, checkout = tmp_path / "root", tmp_path / "checkout"
    shutil.copytree(project_root / "policies", checkout / "policies")
    (checkout / "dist").symlink_to(dist)
    write_certificate(checkout)
    (script,) = blocks(project_root / "pdp" / "deployment" / "README.md", "sh systemd")
    here = re.sub(r"/(?=(?:opt|etc)/)", f"{root}/", script)

    environment = fresh(checkout)
    installed = run(here, checkout, environment)
    settings = root / "etc" / "pdp" / "pdp.yaml"
    settings.write_text(re.sub(r"/(?=(?:var|etc)/)", f"{root}/", settings.read_text(encoding="utf-8")))
    program = root / "opt" / "pdp" / "bin" / "pdp"
    prepared = run(f"{program} init --config {settings}\n{program} doctor --config {settings}", checkout, environment)

    assert 0 == installed.returncode, installed.stderr
    assert 0 == prepared.returncode, prepared.stdout + prepared.stderr
    unit = (root / "etc" / "systemd" / "system" / "pdp.service").read_text(encoding="utf-8")
    (start,) = re.findall(r"^ExecStart=(\S+)", unit, re.MULTILINE)
    assert program == Path(f"{root}{start}")


def test_the_steps_of_the_image_install_the_package(dist: Path, tmp_path: Path) -> None:
    """The first stage of the container file, run here, leads to the program that the second one starts."""
    context = tmp_path / "src"
    shutil.copytree(dist, context)
    stage = container_file().partition("FROM ${BASE}\n")[0]
    steps = [json.loads(line.removeprefix("RUN ")) for line in stage.splitlines() if line.startswith("RUN ")]

    for words in steps:
        here = [word.replace("/opt/pdp", str(tmp_path / "pdp")) for word in words]
        subprocess.run(here, cwd=context, env=fresh(tmp_path), check=True, capture_output=True, timeout=PAGE_SECONDS)
    done = run(f"{tmp_path / 'pdp' / 'bin' / 'pdp'} --version", tmp_path, fresh(tmp_path))

    assert done.stdout.startswith("pdp ")
