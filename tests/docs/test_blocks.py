"""Every fenced block of every page is run or read by a test, or says why not."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest

from pdp.bench.recorded import read_calls
from pdp.config.reading import load
from pdp.doors.accesstokens import read_identities
from pdp.doors.mcp.resources import ProtectedResource
from pdp.doors.mcp.serversfile import read_servers
from pdp.errors import Problem
from pdp.foundation.yamltext import load_section
from pdp.identity.callers import read_callers
from pdp.limits import DEFAULT_LIMITS
from pdp.policy.contents import read_folder
from pdp.policy.declared import read_groups
from pdp.policy.labels import read_labels
from pdp.policy.loading import load_bundle
from pdp.policy.tools.catalogue import load_catalogue
from pdp.testing.bundles import SCHEMA, bundle_files, compile_here, tool, with_terms
from pdp.workbench.equivalents import read_equivalents
from pdp.workbench.reading import read_suite
from pdp.workbench.runner import run
from tests.machinery.pages import all_blocks, blocks

_PAGES = "tests/proofs/test_documentation.py::"
_HERE = "tests/docs/test_blocks.py::"

# Which test holds the blocks of a kind. Blocks of the kind `text` are no code.
HELD: Final[Mapping[str, Mapping[str, str]]] = {
    "README.md": {
        **dict.fromkeys(
            ("sh", "sh serve", "sh package"), "tests/proofs/test_package.py::test_the_quick_start_runs_from_the_package"
        ),
        "json mcp": f"{_PAGES}test_readme_mcp_configuration_works",
        "python": f"{_PAGES}test_readme_python_runs",
        "console": f"{_PAGES}test_grpcurl_body_is_a_request",
    },
    "benchmarks/README.md": {"json": f"{_HERE}test_calls_are_read"},
    "pdp/README.md": {"python": f"{_PAGES}test_embedded_python_runs"},
    "pdp/audit/README.md": {"sh": f"{_PAGES}test_audit_commands_run"},
    "pdp/broker/README.md": {
        "sh": "tests/broker/test_choosing.py::test_the_commands_of_the_page_run",
        **dict.fromkeys(
            ("yaml age", "yaml transit", "yaml pkcs11"),
            "tests/broker/test_choosing.py::test_the_page_shows_providers_that_are_read",
        ),
        "hcl": "tests/broker/real/test_real_providers.py::test_the_policy_of_the_page_suffices",
    },
    "pdp/broker/USING.md": dict.fromkeys(
        ("yaml settings", "yaml rules"), "tests/broker/test_rules.py::test_the_page_shows_files_that_are_read"
    ),
    "pdp/broker/CHECKOUT.md": {
        "sql": "tests/broker/real/test_real_logins.py::test_the_role_of_the_page_suffices",
        "yaml rules": "tests/broker/test_rules.py::test_the_page_of_checkouts_shows_rules_that_are_read",
        "python tool server": "tests/broker/test_checkouts.py::test_the_tool_server_of_the_page_opens_a_credential",
    },
    "pdp/calltokens/README.md": dict.fromkeys(
        ("yaml settings", "yaml overlay", "yaml caller", "python gateway", "python tool server"),
        "tests/server/test_calltokens.py::test_the_page_does_what_it_says",
    ),
    "pdp/deployment/README.md": {
        "sh": f"{_PAGES}test_deployment_commands_run",
        "sh served": f"{_PAGES}test_deployment_commands_run",
        "sh systemd": "tests/proofs/test_package.py::test_the_steps_for_systemd_lead_to_a_server",
    },
    "pdp/console/README.md": {"sh": "tests/console/test_console_command.py::test_the_command_opens_the_console"},
    "pdp/record/README.md": {"sh": f"{_PAGES}test_record_commands_run"},
    "pdp/server/README.md": {
        "sh": f"{_PAGES}test_certificate_and_token_commands_run",
        "sh serve": f"{_PAGES}test_certificate_and_token_commands_run",
        "sh served": f"{_PAGES}test_certificate_and_token_commands_run",
        "sh callers": f"{_PAGES}test_caller_commands_run",
        "sh tokens": f"{_PAGES}test_certificate_and_token_commands_run",
        "sh serve tokens": f"{_PAGES}test_certificate_and_token_commands_run",
        "sh served tokens": f"{_PAGES}test_certificate_and_token_commands_run",
        "yaml callers": f"{_HERE}test_callers_are_read",
        "yaml directory": "tests/registry/test_user_groups.py::test_the_page_shows_a_directory_that_is_read",
        "yaml settings": f"{_HERE}test_settings_are_read",
    },
    "pdp/messages/README.md": {
        "yaml receivers": "tests/messages/test_message_receivers.py::test_the_page_shows_a_file_that_is_read",
        "json message": "tests/messages/test_forms.py::test_the_page_shows_a_message",
        "python receiver": "tests/messages/test_sending.py::test_the_receiver_of_the_page_knows_genuine_messages",
    },
    "pdp/signals/README.md": dict.fromkeys(
        ("yaml settings", "yaml leaks"),
        "tests/signals/test_signals_process.py::test_the_page_shows_settings_that_are_read",
    ),
    "pdp/telemetry/README.md": {"sh": f"{_PAGES}test_telemetry_commands_run"},
    "pdp/client/README.md": {
        "python guard": "tests/client/test_client_obligations.py::test_the_page_does_what_it_says",
        "python fulfil": "tests/client/test_client_obligations.py::test_the_page_does_what_it_says",
        "python stopping": "tests/client/test_under_way.py::test_the_page_does_what_it_says",
        "python cancelling": "tests/client/test_under_way.py::test_the_page_does_what_it_says",
        "python insisting": "tests/client/test_under_way.py::test_the_page_does_what_it_says",
    },
    "pdp/doors/AUTHZEN.md": {
        "json answer": "tests/doors/authzen/test_authzen_page.py::test_the_page_shows_what_is_asked_and_answered",
        "json question": "tests/doors/authzen/test_authzen_page.py::test_the_page_shows_what_is_asked_and_answered",
    },
    "pdp/doors/mcp/README.md": {
        "yaml door": f"{_HERE}test_settings_and_identities_of_a_door_are_read",
        "yaml identities": f"{_HERE}test_settings_and_identities_of_a_door_are_read",
        "yaml servers": f"{_HERE}test_servers_behind_a_door_are_read",
    },
    "pdp/doors/AGENTGATEWAY.md": {
        "yaml agentgateway": "tests/doctor/test_agentgateway.py::test_the_page_has_no_hole",
    },
    "pdp/doors/ENVOY.md": {
        "yaml envoy": "tests/doors/envoy/real/test_envoy_program.py::test_envoy_accepts_the_page",
        "yaml table": "tests/doors/envoy/test_envoy_http.py::test_the_page_shows_a_table",
    },
    "pdp/doors/README.md": {
        "python call token": "tests/doors/test_core.py::test_a_tool_of_the_page_sends_the_token_of_its_call",
        "python langchain": "tests/doors/adapters/test_langchain.py::test_the_page_does_what_it_says",
        "python claude-agent": "tests/doors/adapters/test_claude_agent.py::test_the_page_does_what_it_says",
        "python crewai": "tests/doors/guarded/test_crewai.py::test_a_guarded_function_does_not_run_when_it_is_denied",
        "python fastmcp": "tests/doors/adapters/test_fastmcp.py::test_the_page_does_what_it_says",
        "python google-adk": "tests/doors/apart/test_google_adk.py::test_the_page_does_what_it_says",
        "python openai-agents": "tests/doors/adapters/test_openai_agents.py::test_the_page_does_what_it_says",
        "python pydantic-ai": "tests/doors/adapters/test_pydantic_ai.py::test_the_page_does_what_it_says",
        "python strands": "tests/doors/apart/test_strands.py::test_the_page_does_what_it_says",
    },
    "policies/README.md": {
        "sh": f"{_PAGES}test_policies_commands_run",
        "sh served": f"{_PAGES}test_policies_commands_run_beside_a_server",
        "sh serve file": f"{_PAGES}test_packed_bundles_are_served_as_shown",
        "sh serve url": f"{_PAGES}test_packed_bundles_are_served_as_shown",
        "cedar": "tests/example/test_example.py::test_the_guide_shows_what_is_there",
        "cedar added": f"{_PAGES}test_a_warning_is_silenced_as_shown",
        "yaml": "tests/example/test_example.py::test_the_guide_shows_what_is_there",
        "yaml overlay": f"{_HERE}test_overlays_are_read",
        "yaml labels": f"{_HERE}test_labels_are_read",
        "cedar schema": f"{_HERE}test_terms_are_declared_and_read_as_shown",
        "cedar slices": f"{_HERE}test_slices_are_read",
        "cedar terms": f"{_HERE}test_terms_are_declared_and_read_as_shown",
        "yaml obligations": f"{_HERE}test_obligations_are_read",
        "cedar obliging": f"{_HERE}test_obligations_are_read",
        "cedar asking": f"{_HERE}test_people_are_asked_as_shown",
        "yaml asked": f"{_HERE}test_people_are_asked_as_shown",
        "yaml history": f"{_HERE}test_cases_with_a_history_pass",
        "yaml parts": f"{_HERE}test_cases_about_parts_of_names_pass",
        "yaml groups": f"{_HERE}test_groups_are_read",
        "yaml results": f"{_HERE}test_results_are_read",
        "yaml targets": f"{_HERE}test_targets_are_read",
        "yaml known": f"{_HERE}test_targets_are_read",
        "cedar targets": f"{_HERE}test_targets_are_read",
        "cedar counts": f"{_HERE}test_counts_are_read",
        "yaml mutants": f"{_HERE}test_equivalent_mutants_are_read",
    },
}


def pages(root: Path) -> list[Path]:
    """Return every page of the project."""
    listed = subprocess.run(["git", "ls-files", "-z", "*.md"], cwd=root, capture_output=True, text=True, check=True)
    return [root / name for name in listed.stdout.split("\0") if name]


def test_every_block_is_held_or_says_why_not(project_root: Path) -> None:
    """A block that no test runs, reads or compares has a comment above it, `<!-- not run: why -->`."""
    silent = [
        f"{name}: ```{block.kind}: {block.text.splitlines()[0]}"
        for page in pages(project_root)
        for name in [page.relative_to(project_root).as_posix()]
        for block in all_blocks(page)
        if not block.not_run and block.kind != "text" and block.kind not in HELD.get(name, {})
    ]

    assert [] == silent


def test_no_block_is_overlooked(project_root: Path) -> None:
    """Each fence of a page belongs to a block that is found, however it is indented or drawn."""
    for page in pages(project_root):
        fences = re.findall(r"^\s*(?:```|~~~)", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert len(fences) == 2 * len(all_blocks(page)), page


def test_the_table_is_current(project_root: Path) -> None:
    """Each kind in the table is on its page, and each test is there and asks for this kind."""
    for name, kinds in HELD.items():
        found = {block.kind for block in all_blocks(project_root / name) if not block.not_run}
        assert set(kinds) <= found, name
        for kind, test in kinds.items():
            file, _, function = test.partition("::")
            source = (project_root / file).read_text(encoding="utf-8")
            assert f"def {function}(" in source, test
            # Of a kind with a parameter in it, as in `sh serve {source}`, the beginning.
            assert f'"{kind}"' in source or f'"{kind.rpartition(" ")[0]} {{' in source, (kind, test)


def test_callers_are_read(project_root: Path, tmp_path: Path) -> None:
    """Each file of callers that the page shows is one that the server takes."""
    shown = blocks(project_root / "pdp" / "server" / "README.md", "yaml callers")
    file = tmp_path / "callers.yaml"
    file.touch(mode=0o600)

    for text in shown:
        file.write_text(text, encoding="utf-8")
        read_callers(file, development=True)


def test_settings_and_identities_of_a_door_are_read(project_root: Path, tmp_path: Path) -> None:
    """What the page shows of access tokens is what the proxy takes."""
    page = project_root / "pdp" / "doors" / "mcp" / "README.md"
    file = tmp_path / "shown.yaml"
    file.touch(mode=0o600)
    [settings], [identities] = blocks(page, "yaml door"), blocks(page, "yaml identities")

    file.write_text(settings, encoding="utf-8")
    jwt = load(environ={}, file=str(file)).jwt
    assert ProtectedResource(url=jwt.audience, issuer=jwt.issuer).url == "https://mcp.example.org/mcp"

    file.write_text(identities, encoding="utf-8")
    assert read_identities(file, ["github"]).tools == ("github/*",)


def test_settings_are_read(project_root: Path, tmp_path: Path) -> None:
    """Each piece of a settings file that the page shows is one that the server takes."""
    for text in blocks(project_root / "pdp" / "server" / "README.md", "yaml settings"):
        file = tmp_path / "pdp.yaml"
        file.write_text(text, encoding="utf-8")
        load(environ={}, file=file)


def test_overlays_are_read(project_root: Path) -> None:
    """Each overlay that the page shows fits the tools of the example."""
    tools = (project_root / "policies" / "tools" / "git.json").read_bytes()

    for text in blocks(project_root / "policies" / "README.md", "yaml overlay"):
        load_catalogue({"tools/git.json": tools, "tools/git.yaml": text.encode("utf-8")})


def test_labels_are_read(project_root: Path) -> None:
    """The labels that the guide declares are read as it says."""
    (text,) = blocks(project_root / "policies" / "README.md", "yaml labels")
    problems: list[Problem] = []
    found = read_labels(load_section("bundle.yaml", text.encode("utf-8")), problems)

    assert [] == problems
    expected = {"untrusted": (False, True), "reviewed": (True, True), "internal": (False, False)}
    assert expected == {name: (one.widens, one.reported) for name, one in found.items()}


def test_terms_are_declared_and_read_as_shown(project_root: Path) -> None:
    """The guide's type and policies load in the example bundle, in place of its own type."""
    files = read_folder(project_root / "policies", DEFAULT_LIMITS)
    page = project_root / "policies" / "README.md"
    (declared,), (policies,) = blocks(page, "cedar schema"), blocks(page, "cedar terms")
    own = b"type SessionTerms = { targets?: Set<String> };"
    schema = files["schema.cedarschema"].replace(own, declared.encode())

    bundle = load_bundle(
        {**files, "schema.cedarschema": schema, "terms.cedar": policies.encode()}, DEFAULT_LIMITS, compile_here
    )

    assert {"terms/branches", "terms/tickets"} <= bundle.policies.keys()
    assert bundle.terms is not None
    assert '{ "branches"?: Set<String>, "max_sum"?: decimal, "ticket": String }' == bundle.terms.cedar()


