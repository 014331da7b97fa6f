"""The command line of the broker: secrets go in by standard input, and come out by nothing."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from pdp.broker.checkouts.words import Checkout, CredentialKind, new_checkout_id
from pdp.broker.cli.root import COMMANDS, root
from pdp.broker.cli.serve import in_utc
from pdp.broker.oauth.answers import Granted
from pdp.broker.oauth.pair import TokenPair
from pdp.broker.opening import opened_checkouts, opened_vault
from pdp.broker.words import MOST_SECRET_BYTES, RolledBackError, Secret
from pdp.calltokens.checkouts import RecipientKey
from pdp.clock import SystemClock
from pdp.record.reader import read_records

Run = Callable[..., Result]
TO_PROVIDER = ("--token-endpoint", "https://login.example.com/token", "--client-id", "broker")
FOR_APP, SIGNS = (*TO_PROVIDER, "--app-repository", "x"), ("--client-auth", "private_key_jwt")
CANARY = "canary-of-a-secret-4711"
ADD = ("connection", "add", "github", "--kind", "github", "--upstream", "https://api.github.com", "--tenant", "acme")
TO_DATABASE = ("--upstream", "postgresql://db", "--database", "app", "--role", "broker")
PEOPLE = (
    *("--token-endpoint", "https://login.example.com/token", "--client-id", "broker"),
    *("--issuer", "https://login.example.com", "--authorization-endpoint", "https://login.example.com/authorize?a=b"),
)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run commands on the folder `broker`, in this process."""
    monkeypatch.setenv("PDP_BROKER_DATA_DIR", str(tmp_path / "broker"))

    def invoke(*words: str, stdin: str | bytes | None = None) -> Result:
        return CliRunner().invoke(root, words, input=stdin, prog_name="pdp-broker")

    return invoke


def commands(group: click.Group, before: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield each command below a group, by its words."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command
        yield (*before, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*before, name))


SINGLE = [(words, one) for words, one in commands(root) if not isinstance(one, click.Group)]
# They run until they are stopped, or change one thing and say whether by their exit code.
WITHOUT_JSON = {"serve", "stdio", "keys replace-root"}


@pytest.mark.parametrize(("words", "command"), SINGLE)
def test_every_command_of_the_broker_explains_itself(run: Run, words: tuple[str, ...], command: click.Command) -> None:
    """Every command has help with an example of its own, and prints JSON on demand."""
    done = run(*words, "--help")

    assert 0 == done.exit_code
    assert f"Example: pdp-broker {' '.join(words)}" in " ".join(done.stdout.split())
    as_json = any("--json" in option.opts for option in command.params)
    assert as_json == (" ".join(words) not in WITHOUT_JSON)


def test_the_table_of_the_broker_is_true() -> None:
    """What the help of the table says about a command is how the command's own help begins."""
    context = click.Context(root)
    known = {name: root.get_command(context, name) for name in COMMANDS}

    assert {name: entry.summary for name, entry in COMMANDS.items()} == {
        name: command.get_short_help_str(200) for name, command in known.items() if command
    }


def test_no_flag_and_no_variable_holds_a_secret() -> None:
    """Others can read flags, and started programs inherit variables: the commands of secrets have neither."""
    given = {
        (option.opts[0], str(getattr(option, "envvar", None)))
        for words, one in SINGLE
        for option in one.params
        if words[0] == "secret"
    }

    switches = {("--json", "None"), ("--generate", "None")}
    assert {("id_", "None"), ("--data-dir", "PDP_BROKER_DATA_DIR"), *switches} == given


def test_where_people_connect_is_shown_as_it_was_given(run: Run) -> None:
    """To people and to programs."""
    run("init")
    revoked = "https://login.example.com/revoke"
    assert 0 == run(*ADD, *PEOPLE, "--revocation-endpoint", revoked, "--grace-seconds", "30").exit_code

    shown = run("connection", "show", "github").stdout
    plain = json.loads(run("connection", "show", "github", "--json").stdout)

    for told in ("https://login.example.com/authorize?a=b", revoked, "30 seconds"):
        assert told in shown
    assert (revoked, 30.0, "https://login.example.com") == tuple(
        plain[name] for name in ("revocation_endpoint", "grace_seconds", "issuer")
    )


