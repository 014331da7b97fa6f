import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from pdp.v1 import explain_pb2 as _explain_pb2
from pdp.v1 import fence_pb2 as _fence_pb2
from pdp.v1 import reading_pb2 as _reading_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Severity(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SEVERITY_UNSPECIFIED: _ClassVar[Severity]
    SEVERITY_ERROR: _ClassVar[Severity]
    SEVERITY_WARNING: _ClassVar[Severity]

class EngineDecision(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ENGINE_DECISION_UNSPECIFIED: _ClassVar[EngineDecision]
    ENGINE_DECISION_ALLOW: _ClassVar[EngineDecision]
    ENGINE_DECISION_DENY: _ClassVar[EngineDecision]
    ENGINE_DECISION_NO_DECISION: _ClassVar[EngineDecision]
SEVERITY_UNSPECIFIED: Severity
SEVERITY_ERROR: Severity
SEVERITY_WARNING: Severity
ENGINE_DECISION_UNSPECIFIED: EngineDecision
ENGINE_DECISION_ALLOW: EngineDecision
ENGINE_DECISION_DENY: EngineDecision
ENGINE_DECISION_NO_DECISION: EngineDecision

class Policy(_message.Message):
    __slots__ = ("policy_id", "effect", "file", "line", "text")
    POLICY_ID_FIELD_NUMBER: _ClassVar[int]
    EFFECT_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    LINE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    policy_id: str
    effect: str
    file: str
    line: int
    text: str
    def __init__(self, policy_id: _Optional[str] = ..., effect: _Optional[str] = ..., file: _Optional[str] = ..., line: _Optional[int] = ..., text: _Optional[str] = ...) -> None: ...

class Bundle(_message.Message):
    __slots__ = ("version", "name", "label", "policies", "tool_count", "activate_time", "activated_by", "reason", "active", "chosen", "number", "signed_by")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    POLICIES_FIELD_NUMBER: _ClassVar[int]
    TOOL_COUNT_FIELD_NUMBER: _ClassVar[int]
    ACTIVATE_TIME_FIELD_NUMBER: _ClassVar[int]
    ACTIVATED_BY_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_FIELD_NUMBER: _ClassVar[int]
    CHOSEN_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    SIGNED_BY_FIELD_NUMBER: _ClassVar[int]
    version: str
    name: str
    label: str
    policies: _containers.RepeatedCompositeFieldContainer[Policy]
    tool_count: int
    activate_time: _timestamp_pb2.Timestamp
    activated_by: str
    reason: str
    active: bool
    chosen: bool
    number: int
    signed_by: str
    def __init__(self, version: _Optional[str] = ..., name: _Optional[str] = ..., label: _Optional[str] = ..., policies: _Optional[_Iterable[_Union[Policy, _Mapping]]] = ..., tool_count: _Optional[int] = ..., activate_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., activated_by: _Optional[str] = ..., reason: _Optional[str] = ..., active: _Optional[bool] = ..., chosen: _Optional[bool] = ..., number: _Optional[int] = ..., signed_by: _Optional[str] = ...) -> None: ...

class GetBundleRequest(_message.Message):
    __slots__ = ("version", "with_readings", "with_sessions", "policy_ids")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    WITH_READINGS_FIELD_NUMBER: _ClassVar[int]
    WITH_SESSIONS_FIELD_NUMBER: _ClassVar[int]
    POLICY_IDS_FIELD_NUMBER: _ClassVar[int]
    version: str
    with_readings: bool
    with_sessions: bool
    policy_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, version: _Optional[str] = ..., with_readings: _Optional[bool] = ..., with_sessions: _Optional[bool] = ..., policy_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class GetBundleResponse(_message.Message):
    __slots__ = ("bundle", "load_errors", "source_version", "tool_readings", "sessions_unfit")
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    LOAD_ERRORS_FIELD_NUMBER: _ClassVar[int]
    SOURCE_VERSION_FIELD_NUMBER: _ClassVar[int]
    TOOL_READINGS_FIELD_NUMBER: _ClassVar[int]
    SESSIONS_UNFIT_FIELD_NUMBER: _ClassVar[int]
    bundle: Bundle
    load_errors: _containers.RepeatedScalarFieldContainer[str]
    source_version: str
    tool_readings: _containers.RepeatedCompositeFieldContainer[_reading_pb2.ToolReading]
    sessions_unfit: int
    def __init__(self, bundle: _Optional[_Union[Bundle, _Mapping]] = ..., load_errors: _Optional[_Iterable[str]] = ..., source_version: _Optional[str] = ..., tool_readings: _Optional[_Iterable[_Union[_reading_pb2.ToolReading, _Mapping]]] = ..., sessions_unfit: _Optional[int] = ...) -> None: ...

class ListBundlesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListBundlesResponse(_message.Message):
    __slots__ = ("bundles",)
    BUNDLES_FIELD_NUMBER: _ClassVar[int]
    bundles: _containers.RepeatedCompositeFieldContainer[Bundle]
    def __init__(self, bundles: _Optional[_Iterable[_Union[Bundle, _Mapping]]] = ...) -> None: ...

class ActivateBundleRequest(_message.Message):
    __slots__ = ("version", "reason", "request_id")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    version: str
    reason: str
    request_id: str
    def __init__(self, version: _Optional[str] = ..., reason: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class ActivateBundleResponse(_message.Message):
    __slots__ = ("bundle", "changed", "sessions_unfit", "fenced_by", "fence_duration", "revision", "servers_lacking")
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    SESSIONS_UNFIT_FIELD_NUMBER: _ClassVar[int]
    FENCED_BY_FIELD_NUMBER: _ClassVar[int]
    FENCE_DURATION_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    SERVERS_LACKING_FIELD_NUMBER: _ClassVar[int]
    bundle: Bundle
    changed: bool
    sessions_unfit: int
    fenced_by: _fence_pb2.FencedBy
    fence_duration: _duration_pb2.Duration
    revision: str
    servers_lacking: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, bundle: _Optional[_Union[Bundle, _Mapping]] = ..., changed: _Optional[bool] = ..., sessions_unfit: _Optional[int] = ..., fenced_by: _Optional[_Union[_fence_pb2.FencedBy, str]] = ..., fence_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., revision: _Optional[str] = ..., servers_lacking: _Optional[_Iterable[str]] = ...) -> None: ...

class ReloadBundleRequest(_message.Message):
    __slots__ = ("request_id",)
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    def __init__(self, request_id: _Optional[str] = ...) -> None: ...

class ReloadBundleResponse(_message.Message):
    __slots__ = ("bundle", "changed", "sessions_unfit", "fenced_by", "fence_duration", "revision", "servers_lacking")
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    SESSIONS_UNFIT_FIELD_NUMBER: _ClassVar[int]
    FENCED_BY_FIELD_NUMBER: _ClassVar[int]
    FENCE_DURATION_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    SERVERS_LACKING_FIELD_NUMBER: _ClassVar[int]
    bundle: Bundle
    changed: bool
    sessions_unfit: int
    fenced_by: _fence_pb2.FencedBy
    fence_duration: _duration_pb2.Duration
    revision: str
    servers_lacking: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, bundle: _Optional[_Union[Bundle, _Mapping]] = ..., changed: _Optional[bool] = ..., sessions_unfit: _Optional[int] = ..., fenced_by: _Optional[_Union[_fence_pb2.FencedBy, str]] = ..., fence_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., revision: _Optional[str] = ..., servers_lacking: _Optional[_Iterable[str]] = ...) -> None: ...

class BundleFile(_message.Message):
    __slots__ = ("path", "content")
    PATH_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    path: str
    content: bytes
    def __init__(self, path: _Optional[str] = ..., content: _Optional[bytes] = ...) -> None: ...

class CheckBundleRequest(_message.Message):
    __slots__ = ("files",)
    FILES_FIELD_NUMBER: _ClassVar[int]
    files: _containers.RepeatedCompositeFieldContainer[BundleFile]
    def __init__(self, files: _Optional[_Iterable[_Union[BundleFile, _Mapping]]] = ...) -> None: ...

class Problem(_message.Message):
    __slots__ = ("file", "line", "message", "severity", "code", "column", "help", "width")
    FILE_FIELD_NUMBER: _ClassVar[int]
    LINE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    SEVERITY_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    COLUMN_FIELD_NUMBER: _ClassVar[int]
    HELP_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    file: str
    line: int
    message: str
    severity: Severity
    code: str
    column: int
    help: str
    width: int
    def __init__(self, file: _Optional[str] = ..., line: _Optional[int] = ..., message: _Optional[str] = ..., severity: _Optional[_Union[Severity, str]] = ..., code: _Optional[str] = ..., column: _Optional[int] = ..., help: _Optional[str] = ..., width: _Optional[int] = ...) -> None: ...

class CheckBundleResponse(_message.Message):
    __slots__ = ("problems", "version", "warnings")
    PROBLEMS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    problems: _containers.RepeatedCompositeFieldContainer[Problem]
    version: str
    warnings: _containers.RepeatedCompositeFieldContainer[Problem]
    def __init__(self, problems: _Optional[_Iterable[_Union[Problem, _Mapping]]] = ..., version: _Optional[str] = ..., warnings: _Optional[_Iterable[_Union[Problem, _Mapping]]] = ...) -> None: ...

class EntityUid(_message.Message):
    __slots__ = ("type", "id")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    type: str
    id: str
    def __init__(self, type: _Optional[str] = ..., id: _Optional[str] = ...) -> None: ...

class TemplateLink(_message.Message):
    __slots__ = ("template_id", "new_id", "principal", "resource")
    TEMPLATE_ID_FIELD_NUMBER: _ClassVar[int]
    NEW_ID_FIELD_NUMBER: _ClassVar[int]
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    template_id: str
    new_id: str
    principal: EntityUid
    resource: EntityUid
    def __init__(self, template_id: _Optional[str] = ..., new_id: _Optional[str] = ..., principal: _Optional[_Union[EntityUid, _Mapping]] = ..., resource: _Optional[_Union[EntityUid, _Mapping]] = ...) -> None: ...

class EvaluateRequest(_message.Message):
    __slots__ = ("policies", "running_bundle", "schema", "schema_json", "entities_json", "template_links", "validate", "requests_json", "skip_request_validation")
    POLICIES_FIELD_NUMBER: _ClassVar[int]
    RUNNING_BUNDLE_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_JSON_FIELD_NUMBER: _ClassVar[int]
    ENTITIES_JSON_FIELD_NUMBER: _ClassVar[int]
    TEMPLATE_LINKS_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_JSON_FIELD_NUMBER: _ClassVar[int]
    SKIP_REQUEST_VALIDATION_FIELD_NUMBER: _ClassVar[int]
    policies: str
    running_bundle: bool
    schema: str
    schema_json: str
    entities_json: str
    template_links: _containers.RepeatedCompositeFieldContainer[TemplateLink]
    validate: bool
    requests_json: _containers.RepeatedScalarFieldContainer[str]
    skip_request_validation: bool
    def __init__(self, policies: _Optional[str] = ..., running_bundle: _Optional[bool] = ..., schema: _Optional[str] = ..., schema_json: _Optional[str] = ..., entities_json: _Optional[str] = ..., template_links: _Optional[_Iterable[_Union[TemplateLink, _Mapping]]] = ..., validate: _Optional[bool] = ..., requests_json: _Optional[_Iterable[str]] = ..., skip_request_validation: _Optional[bool] = ...) -> None: ...

class Evaluation(_message.Message):
    __slots__ = ("decision", "reasons", "erroring_policies", "errors")
    DECISION_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    ERRORING_POLICIES_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    decision: EngineDecision
    reasons: _containers.RepeatedScalarFieldContainer[str]
    erroring_policies: _containers.RepeatedScalarFieldContainer[str]
    errors: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, decision: _Optional[_Union[EngineDecision, str]] = ..., reasons: _Optional[_Iterable[str]] = ..., erroring_policies: _Optional[_Iterable[str]] = ..., errors: _Optional[_Iterable[str]] = ...) -> None: ...

class EvaluateResponse(_message.Message):
    __slots__ = ("evaluations", "valid", "validation_errors")
    EVALUATIONS_FIELD_NUMBER: _ClassVar[int]
    VALID_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_ERRORS_FIELD_NUMBER: _ClassVar[int]
    evaluations: _containers.RepeatedCompositeFieldContainer[Evaluation]
    valid: bool
    validation_errors: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, evaluations: _Optional[_Iterable[_Union[Evaluation, _Mapping]]] = ..., valid: _Optional[bool] = ..., validation_errors: _Optional[_Iterable[str]] = ...) -> None: ...
