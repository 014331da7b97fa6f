"""`pdp caller`: who may call is listed, and tokens are made, replaced and taken back."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from pdp.identity.callers import KnownCallers, TokenCaller
from pdp.identity.callersfile import CallersFile
from pdp.model import Bounds, Role
from tests.cli.conftest import Run
from tests.machinery.servers.commandline import Server

CALLERS = Path(".pdp/callers.yaml")
TOKEN = re.compile(r"pdpt_[\w-]{43}")
COMMENTED = """\
# Whoever changes this asks Dana first.
gateway:
  token_sha256: '{0}'  # in the vault
  # Only reads.
  roles: [pep]

# Both are on call.
alice: {{jwt_subject: alice@example.org, roles: [approver]}}
bob: {{token_sha256: '{1}', roles: [approver], tenant: acme}}
# The end.
"""


def digest(token: str) -> str:
    """Return what the file holds of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def known(token: str) -> TokenCaller | None:
    """Return the caller that a server would know by a token."""
    return KnownCallers(CALLERS, development=True).current.by_token.get(bytes.fromhex(digest(token)))


def commented() -> str:
    """Write a file of callers by hand, and return its text."""
    CALLERS.parent.mkdir(mode=0o700)
    text = COMMENTED.format(digest("token-of-gateway"), digest("token-of-bob"))
    CALLERS.write_text(text)
    CALLERS.chmod(0o600)
    return text


def test_a_caller_is_added(run: Run) -> None:
    """A new caller has a token in a file of its own, readable by its owner alone, and nothing else shows it."""
    run("init")
    before = CALLERS.read_text()

    done = run("caller", "add", "ci-gateway", "--role", "pep", "--tenant", "acme")

    file = Path(".pdp/tokens/ci-gateway.token")
    token = file.read_text().strip()
    caller = known(token)
    assert (0, True) == (done.exit_code, done.stdout.startswith("wrote .pdp/tokens/ci-gateway.token\nadded "))
    assert caller is not None
    assert ("ci-gateway", "acme", {Role.PEP}) == (caller.caller.id, caller.caller.tenant, set(caller.caller.roles))
    assert TOKEN.fullmatch(token)
    assert token not in done.output + CALLERS.read_text()
    assert [0o600, 0o600] == [stat.S_IMODE(path.stat().st_mode) for path in (file, CALLERS)]
    assert CALLERS.read_text().startswith(before)


def test_a_gateway_is_added_with_those_for_whom_it_may_ask(run: Run) -> None:
    """The lists of the command are those of the entry, an id that reads like a number too, and the list shows them."""
    run("init")

    lists = (
        "--for-user",
        "bob",
        "--for-user",
        "007",
        "--for-tenant",
        "default",
        "--for-tenant",
        "acme",
        "--sees-no-results",
    )
    done = run("caller", "add", "door", "--role", "pep", *lists)
    run("caller", "rotate", "door")

    caller = known(Path(".pdp/tokens/door.token").read_text().strip())
    assert (0, True) == (done.exit_code, caller is not None)
    assert caller is not None
    expected = Bounds(tenants=frozenset({"default", "acme"}), users=frozenset({"bob", "007"}), sees_results=False)
    assert expected == caller.caller.bounds
    assert "users bob, 007; tenants default, acme; sees no results" in run("caller", "list").stdout
    listed = json.loads(run("caller", "list", "--json").stdout)[-1]
    assert [["bob", "007"], [], ["default", "acme"], False] == [
        listed[name] for name in ("users", "agents", "tenants", "sees_results")
    ]


def test_a_token_is_printed_when_asked(run: Run) -> None:
    """With `--to -` stdout is the token alone, and no file holds it."""
    run("init")

    done = run("caller", "add", "team/gateway", "--role", "pep", "--to", "-")

    assert TOKEN.fullmatch(done.stdout.strip())
    assert known(done.stdout.strip()) is not None
    assert "team" not in " ".join(path.name for path in Path(".pdp/tokens").iterdir())


def test_scripts_read_what_became_of_a_caller(run: Run) -> None:
    """With `--json` each change says who the caller is now, and where the token is: in a file, or in the answer."""
    run("init")

    added = json.loads(run("caller", "add", "ci", "--role", "pep", "--expires-in", "1h", "--json").stdout)
    rotated = run("caller", "rotate", "ci", "--expires-in", "never", "--keep-old", "10m", "--to", "-", "--json")
    other = json.loads(run("caller", "add", "dana", "--role", "approver", "--jwt-subject", "dana", "--json").stdout)
    removed = json.loads(run("caller", "remove", "ci", "--json").stdout)

    after = json.loads(rotated.stdout)
    named = ("caller", "credential", "roles", "token", "token_file")
    assert ["ci", "token", ["pep"], "", ".pdp/tokens/ci.token"] == [added[name] for name in named]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", added["expires_at"])
    assert TOKEN.fullmatch(after["token"])
    assert ["", ""] == [after["token_file"], after["expires_at"]]
    assert after["previous_expires_at"] < added["expires_at"]
    assert ["dana", "jwt_subject", ["approver"], "", ""] == [other[name] for name in named]
    assert ("ci", ".pdp/tokens/ci.token") == (removed["caller"], removed["removed_file"])
    assert not Path(".pdp/tokens/ci.token").exists()


