"""Call tokens with programs of others: a library of JavaScript, and a client and a server of the real SDK of MCP."""

from __future__ import annotations

import asyncio
import hmac
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client

from pdp.calltokens.claims import HEADER, encoded, written
from pdp.calltokens.keys import CallKey, key_set, keys_of
from pdp.calltokens.refusals import CallTokenRefusedError
from pdp.calltokens.uses import MemoryUses
from pdp.calltokens.verifying import PublishedKeys, Verifier
from pdp.client import CallTokenRequest
from pdp.testing.bundles import bundle_files, tool
from pdp.testing.inprocess import running_server, write_folder
from tests.doors.commands import PDP
from tests.doors.mcp.conversation import PATIENCE
from tests.doors.mcp.doorprocess import environment, run_pdp
from tests.doors.mcp.programs import guardedserver
from tests.doors.mcp.programs.installed import NODE, ROOT
from tests.doors.mcp.webworld import text_of
from tests.machinery.calltokens import ARGUMENTS, CLAIMS, KEY, NOW, PRESENTER, forged, token, verifier

pytestmark = pytest.mark.doors

KEYS = key_set({KEY.public.id: KEY.public})
FILES = bundle_files(
    policies={"git": '@id("git/all") permit (principal, action, resource);'},
    tools={"git": [tool("git_commit", {"value": {}})]},
    directory="{users: {alice: {}}, agents: {coder: {ceiling: ['git/*']}}}",
    overlays={"git": f"audiences: ['{CLAIMS.audience}']"},
)