def test_slices_are_read(project_root: Path) -> None:
    """The budgets that the guide declares are cut as it says."""
    (declared,) = blocks(project_root / "policies" / "README.md", "cedar slices")
    schema = with_terms("").replace("type SessionTerms = {  };", declared)
    files = bundle_files(policies={}, tools={}, directory="", schema=schema)

    assert {"max_calls_of_read_only": 20} == load_bundle(files, DEFAULT_LIMITS, compile_here).budget_slices


def test_groups_are_read(project_root: Path) -> None:
    """The groups that the guide declares are read as it says."""
    (text,) = blocks(project_root / "policies" / "README.md", "yaml groups")
    problems: list[Problem] = []
    found = read_groups(load_section("bundle.yaml", text.encode("utf-8")), problems)

    assert [] == problems
    assert ["critical", "leaves"] == list(found)


def test_cases_with_a_history_pass(project_root: Path) -> None:
    """The cases that the guide shows pass with the example's bundle."""
    folder = project_root / "policies"
    (text,) = blocks(folder / "README.md", "yaml history")
    bundle = load_bundle(read_folder(folder, DEFAULT_LIMITS), DEFAULT_LIMITS, compile_here)
    results = run(bundle, [read_suite("tests/history_test.yaml", text.encode("utf-8"))]).results

    assert [(), ()] == [result.problems for result in results]


