"""RPCs about policies, which belong to no tenant and to no session: one bundle is active for all."""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.timestamp_pb2 import Timestamp

from pdp.v1.explain_pb2 import ExplainRequest, ExplainResponse, SupposedSession
from pdp.v1.policy_pb2 import (
    ActivateBundleRequest,
    ActivateBundleResponse,
    Bundle,
    BundleFile,
    CheckBundleRequest,
    CheckBundleResponse,
    EvaluateRequest,
    EvaluateResponse,
    GetBundleRequest,
    GetBundleResponse,
    ListBundlesRequest,
    ListBundlesResponse,
    ReloadBundleRequest,
    ReloadBundleResponse,
    TemplateLink,
)
from tests.machinery.rpcs.asking import BIDI, basis_of
from tests.machinery.rpcs.row import ANY, ERROR, RECORD, Row, Wrapped, tenant
from tests.machinery.rpcs.states import ANYHOW, CALLED

_LINK = TemplateLink(template_id="t", new_id="n")

POLICIES: Mapping[str, Row] = {
    "GetBundle": Row(
        ask=lambda _: GetBundleRequest(),
        roles=dict.fromkeys(("author", "auditor", "admin"), ANY),
        states=ANYHOW,
        wrong=((GetBundleRequest(version="v1"), "version"), (GetBundleRequest(policy_ids=["a"] * 101), "policy_ids")),
        wrapped=Wrapped(
            lambda client: client.get_bundle(policy_ids=["a"]),
            GetBundleRequest(policy_ids=["a"]),
            GetBundleResponse(load_errors=["x"]),
            GetBundleResponse(load_errors=["x"]),
        ),
        seen_again={
            "version": {ERROR},
        },
        without_bundle="OK",
    ),
    "ListBundles": Row(
        ask=lambda _: ListBundlesRequest(),
        roles=dict.fromkeys(("author", "auditor", "admin"), ANY),
        states=ANYHOW,
        wrapped=Wrapped(
            lambda client: client.list_bundles(),
            ListBundlesRequest(),
            ListBundlesResponse(bundles=[Bundle(version="sha256:v")]),
            (Bundle(version="sha256:v"),),
        ),
        without_bundle="OK",
    ),
    "ActivateBundle": Row(
        ask=lambda session: ActivateBundleRequest(version=session.bundle_version),
        roles=dict.fromkeys(("author", "admin"), ANY),
        states=ANYHOW,
        wrong=(
            (ActivateBundleRequest(version="sha256:12"), "version"),
            # It would forge what people read.
            (ActivateBundleRequest(version="sha256:" + "0" * 64, reason="fine\nanother line"), "reason"),
            (ActivateBundleRequest(version="sha256:" + "0" * 64, request_id="a b"), "request_id"),
        ),
        wrapped=Wrapped(
            lambda client: client.activate_bundle("sha256:v", reason="the new one fails"),
            ActivateBundleRequest(version="sha256:v", reason="the new one fails"),
            ActivateBundleResponse(changed=True),
            ActivateBundleResponse(changed=True),
        ),
        seen_again={
            "version": {ERROR},
        },
        without_bundle="OK",
    ),
    "ReloadBundle": Row(
        ask=lambda _: ReloadBundleRequest(),
        roles=dict.fromkeys(("author", "admin"), ANY),
        states=ANYHOW,
        wrong=((ReloadBundleRequest(request_id="a b"), "request_id"),),
        wrapped=Wrapped(
            lambda client: client.reload_bundle(),
            ReloadBundleRequest(),
            ReloadBundleResponse(changed=True),
            ReloadBundleResponse(changed=True),
        ),
        without_bundle="OK",
    ),
    "CheckBundle": Row(
        ask=lambda _: CheckBundleRequest(),
        roles=dict.fromkeys(("author", "admin"), ANY),
        states=ANYHOW,
        wrong=((CheckBundleRequest(files=[BundleFile(path="a"), BundleFile(path="a")]), "files[1].path"),),
        wrapped=Wrapped(
            lambda client: client.check_bundle({"b.cedar": b"2", "a.cedar": b"1"}),
            CheckBundleRequest(
                files=[
                    BundleFile(path="a.cedar", content=b"1"),
                    BundleFile(path="b.cedar", content=b"2"),
                ]
            ),
            CheckBundleResponse(version="sha256:v"),
            CheckBundleResponse(version="sha256:v"),
        ),
        without_store="OK",
        without_bundle="OK",
    ),
    "Evaluate": Row(
        ask=lambda _: EvaluateRequest(policies="permit (principal, action, resource);"),
        roles={"author": ANY},
        states=ANYHOW,
        wrong=(
            (EvaluateRequest(entities_json="{"), "entities_json"),
            (EvaluateRequest(running_bundle=True, policies="permit"), "policies"),
            (EvaluateRequest(running_bundle=True, schema="entity A;"), "schema"),
            (EvaluateRequest(running_bundle=True, schema_json="{}"), "schema_json"),
            (EvaluateRequest(policies="permit"), "policies"),
            (EvaluateRequest(requests_json=["[]"]), "requests_json[0]"),
            (EvaluateRequest(template_links=[TemplateLink(template_id="a", new_id="b")]), "template_links"),
            (EvaluateRequest(template_links=[TemplateLink(template_id="a", new_id="`")]), "template_links[0].new_id"),
        ),
        wrapped=Wrapped(
            lambda client: client.evaluate(
                [{"context": {}}, '{"as": "text"}'],
                policies="permit(principal, action, resource);",
                entities=[{"uid": 1}],
                schema={"": {}},
                template_links=[_LINK],
                validate=True,
                skip_request_validation=True,
            ),
            EvaluateRequest(
                policies="permit(principal, action, resource);",
                schema_json='{"": {}}',
                entities_json='[{"uid": 1}]',
                template_links=[_LINK],
                validate=True,
                requests_json=['{"context": {}}', '{"as": "text"}'],
                skip_request_validation=True,
            ),
            EvaluateResponse(valid=True),
            EvaluateResponse(valid=True),
        ),
        seen_again={
            "schema": {ERROR},
            "schema_json": {ERROR},
        },
        without_store="OK",
        without_bundle="OK",
    ),
    "Explain": Row(
        ask=lambda session: ExplainRequest(
            session_id=session.id, server="git", tool="log", arguments_json=b'{"repo": "web"}'
        ),
        said=lambda found, _: basis_of(found.basis),
        roles=dict.fromkeys(("author", "auditor"), tenant("permit")),
        # What a call would be answered, to authors of the tenant, whichever gateway opened the session.
        states=CALLED | {"unknown": "NOT_FOUND", "of_another_tenant": "NOT_FOUND"},
        wrong=(
            (ExplainRequest(server="git", tool="log"), "who"),
            *(
                (ExplainRequest(**{"server": "git", "tool": "git_log", "session_id": "ses_a", field: value}), field)  # type: ignore[arg-type]  # by name
                for field, value in (
                    ("session_id", "ses a"),
                    ("server", "git/x"),
                    ("tool", ""),
                    ("definition_digest", "md5:0"),
                    ("facts_json", b" " * (128 * 1024 + 1)),
                    ("caller_id", "a b"),
                    ("time", Timestamp(seconds=-1)),
                )
            ),
            *(
                (
                    ExplainRequest(
                        server="git",
                        tool="git_log",
                        supposed=SupposedSession(**{"user": "alice", "agent": "coder", field.partition("[")[0]: value}),  # type: ignore[arg-type]  # by name
                    ),
                    f"supposed.{field}",
                )
                for field, value in (
                    ("user", ""),
                    ("agent", "a b"),
                    ("grants[1]", ["a", "a b"]),
                    ("labels[0]", [BIDI]),
                    ("purpose", "a\r"),
                    ("environment", "a b"),
                    ("user_attributes_json", b" " * (128 * 1024 + 1)),
                    ("terms_json", b" " * (16 * 1024 + 1)),
                    ("terms_json", b'{"ticket": "OPS-1"}'),
                )
            ),
            (
                ExplainRequest(
                    server="git",
                    tool="git_log",
                    supposed=SupposedSession(user="alice", agent="coder"),
                    facts_json=b"[]",
                ),
                "facts_json",
            ),
        ),
        wrapped=Wrapped(
            lambda client: client.explain(
                "files",
                "read",
                {"path": "a"},
                session_id="ses_1",
                definition_digest="sha256:d",
                facts={"level": 1},
                caller_id="gateway",
                at=12.25,
            ),
            ExplainRequest(
                session_id="ses_1",
                server="files",
                tool="read",
                arguments_json=b'{"path":"a"}',
                definition_digest="sha256:d",
                facts_json=b'{"level":1}',
                caller_id="gateway",
                time=Timestamp(seconds=12, nanos=250_000_000),
            ),
            ExplainResponse(summary="allowed"),
            ExplainResponse(summary="allowed"),
        ),
        seen_again={
            "server": {RECORD},
            "tool": {RECORD},
            "session_id": {ERROR},
        },
    ),
}
