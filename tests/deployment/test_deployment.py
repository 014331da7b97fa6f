"""What is shipped to run the server elsewhere: it is well formed, locked down, and its very command lines run."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from configparser import RawConfigParser
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pytest
import yaml
from click.testing import CliRunner

from pdp.cli.operate.serve import GRACE_SECONDS
from pdp.cli.root import root
from pdp.config.reading import load
from pdp.config.settings import Settings
from pdp.deployment import container_file, kubernetes_manifests, settings_file, systemd_unit
from pdp.sessions.lease import CLOCK_RATE, MOST_LEASE_SECONDS
from tests.machinery.credentials.certificates import write_certificate
from tests.machinery.servers.commandline import write_bundle

SANDBOX = Path(__file__).with_name("sandbox.sh")
USER = 65532
TLS_NAMES = ("tls.crt", "tls.key")


def unit() -> dict[str, list[str]]:
    """Return the settings of the unit's service: each may be given several times."""
    settings: dict[str, list[str]] = {}
    section = systemd_unit().partition("[Service]")[2].partition("\n[")[0]
    for line in section.splitlines():
        if line and not line.startswith("#"):
            name, _, value = line.partition("=")
            settings.setdefault(name, []).append(value)
    return settings


class Manifests:
    """The manifests of one server, or of several that share PostgreSQL."""

    def __init__(self, *, replicas: bool) -> None:
        self.text = kubernetes_manifests(replicas=replicas)
        self.all: list[dict[str, Any]] = list(yaml.safe_load_all(self.text))

    def of(self, kind: str, name: str = "pdp") -> dict[str, Any]:
        """Return the only one of a kind that has a name."""
        (found,) = (one for one in self.all if (one["kind"], one["metadata"]["name"]) == (kind, name))
        return found

    @property
    def settings(self) -> str:
        """Return the settings of the server."""
        return str(self.of("ConfigMap")["data"]["pdp.yaml"])

    @property
    def set(self) -> dict[str, Any]:
        """Return what is said of the set of pods."""
        return dict(self.of("StatefulSet")["spec"])

    @property
    def pod(self) -> dict[str, Any]:
        """Return what is said of each pod."""
        return dict(self.set["template"]["spec"])

    @property
    def container(self) -> dict[str, Any]:
        """Return what is said of the only container."""
        (found,) = self.pod["containers"]
        return dict(found)


ONE, SEVERAL = Manifests(replicas=False), Manifests(replicas=True)
both = pytest.mark.parametrize("manifests", [ONE, SEVERAL], ids=["one", "several"])


class Instruction(NamedTuple):
    """One instruction of the container file."""

    name: str
    rest: str


def instructions() -> list[Instruction]:
    """Return the instructions of the container file."""
    lines = [line for line in container_file().splitlines() if line and not line.startswith("#")]
    return [Instruction(*line.split(" ", 1)) for line in lines]


def last(name: str) -> Any:
    """Return what the last instruction of this name says, as JSON."""
    return json.loads([one.rest for one in instructions() if one.name == name][-1])


def commands() -> dict[str, list[str]]:
    """Return every command line of ours in the files, without the program."""
    probes = {name: ONE.container[name]["exec"]["command"][1:] for name in ("startupProbe", "readinessProbe")}
    return {
        "container": last("CMD"),
        "unit": shlex.split(unit()["ExecStart"][0])[1:],
        "kubernetes": ONE.container["args"],
        "replicas": SEVERAL.container["args"],
        "readiness of replicas": SEVERAL.container["readinessProbe"]["exec"]["command"][1:],
        **probes,
    }


# What is printed.


@pytest.mark.parametrize(
    ("what", "content"),
    [
        ("container", container_file),
        ("systemd", systemd_unit),
        ("kubernetes", kubernetes_manifests),
        ("kubernetes --replicas", partial(kubernetes_manifests, replicas=True)),
        ("settings", settings_file),
    ],
)
def test_the_command_prints_the_file(what: str, content: Callable[[], str]) -> None:
    """What is printed is the file, to the byte."""
    done = CliRunner().invoke(root, ["deployment", *what.split()], prog_name="pdp")

    assert (0, content()) == (done.exit_code, done.stdout)