def test_cases_about_parts_of_names_pass(project_root: Path) -> None:
    """The cases that the guide shows about owner and repository pass with the example's bundle."""
    folder = project_root / "policies"
    (text,) = blocks(folder / "README.md", "yaml parts")
    bundle = load_bundle(read_folder(folder, DEFAULT_LIMITS), DEFAULT_LIMITS, compile_here)
    results = run(bundle, [read_suite("tests/parts_test.yaml", text.encode("utf-8"))]).results

    assert [(), (), ()] == [result.problems for result in results]


def test_targets_are_read(project_root: Path) -> None:
    """The overlay, the attributes and the rule that the guide shows load together."""
    page = project_root / "policies" / "README.md"
    (overlay,), (known,), (rule,) = (blocks(page, kind) for kind in ("yaml targets", "yaml known", "cedar targets"))
    texts: dict[str, object] = {"type": "array", "items": {"type": "string"}}
    payment = {"type": "object", "properties": {"iban": {"type": "string"}}}
    mail = {"recipients": texts, "cc": texts, "subject": {"type": "string"}, "body": {"type": "string"}}
    payments = {"payments": {"type": "array", "items": payment}, "reference": {"type": "string"}}
    held = "contacts?: Set<String>, payees?: Set<String>"
    files = bundle_files(
        policies={"targets": rule, "mail": '@id("mail/all") permit (principal, action, resource);'},
        tools={"mail": [tool("send_email", mail), tool("pay", payments), tool("archive")]},
        overlays={"mail": overlay},
        directory="users: {ada: {attributes: {contacts: [a@x.com], payees: []}}}",
        schema=SCHEMA.replace("team?: String", held),
        manifest=known,
        labels=("untrusted",),
    )
    found = load_bundle(files, DEFAULT_LIMITS, compile_here)

    assert {"pay": 2, "send_email": 2, "archive": 0} == {
        one.name: len(one.targets or ()) for one in found.catalogue.tools.values()
    }
    assert found.slice("mail/pay").reading.readers.keys() == {"context.targets"}