def test_the_secret_of_a_client_that_signs_is_a_key(run: Run) -> None:
    """In PEM, of several lines, and nothing else; for whom it signs is shown."""
    key = ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    run("init")
    run(*ADD, *TO_PROVIDER, *SIGNS, "--client-audience", "https://login.example.com")

    refused, done = run("secret", "put", "github", stdin=CANARY), run("secret", "put", "github", stdin=key.decode())

    assert ((2, 0), "") == ((refused.exit_code, done.exit_code), done.stderr)
    assert "the secret is no private key in PEM" in refused.stderr
    assert CANARY not in refused.output
    shown = json.loads(run("connection", "show", "github", "--json").stdout)
    assert ("private_key_jwt", "https://login.example.com") == (shown["client_auth"], shown["client_audience"])


def test_a_person_is_disconnected(run: Run, tmp_path: Path) -> None:
    """By who works at the broker; their tokens are not put from standard input, and a tenant's key is not ended so."""
    run("init")
    run(*ADD, *PEOPLE)
    run("secret", "put", "github", stdin="client")
    with opened_vault(tmp_path / "broker", lambda _: None) as vault:
        vault.add(replace(vault.connection("github"), id="alices", owner="alice"), by="tests")
    rotated, shown = run("secret", "put", "alices", stdin="x"), run("connection", "show", "alices")
    state = json.loads(run("connection", "show", "alices", "--json").stdout)["state"]
    done, again, other = (run("connection", "disconnect", id_, "--yes") for id_ in ("alices", "alices", "github"))

    assert ("needs_person", True) == (state, "needs_person" in shown.stdout)
    assert "what its provider gives when `alice` connects" in rotated.stderr
    assert 0 == done.exit_code
    assert done.stdout.startswith("disconnected `alices`: whether its tokens count is unknown")
    assert [2, 2] == [one.exit_code for one in (again, other)]
    assert "error: no such connection: `alices`" in again.stderr
    assert "error: `github` is no account of a person: `pdp-broker connection remove github`" in other.stderr


def test_a_shredded_tenant_says_what_became_of_its_people(run: Run, tmp_path: Path) -> None:
    """Of each connection; that a provider could not be told stops nothing, and is said."""
    run("init")
    run(*ADD, *PEOPLE, "--revocation-endpoint", "https://127.0.0.1:1/revoke", "--private-endpoint")
    run("secret", "put", "github", stdin="client")
    got = Granted(secret=Secret(b"a"), seconds=100.0, refresh=Secret(b"r"))
    tokens = TokenPair.of(got, asked=SystemClock().now(), share=0.7).packed()
    with opened_vault(tmp_path / "broker", lambda _: None) as vault:
        for id_ in ("alices", "bobs"):
            vault.add(replace(vault.connection("github"), id=id_, owner=id_), by="tests")
        vault.put("alices", tokens, by="tests")

    done = run("tenant", "shred", "acme", "--yes")

    first, *lines = done.stdout.splitlines()
    assert (0, "destroyed 1 key and 3 connections of `acme`") == (done.exit_code, first)
    assert "`alices`: its tokens count on at the provider, which could not be told: end them there" in lines
    assert "`bobs`: whether its tokens count is unknown; the access token is good until its end at most" in lines
    assert 1 == sum("of `alices` may be good still: the provider of `github`: " in one for one in lines)
    assert "no connections\n" == run("connection", "list").stdout