def test_the_files_are_in_the_package(project_root: Path, tmp_path: Path) -> None:
    """A package that is built of a checkout holds them."""
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(project_root / name, source)
    shutil.copytree(project_root / "pdp", source / "pdp", ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run(
        [sys.executable, "-c", "from setuptools import build_meta; build_meta.build_wheel('..')"],
        cwd=source,
        check=True,
        capture_output=True,
    )

    (wheel,) = tmp_path.glob("*.whl")
    listed = subprocess.run([sys.executable, "-m", "zipfile", "-l", wheel], check=True, capture_output=True, text=True)
    assert {"Containerfile", "pdp.service", "kubernetes.yaml", "kubernetes-replicas.yaml", "pdp.yaml"} <= {
        Path(line.split()[0]).name for line in listed.stdout.splitlines() if line.startswith("pdp/deployment/")
    }


@pytest.mark.parametrize(("name", "words"), commands().items())
def test_every_flag_exists(name: str, words: list[str]) -> None:
    """Each command line in the files is one that the program takes."""
    done = CliRunner().invoke(root, [*words, "--help"], prog_name="pdp")

    assert 0 == done.exit_code, (name, done.output)


@pytest.mark.parametrize(
    "text", [settings_file(), ONE.settings, SEVERAL.settings], ids=["settings", "kubernetes", "replicas"]
)
def test_the_settings_are_valid(text: str, tmp_path: Path) -> None:
    """Every setting in the files exists, and others reach the server by TLS alone."""
    file = tmp_path / "pdp.yaml"
    file.write_text(text, encoding="utf-8")

    settings = load(environ={}, file=file)

    assert "0.0.0.0:50151" == settings.server.address
    assert settings.server.tls_certificate
    assert "durable" == settings.record.durability


# The container file.


def test_the_image_runs_as_nobody() -> None:
    """The image has a user with a number that is not root's, and its commands need no shell."""
    names = [one.name for one in instructions()]

    assert f"{USER}:{USER}" == [one.rest for one in instructions() if one.name == "USER"][-1]
    assert names.index("USER") < names.index("ENTRYPOINT")
    assert all(isinstance(json.loads(one.rest), list) for one in instructions() if one.name in ("RUN", "CMD"))


def test_the_image_is_installed_by_hashes() -> None:
    """The first stage takes what `make dist` wrote, and fetches nothing that its lock does not name by hash."""
    made = [json.loads(one.rest) for one in instructions() if one.name == "RUN"]
    installed = [set(words) for words in made if "install" in words[:2] and words[0].endswith("pip")]

    assert ["/opt/pdp/bin/pdp"] == last("ENTRYPOINT")
    assert ["python3", "-m", "venv", "/opt/pdp"] == made[0]
    assert 2 == len(installed)
    assert {"--require-hashes", "requirements.lock"} <= installed[0]
    assert {"--no-deps", "--no-index", "agent-pdp"} <= installed[1]


# The unit.


def test_the_unit_is_locked_down() -> None:
    """The service gains no privileges, writes to one folder, and cannot see or change the rest of the machine."""
    found = {name: values[0] for name, values in unit().items()}

    yes = (
        "NoNewPrivileges",
        "ProtectHome",
        "PrivateTmp",
        "PrivateDevices",
        "ProtectKernelTunables",
        "RestrictNamespaces",
    )
    assert ["yes"] * len(yes) == [found[name] for name in yes]
    assert ("", "strict", "pdp", "0700") == tuple(
        found[name] for name in ("CapabilityBoundingSet", "ProtectSystem", "StateDirectory", "StateDirectoryMode")
    )
    assert found["User"] == "pdp"


@pytest.fixture
def unit_file(tmp_path: Path) -> Path:
    """Return the unit, with a program that exists on this machine."""
    program = tmp_path / "pdp"
    program.touch(mode=0o755)
    file = tmp_path / "pdp.service"
    file.write_text(systemd_unit().replace("/opt/pdp/bin/pdp", str(program)), encoding="utf-8")
    return file


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not here")
def test_systemd_takes_the_unit(unit_file: Path) -> None:
    """Every line of the unit is one that systemd knows."""
    done = subprocess.run(["systemd-analyze", "verify", unit_file], capture_output=True, text=True, check=False)

    assert [] == [line for line in done.stderr.splitlines() if str(unit_file) in line]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not here")
def test_systemd_finds_the_unit_safe(unit_file: Path) -> None:
    """The exposure that systemd computes is below 2, which it calls OK; a service without any of it has 9.6."""
    words = ["systemd-analyze", "security", "--offline=true", "--threshold=20", str(unit_file)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)

    assert 0 == done.returncode, done.stdout


def test_the_unit_is_a_file_of_its_form() -> None:
    """It has the three sections of a service, and each name stands before a value."""
    parser = RawConfigParser(strict=False, delimiters=("=",), comment_prefixes=("#",))
    parser.read_string(systemd_unit())

    assert ["Unit", "Service", "Install"] == parser.sections()


# The manifests.


@both
def test_the_pod_has_no_privileges(manifests: Manifests) -> None:
    """The pod is what the platform calls restricted: not root, nothing to gain, and a root folder that is read-only."""
    pod, own = manifests.pod, manifests.container["securityContext"]
    security = pod["securityContext"]

    assert "restricted" == manifests.of("Namespace")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
    assert (True, USER, "RuntimeDefault") == (
        security["runAsNonRoot"],
        security["runAsUser"],
        security["seccompProfile"]["type"],
    )
    assert {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}} == own
    assert (False, False) == (pod["automountServiceAccountToken"], pod["enableServiceLinks"])