def test_counts_are_read(project_root: Path) -> None:
    """The rules that the guide shows load, and fix what is counted."""
    (rules,) = blocks(project_root / "policies" / "README.md", "cedar counts")
    files = bundle_files(
        policies={"git": rules + '@id("git/all") permit (principal, action, resource);'},
        tools={"git": [tool("git_status"), tool("git_commit")]},
        overlays={"git": "risk: mutating"},
        directory="users: {ada: {}}",
    )
    found = load_bundle(files, DEFAULT_LIMITS, compile_here)

    assert {"git/git_commit"} == found.counted.counts
    assert {"git/git_status"} == found.counted.done


def test_results_are_read(project_root: Path) -> None:
    """The overlay that the guide shows says which results are trusted, and which of their fields issue ids."""
    (overlay,) = blocks(project_root / "policies" / "README.md", "yaml results")
    files = bundle_files(
        policies={"mail": '@id("mail/all") permit (principal, action, resource);'},
        tools={"mail": [tool(name) for name in ("search_contacts", "create_event", "search_files", "read_mail")]},
        overlays={"mail": overlay},
        directory="users: {ada: {}}",
    )
    tools = load_bundle(files, DEFAULT_LIMITS, compile_here).catalogue.tools.values()

    assert {
        "search_contacts": (True, ()),
        "create_event": (False, ("id",)),
        "search_files": (False, ("[].id",)),
        "read_mail": (False, ()),
    } == {one.name: (one.trusted, one.issues) for one in tools}