def test_a_secret_is_stored_rotated_and_ended(run: Run, tmp_path: Path) -> None:
    """From the first command to the last, as an operator does it; the record has every step, and no secret."""
    outputs = [
        run("init"),
        run(*ADD, "--compartment", "prod", "--scope", "repo:read"),
        run("secret", "put", "github", stdin="former\n"),
        run("secret", "rotate", "github", stdin=f"{CANARY}\n"),
        run("connection", "list"),
        run("connection", "show", "github"),
        run("keys", "rotate", "--tenant", "acme", "--compartment", "prod"),
    ]
    assert [0] * 7 == [one.exit_code for one in outputs], outputs
    with opened_vault(tmp_path / "broker", lambda _: None) as vault:
        assert CANARY.encode() == vault.open(vault.connection("github")).reveal()
    former, present = json.loads(run("keys", "list", "--json").stdout)["keys"]
    outputs += [run("keys", "retire", former["key"]), run("tenant", "shred", "acme", "--yes")]

    assert (0, 1) == (former["secrets"], present["secrets"])
    assert "destroyed 1 key and 1 connection of `acme`\n" == outputs[-1].stdout
    assert "no connections\n" == run("connection", "list").stdout
    kinds = [str(one.record["kind"]) for one in read_records(tmp_path / "broker" / "record")]
    told = ["connection.added", "secret.stored", "secret.rotated", "key.rotated", "key.retired", "tenant.shredded"]
    assert told == [kind for kind in kinds if kind.partition(".")[0] in ("connection", "secret", "key", "tenant")]
    held = b"".join(path.read_bytes() for path in (tmp_path / "broker").rglob("*") if path.is_file())
    assert CANARY.encode() not in held
    assert CANARY not in "".join(one.output for one in outputs)


@pytest.mark.parametrize(
    ("words", "stdin", "expected"),
    [
        (("secret", "put", "nope"), "x", "no such connection: `nope`"),
        (
            ("secret", "put", "github"),
            "x",
            "`github` has a secret already: `pdp-broker secret rotate github` replaces it",
        ),
        (
            ("secret", "rotate", "empty"),
            "x",
            "`empty` has no secret yet: `pdp-broker secret put empty` stores the first",
        ),
        (("secret", "rotate", "github", "--generate"), None, "the secret of `github` is made by its issuer"),
        (("secret", "put", "empty"), "", "the secret is empty, or not one line of printable ASCII"),
        (("secret", "put", "empty"), f"{CANARY}\nsecond", "the secret is empty, or not one line of printable ASCII"),
        (("secret", "put", "empty"), CANARY * MOST_SECRET_BYTES, "`secret`: it must have 1 to 65536 bytes"),
        (("connection", "remove", "nope"), None, "no such connection: `nope`"),
        (("connection", "remove", "github"), None, "no answer, so nothing is removed; `--yes` removes without asking"),
        (("connection", "remove", "github", "--json"), None, "--json needs --yes, because it asks no question"),
        (ADD, None, "there is a connection `github`, or another one of kind `github` for the same owner"),
        (("keys", "retire", "kek_x"), None, "there is no key `kek_x`"),
        (("keys", "rotate", "--tenant", "nope"), None, "the tenant `nope` has no key"),
        (("tenant", "shred", "acme"), None, "no answer, so nothing is destroyed; `--yes` destroys them without asking"),
        (("conection",), None, "no such command: `conection`; did you mean `connection`?"),
        ((*ADD[:2], "A"), None, "invalid value for 'CONNECTION': `A` is not up to 64 of"),
        ((*ADD, "--upstream", "http://api.github.com"), None, "only loopback may do without https"),
        ((*ADD, "--header", "Host"), None, "no secret can be sent in `Host`"),
        ((*ADD, "--scheme", "a b"), None, "`a b` is not one word, such as `Bearer`"),
        ((*ADD, "--client-id", "x"), None, "--token-endpoint and --client-id need each other"),
        ((*ADD, "--resource", "x"), None, "--resource and the options of other endpoints need --token-endpoint"),
        ((*ADD, "--issuer", "https://a.example"), None, "--authorization-endpoint and --issuer need each other"),
        ((*ADD, "--issuer", "http://a.example"), None, "only loopback may do without https"),
        ((*ADD, "--exchange-audience", "x"), None, "the options of other endpoints need --token-endpoint"),
        ((*ADD, "--client-audience", "https://a.example"), None, "--client-audience needs --client-auth"),
        ((*ADD, "--app-repository", "x"), None, "the options of other endpoints need --token-endpoint"),
        ((*ADD, *FOR_APP), None, "--app-repository needs --client-auth private_key_jwt"),
        ((*ADD, *FOR_APP, *SIGNS, "--exchange-audience", "x"), None, "--app-repository needs"),
        ((*ADD, *FOR_APP, *SIGNS, "--scope", "issues"), None, "it is a permission, such as `issues:write`"),
        ((*ADD, "--outlives-session"), None, "--outlives-session needs --revocation-endpoint"),
        ((*ADD, "--grace-seconds", "3"), None, "what is about people needs --authorization-endpoint"),
        ((*ADD, *PEOPLE, "--owner", "alice"), None, "--owner does not go with --authorization-endpoint"),
        ((*ADD, "--token-endpoint", "http://login.example.com/token"), None, "only loopback may do without https"),
        ((*ADD, "--token-endpoint", "https://login.example.com/a/../b"), None, "`.` or `..` as a part"),
        ((*ADD, "--token-endpoint", "https://["), None, "`https://[` is no URL"),
        ((*ADD, "--mode", "checkout"), None, "--mode checkout: a secret that lasts is never handed out"),
        ((*ADD, "--database", "app"), None, "--database, --role and --login-roots need --upstream postgresql://HOST"),
        ((*ADD, "--revocation-endpoint", "https://login.example.com/r"), None, "need --token-endpoint"),
        ((*ADD, *TO_DATABASE[:2]), None, "--upstream postgresql://HOST needs --database and --role"),
        ((*ADD, *TO_DATABASE), None, "--scope: name the group roles whose rights logins may have"),
        ((*ADD, *TO_DATABASE, "--mode", "proxy"), None, "--mode: logins can only be handed out: `checkout`"),
        ((*ADD, "--upstream", "postgresql://db/app"), None, "`postgresql://db/app` is no server"),
        (("checkout", "revoke", "chk_x"), None, "no such checkout: `chk_x`"),
        (("checkout", "revoke"), None, "name checkouts, or --session, --connection or --tenant"),
        (("checkout", "forget", "chk_x", "--yes"), None, "no such checkout: `chk_x`"),
    ],
)
def test_errors_of_the_broker_take_one_line(run: Run, words: tuple[str, ...], stdin: str | None, expected: str) -> None:
    """An error says what to do, holds no secret, and changes nothing."""
    run("init")
    run(*ADD)
    run("connection", "add", "empty", "--kind", "other", "--upstream", "https://example.com", "--tenant", "acme")
    run("secret", "put", "github", stdin="first")

    done = run(*words, stdin=stdin)

    assert 2 == done.exit_code
    assert expected in done.stderr.splitlines()[-1]
    assert CANARY not in done.output
    listed = json.loads(run("connection", "list", "--json").stdout)["connections"]
    assert [("empty", 0), ("github", 1)] == [(one["connection"], one["version"]) for one in listed]