@both
def test_the_network_policy_lets_in_those_with_a_label(manifests: Manifests) -> None:
    """Only labelled pods come in, to each port those with its label."""
    spec = manifests.of("NetworkPolicy")["spec"]

    assert ["Ingress", "Egress"] == spec["policyTypes"]
    for rule, name, label in zip(spec["ingress"], ("grpc", "control"), ("pdp.caller", "pdp.control"), strict=True):
        ((port,), (source,)) = rule["ports"], rule["from"]
        assert name == port["port"]
        assert {name: {"matchLabels": {label: "true"}} for name in ("namespaceSelector", "podSelector")} == source


def test_what_goes_out_is_named() -> None:
    """One server calls nobody; several call the database and the name service."""
    alone, spec = (one.of("NetworkPolicy")["spec"] for one in (ONE, SEVERAL))
    database, names = spec["egress"]

    assert [] == alone["egress"]
    labelled = {"matchLabels": {"pdp.database": "true"}}
    assert [{"namespaceSelector": labelled, "podSelector": labelled}] == database["to"]
    assert [5432] == [one["port"] for one in database["ports"]]
    assert {53} == {one["port"] for one in names["ports"]}


def test_there_is_one_server_on_a_file() -> None:
    """Two pods would not know of each other's sessions."""
    assert 1 == ONE.set["replicas"]
    assert "sqlite" == settings_of(ONE).sessions.store


@both
def test_each_server_has_its_own_folders(manifests: Manifests) -> None:
    """No other pod can mount what holds its lease, what it has acknowledged, and its record, and they outlive it."""
    mounts = {one["mountPath"]: one["name"] for one in manifests.container["volumeMounts"]}
    claims = {one["metadata"]["name"]: one["spec"]["accessModes"] for one in manifests.set["volumeClaimTemplates"]}
    settings = settings_of(manifests)

    assert {"data": ["ReadWriteOncePod"], "record": ["ReadWriteOncePod"]} == claims
    assert ["data", "record"] == [mounts[str(Path(one).parent)] for one in (settings.data_dir, settings.record.folder)]