def test_obligations_are_read(project_root: Path) -> None:
    """The rules that the guide shows load with the example's bundle, and so does the declaration."""
    folder = project_root / "policies"
    (rules,) = blocks(folder / "README.md", "cedar obliging")
    (declared,) = blocks(folder / "README.md", "yaml obligations")
    files = read_folder(folder, DEFAULT_LIMITS)
    files |= {"git.cedar": rules.encode("utf-8"), "bundle.yaml": files["bundle.yaml"] + declared.encode("utf-8")}
    found = load_bundle(files, DEFAULT_LIMITS, compile_here).policies

    assert ["notice", "redact_result"] == [one.id for one in found["git/log-without-addresses"].obligations]
    assert "Revert the commit instead of a reset." == found["git/no-resets"].advice


def test_people_are_asked_as_shown(project_root: Path) -> None:
    """The rule asks a person, and the cases that say so pass."""
    folder = project_root / "policies"
    (rule,) = blocks(folder / "README.md", "cedar asking")
    (text,) = blocks(folder / "README.md", "yaml asked")
    files = read_folder(folder, DEFAULT_LIMITS)
    # The shipped rule about what is critical would ask as well.
    del files["untrusted.cedar"]
    files["git.cedar"] += rule.encode("utf-8")
    bundle = load_bundle(files, DEFAULT_LIMITS, compile_here)
    results = run(bundle, [read_suite("tests/asked_test.yaml", text.encode("utf-8"))]).results

    assert [(), ()] == [one.problems for one in results]


def test_equivalent_mutants_are_read(project_root: Path, tmp_path: Path) -> None:
    """What the page says about mutants that no test can notice is read as it says."""
    (text,) = blocks(project_root / "policies" / "README.md", "yaml mutants")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "mutants.yaml").write_text(text, encoding="utf-8")

    assert read_equivalents(tmp_path)


def test_calls_are_read(project_root: Path, tmp_path: Path) -> None:
    """The line of a workload that the page shows is a call."""
    (text,) = blocks(project_root / "benchmarks" / "README.md", "json")
    (tmp_path / "calls.jsonl").write_text(text, encoding="utf-8")

    assert ["git_log"] == [call.tool for call in read_calls(tmp_path / "calls.jsonl")]


@pytest.mark.parametrize("text", ["```sh\nx\n```\n", "```\nx\n```\n"])
def test_a_block_without_a_mark_is_found(text: str, tmp_path: Path) -> None:
    """A block has no reason of its own: the one above another block is not taken for it."""
    page = tmp_path / "page.md"
    page.write_text(f"<!-- not run: it is long -->\n\n```sh\ny\n```\n\n{text}", encoding="utf-8")

    assert ["it is long", ""] == [block.not_run for block in all_blocks(page)]


def test_servers_behind_a_door_are_read(project_root: Path, tmp_path: Path) -> None:
    """The page on the MCP proxy shows every key of the file with its servers."""
    page = project_root / "pdp" / "doors" / "mcp" / "README.md"
    [servers] = blocks(page, "yaml servers")
    file = tmp_path / "servers.yaml"
    file.write_text(servers, encoding="utf-8")

    assert ["/git/mcp", "/github/mcp"] == [entry.path for entry in read_servers(file)]