def test_a_folder_is_made_by_init_alone(run: Run, tmp_path: Path) -> None:
    """A wrong folder is an error, not a new broker without secrets; and what is there stays."""
    missing = run("connection", "list")
    made = json.loads(run("init", "--json").stdout)["written"]
    before = {path: path.read_bytes() for path in (tmp_path / "broker" / "keys").glob("root-*")}
    again = run("init")

    assert (2, True) == (missing.exit_code, "run `pdp-broker init`" in missing.stderr)
    assert [] == list((tmp_path / "broker").parent.glob("broker/connections"))
    names = {Path(path).name for path in made}
    assert {"provider.yaml", "keys", "record.key", "record-signing.pem", "record-signing.pub.pem"} == names
    assert "nothing to do" in again.stdout
    assert before == {path: path.read_bytes() for path in (tmp_path / "broker" / "keys").glob("root-*")}


def test_a_restored_store_is_noticed_by_the_commands(run: Run, tmp_path: Path) -> None:
    """After a backup of the store came back, a secret that changed since is refused until it is put again."""
    for words, stdin in ((("init",), None), (ADD, None), (("secret", "put", "github"), "first")):
        run(*words, stdin=stdin)
    store = tmp_path / "broker" / "store" / "broker.sqlite"
    backup = store.read_bytes()
    run("secret", "rotate", "github", stdin="second")
    store.write_bytes(backup)

    with opened_vault(tmp_path / "broker", lambda _: None) as vault, pytest.raises(RolledBackError):
        vault.open(vault.connection("github"))
    assert 3 == json.loads(run("secret", "rotate", "github", "--json", stdin="third").stdout)["version"]
    with opened_vault(tmp_path / "broker", lambda _: None) as vault:
        assert b"third" == vault.open(vault.connection("github")).reveal()