def test_several_servers_share_what_they_must() -> None:
    """The database with a lease for each, one pair of keys of the record, and a folder that all can write."""
    settings = settings_of(SEVERAL)
    place = settings.record.shared_folder
    shared = next(one["name"] for one in SEVERAL.container["volumeMounts"] if one["mountPath"] == place)
    (claim,) = (one["persistentVolumeClaim"]["claimName"] for one in SEVERAL.pod["volumes"] if one["name"] == shared)

    assert ("postgres", True) == (settings.sessions.store, settings.sessions.lease_seconds > 0)
    assert ["ReadWriteMany"] == SEVERAL.of("PersistentVolumeClaim", claim)["spec"]["accessModes"]
    assert {"/run/pdp/record-keys"} == {
        str(one.parent) for one in (settings.record_signing_key, settings.record_digest_key)
    }


def test_no_database_restarts_a_server() -> None:
    """Only the port says that it lives; a lease says that it is ready."""
    probes = {name: SEVERAL.container[name] for name in ("startupProbe", "livenessProbe", "readinessProbe")}

    assert [{"port": "grpc"}] * 2 == [probes[name]["tcpSocket"] for name in ("startupProbe", "livenessProbe")]
    assert "health" == probes["readinessProbe"]["exec"]["command"][1]
    assert "cpu" not in SEVERAL.container["resources"]["limits"]


def test_a_server_leaves_before_it_is_killed() -> None:
    """There is time until nobody sends calls, for running calls, and for the longest lease."""
    leaving = SEVERAL.container["lifecycle"]["preStop"]["sleep"]["seconds"]

    assert leaving + GRACE_SECONDS + MOST_LEASE_SECONDS * CLOCK_RATE < SEVERAL.pod["terminationGracePeriodSeconds"]