def test_a_given_token_is_hashed(run: Run) -> None:
    """A token that was made elsewhere is added by its digest, and no file is written."""
    run("init")
    Path("given").write_text("a-token-that-the-vault-made-0123456789\n")
    files = set(Path(".pdp/tokens").iterdir())

    done = run("caller", "add", "vault", "--role", "pep", "--token-file", "given")

    assert (0, True) == (done.exit_code, done.stdout.startswith("added `vault` to "))
    assert known("a-token-that-the-vault-made-0123456789") is not None
    assert files == set(Path(".pdp/tokens").iterdir())


def test_a_token_expires_when_asked(run: Run) -> None:
    """A time to live becomes the end of the token, in the list too."""
    run("init")

    run("caller", "add", "guest", "--role", "auditor", "--expires-in", "1h")

    caller = known(Path(".pdp/tokens/guest.token").read_text().strip())
    listed = {one["caller"]: one["expires_at"] for one in json.loads(run("caller", "list", "--json").stdout)}
    assert caller is not None
    assert 0 < caller.ends_at - Path(".pdp/tokens/guest.token").stat().st_mtime <= 3601
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", listed["guest"])
    assert {""} == {listed[role.value] for role in Role}


def test_other_credentials_are_added(run: Run) -> None:
    """A caller may be known by a certificate, a subject or a group, and then has no token."""
    run("init")

    for option, value, role in (
        ("--spiffe-id", "spiffe://example.org/gateway", "pep"),
        ("--jwt-subject", "it's me", "auditor"),
        ("--jwt-group", "/release-managers", "approver"),
    ):
        assert 0 == run("caller", "add", option.strip("-"), option, value, "--role", role).exit_code

    current = KnownCallers(CALLERS).current
    assert ["spiffe-id"] == [current.by_spiffe_id["spiffe://example.org/gateway"].id]
    assert ["jwt-subject", "jwt-group"] == [
        current.by_jwt_subject["it's me"].id,
        current.by_jwt_group["/release-managers"].id,
    ]
    assert "jwt subject it's me" in run("caller", "list").stdout


def test_the_first_caller_makes_the_file(run: Run) -> None:
    """Who wants none of the callers of `pdp init` begins with one of their own."""
    Path(".pdp").mkdir(mode=0o700)

    done = run("caller", "add", "gateway", "--role", "pep")

    assert 0 == done.exit_code, done.output
    assert 0o600 == stat.S_IMODE(CALLERS.stat().st_mode)
    assert {"gateway"} == KnownCallers(CALLERS).current.ids


def test_a_token_is_rotated(run: Run) -> None:
    """The new token counts, the one of before does not, and the rest of the file stays as it was."""
    text = commented()

    done = run("caller", "rotate", "gateway", "--to", "new.token")

    token = Path("new.token").read_text().strip()
    assert (0, True) == (done.exit_code, done.stdout.startswith("wrote new.token\n"))
    assert text.replace(f"'{digest('token-of-gateway')}'  # in the vault", f"'{digest(token)}'") == CALLERS.read_text()
    assert (True, None) == (known(token) is not None, known("token-of-gateway"))
    assert token not in done.output


def test_the_old_token_may_be_kept_for_a_while(run: Run) -> None:
    """Both tokens count, the old one until its end; the next rotation ends it."""
    commented()

    run("caller", "rotate", "bob", "--keep-old", "10m", "--expires-in", "720h", "--to", "first.token")
    first = Path("first.token").read_text().strip()
    both = [known("token-of-bob"), known(first)]
    run("caller", "rotate", "bob", "--expires-in", "never", "--to", "second.token")

    assert all(both)
    old, new = (one.ends_at for one in both if one)
    assert 710 * 3600 < new - old < 720 * 3600
    assert [None, None] == [known("token-of-bob"), known(first)]
    assert "# Both are on call." in CALLERS.read_text()
    assert "_at" not in CALLERS.read_text()


def test_an_old_token_lives_no_longer_than_it_would_have(run: Run) -> None:
    """Rotation never prolongs what was to end sooner."""
    run("init")
    run("caller", "add", "guest", "--role", "auditor", "--expires-in", "1m")
    old = Path(".pdp/tokens/guest.token").read_text().strip()
    before = known(old)

    run("caller", "rotate", "guest", "--keep-old", "10h", "--expires-in", "1h")

    assert before is not None
    assert before == known(old)