def by_jose(tokens: list[str], arguments: list[bytes], *, keys: bytes = KEYS, now: float = NOW) -> list[dict[str, Any]]:
    """Return what the library says of tokens for calls with these arguments."""
    calls = [
        {"token": one, "server": "git", "tool": "git_commit", "arguments": text.decode()}
        for one, text in zip(tokens, arguments, strict=True)
    ]
    asked = {"jwks": json.loads(keys), "issuer": CLAIMS.issuer, "audience": CLAIMS.audience, "now": now, "calls": calls}
    done = subprocess.run(
        ["node", NODE / "calltokens.mjs"],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (0, "") == (done.returncode, done.stderr)
    said: list[dict[str, Any]] = json.loads(done.stdout)
    return said


def test_both_verify_what_the_server_has_signed() -> None:
    """Each reads the same claims, and finds the digest of the same arguments, however they are written."""
    texts = [
        b"{}",
        b'{"value": {"b": [1, 1.0, 1e2, -0.0, 1e21, 5e-324, 1e-7, 0.1], "a": null, "B": true}}',
        '{"value": {"é": "e\\u0301", "\\ud83d\\ude00": "\\u2028\\u0001\\"", "\\uffff": "\\/"}}'.encode(),
        b'{"value":9007199254740991}',
    ]
    with running_server(FILES, call_token_issuer=CLAIMS.issuer) as server:
        pep = server.client("pep")
        opened = pep.request_session(user="alice", agent="coder", purpose="p", tools=["git/*"], duration=600.0)
        server.client("approver").approve_session(
            opened.session.session_id, request_digest=opened.session.request_digest
        )
        wanted = CallTokenRequest(audience=CLAIMS.audience, certificate_thumbprint=PRESENTER.certificate)
        tokens = [
            pep.authorize(opened.session_handle, "git", "git_commit", text, call_tokens=(wanted,)).call_tokens[0].token
            for text in texts
        ]
        keys, now = pep.get_call_token_keys().jwks_json, server.clock.now().wall_at
    ours = Verifier(
        issuer=CLAIMS.issuer,
        audience=CLAIMS.audience,
        keys=PublishedKeys(lambda: keys_of(keys)),
        uses=MemoryUses(wall=lambda: 0.0),
        wall=lambda: now,
    )
    claims = [
        ours.verify(one, server="git", tool="git_commit", arguments=text, presenter=PRESENTER)
        for one, text in zip(tokens, texts, strict=True)
    ]

    assert [{"claims": json.loads(written(one))} for one in claims] == by_jose(tokens, texts, keys=keys, now=now)


def with_signature(text: str, signature: bytes) -> str:
    """Return a token with another signature."""
    return f"{text.rpartition('.')[0]}.{encoded(signature)}"


def with_claims(text: str, **said: Any) -> str:
    """Return a token that says something else than what was signed."""
    header, _, signature = text.split(".")
    return f"{header}.{encoded(json.dumps(json.loads(written(CLAIMS)) | said).encode())}.{signature}"


def by_mac(**header: str) -> str:
    """Return a token whose signature is made with the public key as a secret."""
    message = forged(header).rpartition(".")[0]
    return f"{message}.{encoded(hmac.digest(KEY.public.content, message.encode(), 'sha256'))}"


FORGED = {
    "no algorithm": with_signature(forged({"alg": "none"}), b""),
    "a secret that all know": by_mac(alg="HS256"),
    "the other name of the algorithm": forged({"alg": "EdDSA"}),
    "a token of another type": forged({"typ": "at+jwt"}),
    "an extension that must be understood": forged({"crit": ["exp"]}),
    "no signature": with_signature(token(), b""),
    "another key by the same name": f"{token().rpartition('.')[0]}.{CallKey().signed(CLAIMS).rpartition('.')[2]}",
    "a key that is not published": CallKey().signed(CLAIMS),
    "another user": with_claims(token(), sub="bob"),
    "a later end": with_claims(token(), exp=CLAIMS.expires_at + 1),
    "another audience": token(audience="https://other.example"),
    "another audience besides": forged(aud=[CLAIMS.audience, "https://other.example"]),
    "another deployment": token(issuer="other.example"),
    "another server": token(server="github"),
    "another tool": token(tool="git_push"),
    "a token that is over": token(issued_at=int(NOW) - 30, expires_at=int(NOW) - 15),
    "no end": forged(exp=None),
    "not a token": "a.b.c",
}


def test_both_refuse_what_is_forged() -> None:
    """No token passes at one of them that does not pass at the other, and neither do other arguments."""
    good = json.dumps(ARGUMENTS).encode()
    tokens = [token(), *FORGED.values(), token()]
    arguments = [good] * (1 + len(FORGED)) + [json.dumps({**ARGUMENTS, "lines": 4}).encode()]

    def refused(text: str, said: bytes) -> bool:
        try:
            verifier(wall=lambda: NOW).verify(
                text, server="git", tool="git_commit", arguments=said, presenter=PRESENTER
            )
        except CallTokenRefusedError:
            return True
        return False

    ours = [refused(*one) for one in zip(tokens, arguments, strict=True)]
    theirs = ["refused" in one for one in by_jose(tokens, arguments)]
    names = ["a good one", *FORGED, "other arguments"]

    assert dict.fromkeys(names, True) | {"a good one": False} == dict(zip(names, ours, strict=True))
    assert ours == theirs


# A client and a server of the real SDK, and the proxy between them that decides by itself.


@pytest.mark.anyio
async def test_a_real_server_takes_a_call_from_the_proxy_alone(tmp_path: Path) -> None:
    """Once, and with its arguments: what a client of its own sends is refused, and so is what the proxy has sent."""
    (listed,) = await guardedserver.server_of(verifier(), tmp_path / "none").list_tools()
    overlay = f"audiences: ['{guardedserver.AUDIENCE}']\nrisk: read_only"
    write_folder(
        tmp_path / "policies",
        bundle_files(
            policies={"notes": '@id("notes/all") permit (principal, action, resource);'},
            tools={"notes": [listed.model_dump(by_alias=True, exclude_none=True, mode="json")]},
            directory="{users: {alice: {}, approver: {}}, agents: {coder: {ceiling: ['notes/*']}}}",
            overlays={"notes": overlay},
        ),
    )
    data = tmp_path / "data"
    address, token_file = f"unix:{data / 'server.sock'}", str(data / "tokens" / "broker.token")
    served = [sys.executable, str(Path(guardedserver.__file__)), address, token_file, str(tmp_path)]
    proxy = ["mcp", "--embedded", "--policies", str(tmp_path / "policies"), "--data-dir", str(data)]
    proxy += ["--request", "to test", "--user", "alice", "--agent", "coder", "--server", "notes"]
    proxy += ["--call-token", guardedserver.AUDIENCE, "--", *served]

    async with started([*PDP, *proxy]) as through, started(served) as beside:
        waits = text_of(await through.call_tool("write", {"text": "a"}))
        run_pdp(f"{waits.partition('`')[2].partition('`')[0]} --yes")
        async with asyncio.timeout(PATIENCE):
            while (told := text_of(await through.call_tool("write", {"text": "a"}))) != "wrote a":
                assert "approve" in told or "does not answer" in told, told
        metas: list[Any] = [json.loads(line) or {} for line in (tmp_path / "seen").read_text("utf-8").splitlines()]
        sent = [meta for meta in metas if HEADER in meta]
        tries: list[tuple[str, Any]] = [("a", None), ("a", sent[-1]), ("b", sent[-1])]
        mine = [text_of(await beside.call_tool("write", {"text": text}, meta=meta)) for text, meta in tries]

    assert 1 == len(sent)
    assert ["malformed", "used", "arguments"] == [one.split(": ")[1] for one in mine]


@asynccontextmanager
async def started(command: list[str]) -> AsyncIterator[Client]:
    """Start a server as a client of MCP does, and provide the client."""
    parameters = StdioServerParameters(command=command[0], args=command[1:], env=environment(), cwd=ROOT)
    async with Client(stdio_client(parameters)) as client:
        yield client
