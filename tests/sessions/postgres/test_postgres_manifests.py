"""The Kubernetes manifests against its schemas, and two servers with their settings on a real PostgreSQL."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from pdp.client import Client
from pdp.deployment import kubernetes_manifests
from pdp.model import Role
from pdp.testing.waiting import wait_until
from tests.machinery.credentials.certificates import write_certificate
from tests.machinery.servers.commandline import Server, run_here, start_server, stop_server, write_bundle
from tests.sessions.postgres.postgresserver import INSTALLED

pytestmark = pytest.mark.replicas

SCHEMAS = INSTALLED / "kubernetes_validate" / "kubernetes-json-schema"


class Pods:
    """Pods of the set: a folder for each, with its own volumes, and one for what all of them mount."""

    def __init__(self, folder: Path, conninfo: str) -> None:
        self.folder, self.mounted = folder, folder / "mounted"
        for name in ("tls", "callers", "policies", "record-keys", "postgres", "shared"):
            (self.mounted / name).mkdir(parents=True)
        write_bundle(folder / "source")
        # As on the page.
        for words in (
            ("init", "--data-dir", "desk"),
            ("bundle", "keygen", "-o", "release.key"),
            ("bundle", "build", "source", "-o", "policies.bundle"),
            ("bundle", "sign", "policies.bundle", "--key", "release.key", "--number", "1"),
        ):
            assert run_here(folder, *words).returncode == 0
        for name, place in (
            ("desk/callers.yaml", "callers"),
            ("desk/record-signing.pem", "record-keys"),
            ("desk/record.key", "record-keys"),
            ("policies.bundle", "policies"),
            ("release.key.pub", "policies"),
        ):
            shutil.copy(folder / name, self.mounted / place)
        self.trusted, _ = write_certificate(self.mounted / "tls")
        (self.mounted / "postgres/conninfo").touch(mode=0o600)
        (self.mounted / "postgres/conninfo").write_text(conninfo, encoding="utf-8")

    def start(self, name: str) -> Server:
        """Start the server of a pod, with the settings of the config map, but at another address."""
        volumes = self.folder / name
        (volumes / "pdp").mkdir(parents=True)
        (volumes / "pdp-record").mkdir()
        text = next(one for one in yaml.safe_load_all(_MANIFESTS) if one["kind"] == "ConfigMap")["data"]["pdp.yaml"]
        for mount, place in (
            ("/var/lib/pdp-shared", self.mounted / "shared"),
            ("/run/pdp", self.mounted),
            ("/var/lib", volumes),
        ):
            text = re.sub(rf"{mount}(?=/|$)", str(place), text, flags=re.MULTILINE)
        (volumes / "pdp.yaml").write_text(text, encoding="utf-8")
        # The name of a pod is its host name.
        return start_server(volumes, "--config", str(volumes / "pdp.yaml"), "--record-replica", name)

    def address(self, server: Server) -> str:
        """Return the address by the name in the certificate."""
        return f"localhost:{server.address.rpartition(':')[2]}"

    def client(self, server: Server, role: Role) -> Client:
        """Return a client of a role."""
        token = self.folder / "desk/tokens" / f"{role.value}.token"
        return Client(self.address(server), token_file=token, tls=self.trusted, management_timeout=60.0, timeout=60.0)

    def ready(self, server: Server) -> bool:
        """Say what the probe says."""
        flags = (f"--address={self.address(server)}", f"--tls-roots={self.trusted}")
        return run_here(self.folder, "health", *flags).returncode == 0


_MANIFESTS = kubernetes_manifests(replicas=True)


@pytest.fixture
def pods(tmp_path: Path, conninfo: str) -> Pods:
    """Give pods without servers."""
    return Pods(tmp_path, conninfo)


@pytest.fixture
def servers(pods: Pods) -> Iterator[list[Server]]:
    """Give two servers that are ready."""
    with ExitStack() as opened:
        started = []
        for name in ("pdp-0", "pdp-1"):
            started.append(server := pods.start(name))
            opened.callback(stop_server, server)
        wait_until(lambda: all(map(pods.ready, started)), seconds=60.0)
        yield started


@pytest.mark.parametrize("version", ["1.30.0", "1.37.0"])
@pytest.mark.parametrize("replicas", [False, True], ids=["one", "several"])
def test_kubernetes_knows_every_field_of_the_manifests(*, version: str, replicas: bool) -> None:
    """Each manifest fits the schema of its kind, which admits no other fields."""
    found = list(yaml.safe_load_all(kubernetes_manifests(replicas=replicas)))
    # The strict ones.
    folder = SCHEMAS / f"v{version}-local-strict"
    assert folder.is_dir(), f"there is no `{folder}`: run `make replicas`"
    shared = _definitions(folder)
    problems = [
        f"{one['kind']}: {error.json_path}: {error.message}"
        for one in found
        for error in Draft202012Validator(_schema(folder, one), registry=shared).iter_errors(one)
    ]

    assert len(found) > 5
    assert [] == problems


def test_two_servers_of_the_manifests_are_one(pods: Pods, servers: list[Server]) -> None:
    """What is approved at one is used at the other, and revoked there at once; one key verifies the records of both."""
    here, there = servers
    with pods.client(here, Role.APPROVER) as approver, pods.client(there, Role.PEP) as pep:
        opened = pep.request_session(user="alice", agent="coder", purpose="read", tools=("files/*",))
        approver.approve_session(opened.session.session_id, request_digest=opened.session.request_digest)
        session = pep.attach(opened.session_handle, session_id=opened.session.session_id)
        before = session.authorize("files", "read", {"path": "a"})
        approver.revoke_sessions(session_id=opened.session.session_id, reason="enough")
        after = session.authorize("files", "read", {"path": "a"})
    for server in servers:
        stop_server(server)
    key, noted = pods.folder / "desk/record-signing.pub.pem", pods.mounted / "postgres/conninfo"
    words = ("audit", "verify", str(pods.mounted / "shared"), "--public-key", str(key), "--known-postgres", str(noted))
    verified = run_here(pods.folder, *words)

    assert (True, "session_revoked") == (before.allowed, after.basis)
    assert 0 == verified.returncode, verified.stdout + verified.stderr


def _definitions(folder: Path) -> Registry[Any]:
    content = json.loads((folder / "_definitions.json").read_text(encoding="utf-8"))
    resource: Resource[Any] = Resource.from_contents(content, default_specification=DRAFT202012)
    return resource @ Registry()


def _schema(folder: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    group, _, version = manifest["apiVersion"].rpartition("/")
    name = "-".join([manifest["kind"].lower(), *([group.partition(".")[0]] if group else []), version])
    schema: dict[str, Any] = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    return schema