def test_the_new_token_needs_an_end_if_the_old_one_has_one(run: Run) -> None:
    """A replacement never makes a token that expires into one that does not."""
    run("init")
    run("caller", "add", "guest", "--role", "auditor", "--expires-in", "1m")

    done = run("caller", "rotate", "guest")

    assert 2 == done.exit_code
    assert "expires: pass --expires-in for the new one" in done.stderr


def test_a_caller_is_removed(run: Run) -> None:
    """It is gone with its token; other entries and comments stay."""
    text = commented()
    Path(".pdp/tokens").mkdir()
    Path(".pdp/tokens/gateway.token").write_text("token-of-gateway-00000000000000000\n")
    CALLERS.write_text(text.replace(digest("token-of-gateway"), digest("token-of-gateway-00000000000000000")))

    done = run("caller", "remove", "gateway")

    assert (0, True) == (done.exit_code, done.stdout.startswith("removed .pdp/tokens/gateway.token\n"))
    assert text[: text.index("gateway:")] + text[text.index("\n# Both") :] == CALLERS.read_text()
    assert not Path(".pdp/tokens/gateway.token").exists()


def test_a_token_of_another_caller_stays(run: Run) -> None:
    """A file that holds another token than that of the caller is not removed."""
    run("init")
    Path(".pdp/tokens/pep.token").write_text(Path(".pdp/tokens/admin.token").read_text())

    run("caller", "remove", "pep")

    assert Path(".pdp/tokens/pep.token").exists()


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("add", "pep", "--role", "pep"), "caller `pep` already exists; `pdp caller rotate` gives it a new token"),
        (("add", "a b", "--role", "pep", "--to", "-"), "`a b` is not a caller id"),
        (("add", "a/b", "--role", "pep"), "`a/b` cannot be the name of a file: name a file for the token with --to"),
        (("add", "..", "--role", "pep"), "`..` cannot be the name of a file: name a file for the token with --to"),
        (("add", "x", "--role", "pep", "--role", "approver"), "an `approver` cannot also be `pep`"),
        (("add", "x", "--role", "pep", "--role", "nobody"), "'nobody' is not one of 'pep'"),
        (("add", "x", "--role", "approver", "--spiffe-id", "spiffe://e/a"), "a SPIFFE id names a program"),
        (("add", "x", "--role", "pep", "--spiffe-id", "spiffe://e/a", "--to", "-"), "has no token"),
        (("add", "x", "--role", "pep", "--spiffe-id", "e"), "`spiffe_id` must be a SPIFFE id"),
        (("add", "x", "--role", "pep", "--spiffe-id", "spiffe://e/a", "--jwt-subject", "s"), "exactly one of"),
        (("add", "x", "--role", "pep", "--token-file", "short"), "`short` holds no token: 32 or more printable"),
        (("add", "x", "--role", "pep", "--token-file", "none"), "cannot read `none`: no such file"),
        (
            ("add", "x", "--role", "pep", "--token-file", "short", "--to", "-"),
            "--to cannot be combined with --token-file",
        ),
        (("add", "x", "--role", "pep", "--token-file", ".pdp/tokens/admin.token"), "`x` has the token of `admin`"),
        (("add", "x", "--role", "pep", "--to", "short"), "`short` already exists"),
        (("rotate", "nobody"), "no caller `nobody` in `.pdp/callers.yaml`; it has `pep`"),
        (("remove", "nobody"), "no caller `nobody` in `.pdp/callers.yaml`; it has `pep`"),
    ],
)
def test_what_cannot_be_changed(run: Run, words: tuple[str, ...], problem: str) -> None:
    """A change that makes no sense is refused in one line, and nothing is written."""
    run("init")
    Path("short").write_text("pdpt_short\n")
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}

    done = run("caller", *words)

    assert (2, "") == (done.exit_code, done.stdout)
    assert problem in done.stderr
    assert before == {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("text", "words", "problem"),
    [
        ("a: {b: 1}\nb: [", ("remove", "a"), "not YAML"),
        (
            "{a: {jwt_subject: s, roles: [pep]}, b: {jwt_subject: t, roles: [pep]}}",
            ("remove", "a"),
            "change it by hand",
        ),
        ("a: {jwt_subject: s, roles: [pep]}", ("remove", "a"), "`a` is the only caller"),
        ("a: {jwt_subject: s, roles: [pep]}", ("rotate", "a"), "`a` has no token: it is identified by `jwt_subject`"),
        ("a: text\nb: {jwt_subject: s, roles: [pep]}", ("rotate", "a"), "must be a mapping"),
        ("a: {jwt_subject: s, roles: [pop]}", ("list",), "unknown role: `pop`"),
        ("", ("list",), "no callers in `.pdp/callers.yaml`; `pdp init` or `pdp caller add` creates some"),
    ],
)
def test_a_file_that_cannot_be_changed(run: Run, text: str, words: tuple[str, ...], problem: str) -> None:
    """A file in a form that a command cannot change safely stays as it is."""
    CALLERS.parent.mkdir(mode=0o700)
    CALLERS.write_text(text)
    CALLERS.chmod(0o600)

    done = run("caller", *words)

    assert 2 == done.exit_code
    assert problem in done.stderr
    assert text == CALLERS.read_text()