def test_several_servers_are_not_lost_together() -> None:
    """They run on different machines, of which the platform drains one at a time, ready or not."""
    labels = {"matchLabels": SEVERAL.set["template"]["metadata"]["labels"]}
    (apart,) = SEVERAL.pod["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    budget = SEVERAL.of("PodDisruptionBudget")["spec"]

    assert ("kubernetes.io/hostname", labels) == (apart["topologyKey"], apart["labelSelector"])
    assert {"maxUnavailable": 1, "selector": labels, "unhealthyPodEvictionPolicy": "AlwaysAllow"} == budget


@both
def test_authority_ends_at_a_server_that_is_not_ready(manifests: Manifests) -> None:
    """The service of the control port leads there too, and that of calls does not."""
    services = [manifests.of("Service", name)["spec"] for name in ("pdp", "pdp-control")]

    assert [["grpc"], ["control"]] == [[port["name"] for port in one["ports"]] for one in services]
    assert [False, True] == [one.get("publishNotReadyAddresses", False) for one in services]


@both
def test_labels_and_names_agree(manifests: Manifests) -> None:
    """Services and network policy choose the pods that the set makes, and every mount has its volume."""
    labels = manifests.set["template"]["metadata"]["labels"]

    assert labels == manifests.set["selector"]["matchLabels"]
    assert [labels] * 2 == [manifests.of("Service", name)["spec"]["selector"] for name in ("pdp", "pdp-control")]
    assert labels == manifests.of("NetworkPolicy")["spec"]["podSelector"]["matchLabels"]
    volumes = {one["name"] for one in [*manifests.pod["volumes"], {"name": "data"}, {"name": "record"}]}
    assert volumes == {one["name"] for one in manifests.container["volumeMounts"]}
    assert {"pdp"} == {one["metadata"].get("namespace", "pdp") for one in manifests.all}


@pytest.mark.parametrize(("manifests", "number"), [(ONE, 9), (SEVERAL, 13)], ids=["one", "several"])
def test_every_path_is_mounted(manifests: Manifests, number: int) -> None:
    """Every path that the settings and the probe of the pod name lies in a mount."""
    probe = manifests.container["readinessProbe"]["exec"]["command"][1:]
    text = manifests.settings + " ".join([*manifests.container["args"], *probe])
    mounts = [one["mountPath"] for one in manifests.container["volumeMounts"]]

    paths = set(re.findall(r"(?<![\w.])/(?:var|etc|run)/[\w./-]+", text))
    assert number == len(paths)
    assert [] == [path for path in paths if not any(Path(path).is_relative_to(mount) for mount in mounts)]


@both
def test_what_must_be_made_before_is_named(manifests: Manifests, project_root: Path) -> None:
    """The page says how to make every secret and config map that the manifests refer to and do not hold."""
    page = (project_root / "pdp" / "deployment" / "README.md").read_text(encoding="utf-8")
    needed = [one["secret"]["secretName"] for one in manifests.pod["volumes"] if "secret" in one]
    needed += [one["configMap"]["name"] for one in manifests.pod["volumes"] if "configMap" in one]

    for name in set(needed) - {"pdp"}:
        assert re.search(rf"kubectl .*create (secret generic|configmap) {name} ", page), name


def settings_of(manifests: Manifests) -> Settings:
    """Return the settings of the config map."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "pdp.yaml"
        file.write_text(manifests.settings, encoding="utf-8")
        return load(environ={}, file=file)


# The very command lines, locked in as the files have it.


class Place(NamedTuple):
    """What the sandbox gets: the folder that holds `/etc/pdp` and `/run/pdp`, and what becomes `/var/lib/pdp`."""

    files: Path
    data: Path


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Return empty folders for the sandbox."""
    made = Place(tmp_path / "files", tmp_path / "data")
    for folder in ("etc/pdp/tls", "run/pdp/tls", "run/pdp/callers", "run/pdp/policies"):
        (made.files / folder).mkdir(parents=True)
    made.data.mkdir(mode=0o700)
    return made


def on_a_machine(place: Place) -> None:
    """Install what the page says for container and unit."""
    (place.files / "etc/pdp/pdp.yaml").write_text(settings_file(), encoding="utf-8")
    write_bundle(place.files / "etc/pdp/policies")
    tls(place.files / "etc/pdp/tls")
    os.chown(place.data, USER, USER)


def in_a_pod(place: Place) -> None:
    """Mount what the manifests say, as the platform does: secrets belong to root and can be read by the pod's group."""
    (place.files / "etc/pdp/pdp.yaml").write_text(ONE.settings, encoding="utf-8")
    policies, callers = place.files / "run/pdp/policies", place.files / "run/pdp/callers"
    write_bundle(policies / "source")
    for words in (
        ("bundle", "keygen", "-o", "release.key"),
        ("bundle", "build", "source", "-o", "policies.bundle"),
        ("bundle", "sign", "policies.bundle", "--key", "release.key", "--number", "1"),
        ("init", "--data-dir", "made"),
    ):
        subprocess.run([sys.executable, "-m", "pdp.cli", *words], cwd=policies, check=True, capture_output=True)
    shutil.copy(policies / "made" / "callers.yaml", callers)
    shutil.rmtree(policies / "made")
    (policies / "release.key").unlink()
    tls(place.files / "run/pdp/tls")
    hand_over(callers / "callers.yaml")
    # The platform owns the volume, and its group is the pod's.
    os.chown(place.data, 0, USER)
    place.data.chmod(0o2775)


def tls(folder: Path) -> None:
    """Write a certificate for the server, and what clients trust."""
    certificate, key = write_certificate(folder, names=("localhost",))
    shutil.copy(certificate, folder / "ca.crt")
    hand_over(key)


def hand_over(path: Path) -> None:
    """Let the server's group read a secret that belongs to root."""
    os.chown(path, 0, USER)
    path.chmod(0o440)


def sandboxed(place: Place, probe: list[str], server: list[str], project_root: Path) -> list[str]:
    """Run a server in the sandbox and ask it with a probe; return what was printed."""
    done = subprocess.run(
        [
            *("unshare", "--mount", "--net", "bash", str(SANDBOX)),
            *(sys.prefix, sys.base_prefix, str(project_root), str(place.files), str(place.data)),
            *(shlex.join(["/opt/pdp/bin/pdp", *probe]), *server),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert 0 == done.returncode, done.stdout + done.stderr
    return done.stdout.splitlines()


def can_be_sandboxed() -> bool:
    """Say whether this machine can give a process another root."""
    tools = ("unshare", "setpriv", "chroot", "ip")
    if os.geteuid() != 0 or not all(map(shutil.which, tools)) or not (Path(sys.prefix) / "bin" / "pdp").exists():
        return False
    trial = ["unshare", "--mount", "--net", "mount", "-t", "tmpfs", "none", "/mnt"]
    return subprocess.run(trial, capture_output=True, check=False).returncode == 0


needs_sandbox = pytest.mark.skipif(not can_be_sandboxed(), reason="only root can give a process another root")
PROBES: Mapping[str, list[str]] = {
    "kubernetes": commands()["readinessProbe"],
    "unit": ["health", "--address=localhost:50151", "--tls-roots=/etc/pdp/tls/ca.crt"],
    "container": ["health", "--address=localhost:50151", "--tls-roots=/etc/pdp/tls/ca.crt"],
}


@needs_sandbox
@pytest.mark.parametrize(
    ("name", "install"), [("container", on_a_machine), ("unit", on_a_machine), ("kubernetes", in_a_pod)]
)
def test_the_command_line_runs_locked_in(
    place: Place, name: str, install: Callable[[Place], None], project_root: Path
) -> None:
    """The server serves with a read-only root, no privileges and strict memory; probe and doctor find nothing wrong."""
    install(place)

    lines = sandboxed(place, PROBES[name], ["/opt/pdp/bin/pdp", *commands()[name]], project_root)

    assert ["listening on 0.0.0.0:50151", "serving", "probe 0"] == lines[:3]
    assert ["doctor 0", "read-only", "stopped 0"] == lines[-3:]
    found = json.loads("\n".join(lines[3:-3]))["findings"]
    assert [] == [one for one in found if one["level"] != "ok"]


@needs_sandbox
@pytest.mark.skipif(not (shutil.which("strace") and shutil.which("systemd-analyze")), reason="no strace or systemd")
def test_the_unit_allows_the_system_calls_that_the_server_makes(place: Place, project_root: Path) -> None:
    """From start to stop the server makes no system call that the unit forbids."""
    on_a_machine(place)
    traced = ["/usr/bin/strace", "-D", "-f", "-qq", "-o", "/var/lib/pdp/calls", "/opt/pdp/bin/pdp", *commands()["unit"]]
    allowed: set[str] = set()
    for value in unit()["SystemCallFilter"]:
        group = system_calls(value.removeprefix("~"))
        allowed = allowed - group if value.startswith("~") else allowed | group

    sandboxed(place, PROBES["unit"], traced, project_root)

    calls = re.findall(r"^\d+ +([a-z0-9_]+)\(", (place.data / "calls").read_text(errors="replace"), re.MULTILINE)
    assert len(calls) > 1000
    assert set() == set(calls) - allowed


def system_calls(group: str) -> set[str]:
    """Return the system calls of a group of systemd."""
    done = subprocess.run(["systemd-analyze", "syscall-filter", group], check=True, capture_output=True, text=True)
    lines = [line.strip() for line in done.stdout.splitlines()[1:]]
    names = {line for line in lines if line and not line.startswith(("#", "@"))}
    return names.union(*(system_calls(line) for line in lines if line.startswith("@")))