def test_a_root_is_replaced_by_a_command(run: Run, tmp_path: Path) -> None:
    """While no broker runs; secrets open as before."""
    for words, stdin in ((("init",), None), (ADD, None), (("secret", "put", "github"), CANARY)):
        run(*words, stdin=stdin)
    with opened_vault(tmp_path / "broker", lambda _: None):
        running = run("keys", "replace-root", "--yes")
    stopped = run("keys", "replace-root", "--yes")

    assert (2, True) == (running.exit_code, "stop the broker first" in running.stderr)
    assert 0 == stopped.exit_code
    kinds = [str(one.record["kind"]) for one in read_records(tmp_path / "broker" / "record")]
    assert 1 == kinds.count("key.root_replaced")
    assert [2] == [int(path.name.split("-")[1]) for path in (tmp_path / "broker" / "keys").glob("root-*")]
    with opened_vault(tmp_path / "broker", lambda _: None) as vault:
        assert CANARY.encode() == vault.open(vault.connection("github")).reveal()


def test_what_is_out_is_listed_tried_and_given_up(run: Run, tmp_path: Path) -> None:
    """While its database is away it stays in the list, and keeps its connection; giving it up is on record."""
    there = ("--upstream", "postgresql://127.0.0.1:1", "--database", "app", "--role", "broker", "--scope", "reader")
    run("init")
    run("connection", "add", "app", "--kind", "app-db", *there)
    run("secret", "put", "app", stdin=CANARY)
    one = Checkout(
        id=new_checkout_id(),
        connection_id="app",
        kind=CredentialKind.LOGIN,
        token_id="t",  # noqa: S106 - an id
        decision_id="dec_1",
        session_ids=("ses_1", "ses_0"),
        user="alice",
        agent="coder",
        action="reports/read",
        scopes=("reader",),
        begun_at=1.0,
        next_at=2.0,
    )
    with opened_checkouts(tmp_path / "broker") as store:
        store.begin(one)
        store.hand_out(one.id, ends_at=3.0, kept=None)

    (listed,) = json.loads(run("checkout", "list", "--json").stdout)["checkouts"]
    outputs = [run("checkout", *words) for words in (("list",), ("revoke", "--session", "ses_0"), ("sweep",))]
    (kept,) = json.loads(run("checkout", "list", "--json").stdout)["checkouts"]
    removed = run("connection", "remove", "app", "--yes")
    given_up = run("checkout", "forget", one.id, "--yes")

    assert (one.id, "ses_1", ["ses_0"], True, 0) == tuple(
        listed[name] for name in ("checkout", "session", "ancestors", "overdue", "tries")
    )
    assert [0, 1, 1] == [done.exit_code for done in outputs]
    assert all(one.id in done.stdout for done in outputs)
    assert "not ended" in outputs[1].stdout
    assert 2 == kept["tries"]
    assert "credentials are still out, 1 of them" in removed.stderr
    assert f"drop the role `pdp_{one.id}` wherever it still is" in given_up.stdout
    assert "nothing is out" in run("checkout", "list").stdout
    kinds = [str(found.record["kind"]) for found in read_records(tmp_path / "broker" / "record")]
    assert ["credential.revoked", "credential.revoked", "credential.forgotten"] == [
        kind for kind in kinds if kind.startswith("credential")
    ]
    assert CANARY not in "".join(done.output for done in (*outputs, removed, given_up))


def test_the_key_of_a_tool_server_is_its_own(run: Run, tmp_path: Path) -> None:
    """It is in a file that only its user reads, and is not replaced; the public half is printed."""
    file = tmp_path / "key.pem"
    made, again = run("checkout", "key", str(file)), run("checkout", "key", str(file))

    assert RecipientKey.read(file.read_bytes()).public == made.stdout.strip()
    assert (0o600, 2) == (file.stat().st_mode & 0o777, again.exit_code)
    assert "exists already, and is left as it is" in again.stderr


def test_the_log_is_in_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its lines are compared with those of the server, which may run elsewhere."""
    record = logging.LogRecord("pdp.broker", logging.INFO, "", 0, "ready", None, None)
    record.created, record.msecs = 0.5, 500
    with monkeypatch.context() as patched:
        patched.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        line = in_utc().format(record)
    time.tzset()

    assert "1970-01-01T00:00:00.500Z INFO pdp.broker: ready" == line