def test_a_broken_entry_can_be_removed(run: Run) -> None:
    """What keeps a server from starting can be taken out by the command."""
    text = commented()
    CALLERS.write_text(text.replace("roles: [pep]", "roles: [pop]"))

    assert 0 == run("caller", "remove", "gateway").exit_code
    assert {"alice", "bob"} == KnownCallers(CALLERS).current.ids


def test_two_commands_do_not_undo_each_other(run: Run) -> None:
    """Whatever is changed at the same time, nothing is lost."""
    run("init")
    words = (sys.executable, "-m", "pdp.cli", "caller", "add")
    adding = [
        subprocess.Popen([*words, f"gateway-{number}", "--role", "pep"], env=os.environ, stderr=subprocess.DEVNULL)
        for number in range(6)
    ]

    assert [0] * 6 == [one.wait(timeout=120) for one in adding]
    assert {f"gateway-{number}" for number in range(6)} < KnownCallers(CALLERS, development=True).current.ids


def test_mode_and_link_stay(run: Run) -> None:
    """What a platform handed over keeps its mode, but that others may write; a link stays a link."""
    run("init")
    target = Path("handed-over.yaml")
    CALLERS.rename(target)
    target.chmod(0o640)
    CALLERS.symlink_to(target.absolute())

    run("caller", "remove", "author")

    assert (True, 0o640) == (CALLERS.is_symlink(), stat.S_IMODE(target.stat().st_mode))
    assert "author" not in CallersFile(target).entries


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can hand files to a group")
def test_a_file_that_was_handed_to_a_group_stays_so(run: Run) -> None:
    """A server that reads root's file by its group can still read it."""
    run("init")
    os.chown(CALLERS, 0, 65534)
    CALLERS.chmod(0o640)

    run("caller", "remove", "author")

    status = CALLERS.stat()
    assert (0, 65534, 0o640) == (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode))
    assert "author" not in CallersFile(CALLERS).entries


def test_lost_tokens_are_named(run: Run) -> None:
    """`pdp init` and every command without a token say what brings one back, and that does."""
    run("init")
    for path in Path(".pdp/tokens").iterdir():
        path.unlink()
    Path(".pdp/tokens").rmdir()

    again = run("init")
    listing = run("session", "list", env={"PDP_ADDRESS": "127.0.0.1:1"})
    for role in Role:
        assert 0 == run("caller", "rotate", role.value).exit_code

    names = ", ".join(sorted(f"`{role.value}`" for role in Role))
    assert f"lacks the tokens of {names}: `pdp caller rotate ID`" in again.stdout
    assert "nothing to do" not in again.stdout
    remedy = "`pdp caller rotate approver` makes a new one, or pass --data-dir or --token-file"
    assert f"does not exist; {remedy}" in listing.stderr
    assert "nothing to do: `.pdp` is complete\n" == run("init").stdout


def test_a_running_server_reads_the_change_by_itself(own_server: Server, run: Run) -> None:
    """A token that was rotated is refused from then on without a signal, the new one is not, and the log says so."""
    folder = str(own_server.folder / ".pdp")
    given = {"PDP_ADDRESS": own_server.address, "PDP_DATA_DIR": folder}
    Path("old.token").write_text(Path(folder, "tokens", "approver.token").read_text())
    asked = ("session", "list", "--token-file")

    run("caller", "rotate", "approver", env=given)
    while run(*asked, f"{folder}/tokens/approver.token", env=given).exit_code != 0:
        pass  # the test's own time limit bounds the waiting

    refused = run(*asked, "old.token", env=given)
    assert (2, True) == (refused.exit_code, "unauthenticated" in refused.stderr)


def test_a_caller_sees_who_it_is(ask: Run, server: Server) -> None:
    """The server says whose token a command sends, by default the approver's, and does not repeat the token."""
    token = (server.folder / ".pdp/tokens/admin.token").read_text().strip()

    approver = ask("whoami")
    admin = ask("whoami", "--json", "--token-file", str(server.folder / ".pdp/tokens/admin.token"))

    assert "caller      approver\nroles       approver\n" in approver.stdout
    assert "proved      with each call (for development)\n" in approver.stdout
    assert {"caller_id": "admin", "roles": ["admin"], "tenants": ["default"]}.items() <= json.loads(
        admin.stdout
    ).items()
    assert token not in admin.output
