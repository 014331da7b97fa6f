"""The server that the public conformance package of MCP wants, on the SDK for Python. The names are the package's."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Annotated, Any

import mcp.types as t
from mcp import MCPError
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.prompts.base import Message, UserMessage
from pydantic import BaseModel, Field

from tests.doors.mcp.webworld import KeptEvents

# Any image and sound will do.
_PICTURE = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
_SOUND = base64.b64encode(b"RIFF").decode()
_DESCRIBED = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {
        "address": {
            "$anchor": "addressDef",
            "type": "object",
            "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
        }
    },
    "properties": {
        "name": {"type": "string"},
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": {"type": "string"},
        "email": {"type": "string"},
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}
Asked = dict[str, t.ElicitRequest | t.CreateMessageRequest | t.ListRootsRequest]


class Answer(BaseModel):
    """What a person is asked for."""

    username: str
    email: str


class Defaults(BaseModel):
    """One member of each plain type, each with a default."""

    name: str = "John Doe"
    age: int = 30
    score: float = 95.5
    status: Annotated[str, Field(json_schema_extra={"enum": ["active", "inactive", "pending"]})] = "active"
    verified: bool = True


def _choices(*names: str) -> list[dict[str, str]]:
    return [{"const": name, "title": name.title()} for name in names]


class Choices(BaseModel):
    """Each way to let a person choose."""

    untitledSingle: Annotated[str, Field(json_schema_extra={"enum": ["option1", "option2"]})]  # noqa: N815 - theirs
    titledSingle: Annotated[str, Field(json_schema_extra={"oneOf": _choices("one", "two")})]  # noqa: N815 - theirs
    legacyEnum: Annotated[  # noqa: N815 - theirs
        str, Field(json_schema_extra={"enum": ["opt1", "opt2"], "enumNames": ["One", "Two"]})
    ]
    untitledMulti: Annotated[  # noqa: N815 - theirs
        list[str], Field(json_schema_extra={"items": {"type": "string", "enum": ["option1", "option2"]}})
    ]
    titledMulti: Annotated[  # noqa: N815 - theirs
        list[str], Field(json_schema_extra={"items": {"anyOf": _choices("one", "two")}})
    ]


def server() -> MCPServer:
    """Return the server."""
    made = MCPServer("conformance", version="1")
    _plain(made)
    _acting(made)
    _telling(made)
    _asking(made)
    _waiting(made)
    _resources(made)
    _prompts(made)
    for method, params in (
        ("logging/setLevel", t.SetLevelRequestParams),
        ("resources/subscribe", t.SubscribeRequestParams),
        ("resources/unsubscribe", t.UnsubscribeRequestParams),
    ):
        made._lowlevel_server.add_request_handler(method, params, _done)
    return made


async def _done(_: Any, __: Any) -> t.EmptyResult:
    return t.EmptyResult()


def app(made: MCPServer) -> Any:
    """Return the server as streamable HTTP, whose streams can be asked for again."""
    return made.streamable_http_app(event_store=KeptEvents(), retry_interval=100)


def _plain(made: MCPServer) -> None:
    picture = t.ImageContent(type="image", data=_PICTURE, mime_type="image/png")
    content: dict[str, list[Any]] = {
        "test_simple_text": [t.TextContent(type="text", text="This is a simple text response for testing.")],
        "test_image_content": [picture],
        "test_audio_content": [t.AudioContent(type="audio", data=_SOUND, mime_type="audio/wav")],
        "test_embedded_resource": [_embedded("test://embedded-resource", "text/plain")],
        "test_multiple_content_types": [
            t.TextContent(type="text", text="Multiple content types test:"),
            picture,
            _embedded("test://mixed-content-resource", "application/json"),
        ],
    }
    for name, blocks in content.items():
        made.add_tool(_returning(blocks), name=name, description="Return content.", structured_output=False)


def _acting(made: MCPServer) -> None:
    @made.tool()
    def test_error_handling() -> str:
        """Fail."""
        raise RuntimeError("This tool intentionally returns an error for testing")

    @made.tool()
    def test_custom_headers(region: Annotated[str, Field(json_schema_extra={"x-mcp-header": "Region"})]) -> str:
        """Return what a header repeats."""
        return region

    @made.tool(name="json_schema_2020_12_tool")
    def described(name: str = "") -> str:
        """Have a schema of many keywords."""
        return name

    made._tool_manager._tools["json_schema_2020_12_tool"].parameters = _DESCRIBED


def _telling(made: MCPServer) -> None:
    @made.tool()
    async def test_tool_with_logging(ctx: Context[Any, Any]) -> str:
        """Log three messages."""
        for said in ("Tool execution started", "Tool processing data", "Tool execution completed"):
            await ctx.info(said)
        return "done"

    @made.tool()
    async def test_tool_with_progress(ctx: Context[Any, Any]) -> str:
        """Report progress."""
        for step in (0, 50, 100):
            await ctx.report_progress(step, 100)
        return "done"

    @made.tool()
    async def test_reconnection(ctx: Context[Any, Any]) -> str:
        """Close the stream before the answer."""
        await ctx.close_sse_stream()
        return "Reconnection test completed"

    @made.tool()
    async def test_trigger_tool_change(ctx: Context[Any, Any]) -> str:
        """Say that the tools have changed."""
        await ctx.notify_tools_changed()
        return "done"

    @made.tool()
    async def test_trigger_prompt_change(ctx: Context[Any, Any]) -> str:
        """Say that the prompts have changed."""
        await ctx.notify_prompts_changed()
        return "done"


def _returning(blocks: list[Any]) -> Callable[[], Any]:
    def content() -> list[Any]:
        return blocks

    return content


def _embedded(uri: str, kind: str) -> t.EmbeddedResource:
    inside = t.TextResourceContents(uri=uri, mime_type=kind, text='"This is an embedded resource content."')
    return t.EmbeddedResource(type="resource", resource=inside)


def _asking(made: MCPServer) -> None:
    """Add what asks the client in the middle of a call, as in the era with a handshake."""

    @made.tool()
    async def test_sampling(prompt: str, ctx: Context[Any, Any]) -> str:
        """Ask the client's model."""
        said = t.SamplingMessage(role="user", content=t.TextContent(type="text", text=prompt))
        result = await ctx.session.create_message(messages=[said], max_tokens=100)
        return f"LLM response: {result.content}"

    async def elicited(ctx: Context[Any, Any], message: str, form: type[BaseModel]) -> str:
        result = await ctx.elicit(message=message, schema=form)
        return f"Elicitation completed: action={result.action}"

    @made.tool()
    async def test_elicitation(message: str, ctx: Context[Any, Any]) -> str:
        """Ask the client's person."""
        return await elicited(ctx, message, Answer)

    @made.tool()
    async def test_elicitation_sep1034_defaults(ctx: Context[Any, Any]) -> str:
        """Ask with defaults."""
        return await elicited(ctx, "Please review", Defaults)

    @made.tool()
    async def test_elicitation_sep1330_enums(ctx: Context[Any, Any]) -> str:
        """Ask for choices."""
        return await elicited(ctx, "Please choose", Choices)


def _form(message: str, member: str, kind: str = "string") -> t.ElicitRequest:
    schema = {"type": "object", "properties": {member: {"type": kind}}, "required": [member]}
    return t.ElicitRequest(params=t.ElicitRequestFormParams(message=message, requested_schema=schema))


def _sample(text: str) -> t.CreateMessageRequest:
    said = t.SamplingMessage(role="user", content=t.TextContent(type="text", text=text))
    return t.CreateMessageRequest(params=t.CreateMessageRequestParams(messages=[said], max_tokens=100))


# By the name of a tool after `test_input_required_result_`: what it wants to know, in one round after the other.
_ROUNDS: dict[str, tuple[Asked, ...]] = {
    "elicitation": ({"user_name": _form("What is your name?", "name")},),
    "sampling": ({"capital_question": _sample("What is the capital of France?")},),
    "list_roots": ({"client_roots": t.ListRootsRequest()},),
    "request_state": ({"confirm": _form("Please confirm", "ok", "boolean")},),
    "tampered_state": ({"confirm": _form("Please confirm", "ok", "boolean")},),
    "multiple_inputs": (
        {
            "user_name": _form("What is your name?", "name"),
            "greeting": _sample("Generate a greeting"),
            "client_roots": t.ListRootsRequest(),
        },
    ),
    "multi_round": (
        {"step1": _form("Step 1: What is your name?", "name")},
        {"step2": _form("Step 2: What is your favorite color?", "color")},
    ),
}
_STATELESS = frozenset({"elicitation", "sampling", "list_roots"})


def _waiting(made: MCPServer) -> None:
    """Add what asks the client by its result, as in the era without a handshake. The SDK seals the state."""
    for name in _ROUNDS:
        made.add_tool(_in_rounds(name), name=f"test_input_required_result_{name}", description="Ask first.")

    @made.tool()
    def test_input_required_result_capabilities(ctx: Context[Any, Any]) -> str | t.InputRequiredResult:
        """Ask only what the client can answer."""
        able = ctx.client_capabilities
        if able is not None and able.sampling is not None:
            return t.InputRequiredResult(input_requests={"question": _sample("Which?")})
        return "nothing can be asked"

    @made.tool()
    def test_missing_capability(ctx: Context[Any, Any]) -> str:
        """Need a client that has a model."""
        able = ctx.client_capabilities
        if able is None or able.sampling is None:
            raise MCPError(
                code=t.MISSING_REQUIRED_CLIENT_CAPABILITY,
                message="The client has no model",
                data={"requiredCapabilities": {"sampling": {}}},
            )
        return "done"


def _in_rounds(name: str) -> Callable[..., Any]:
    """Return a tool that asks in rounds. Where there are several, the state is the number of those that are over."""
    rounds = _ROUNDS[name]

    def ask(ctx: Context[Any, Any]) -> str | t.InputRequiredResult:
        answers = ctx.input_responses or {}
        over = 0 if name in _STATELESS else int(ctx.request_state or 0)
        if rounds[over].keys() <= answers.keys():
            over += 1
        if over == len(rounds):
            return f"state-ok {' '.join(map(str, answers.values()))}"
        return t.InputRequiredResult(
            input_requests=rounds[over], request_state=None if name in _STATELESS else str(over)
        )

    return ask


def _resources(made: MCPServer) -> None:
    @made.resource("test://static-text", mime_type="text/plain")
    def text() -> str:
        """Be text."""
        return "This is the content of the static text resource."

    @made.resource("test://static-binary", mime_type="image/png")
    def picture() -> bytes:
        """Be bytes."""
        return base64.b64decode(_PICTURE)

    @made.resource("test://watched-resource")
    def watched() -> str:
        """Be watched."""
        return "watched"

    @made.resource("test://template/{number}/data", mime_type="application/json")
    def template(number: str) -> str:
        """Be made from a template."""
        return json.dumps({"id": number, "templateTest": True, "data": f"Data for ID: {number}"})


def _prompts(made: MCPServer) -> None:
    @made.prompt()
    def test_simple_prompt() -> str:
        """Say a sentence."""
        return "This is a simple prompt for testing."

    @made.prompt()
    def test_prompt_with_arguments(arg1: str, arg2: str) -> str:
        """Say its arguments."""
        return f"Prompt with arguments: arg1='{arg1}', arg2='{arg2}'"

    @made.prompt()
    def test_prompt_with_embedded_resource(resourceUri: str) -> list[Message]:  # noqa: N803 - theirs
        """Embed a resource."""
        return [UserMessage(_embedded(resourceUri, "text/plain")), UserMessage("Please process it.")]

    @made.prompt()
    def test_prompt_with_image() -> list[Message]:
        """Hold an image."""
        return [UserMessage(t.ImageContent(type="image", data=_PICTURE, mime_type="image/png")), UserMessage("Look.")]

    @made.prompt()
    def test_input_required_result_prompt(ctx: Context[Any, Any]) -> str | t.InputRequiredResult:
        """Ask first."""
        if "user_context" in (ctx.input_responses or {}):
            return "Use the context."
        return t.InputRequiredResult(
            input_requests={"user_context": _form("What context should the prompt use?", "context")}
        )

    @made.completion()  # type: ignore[no-untyped-call]
    async def complete(*_: Any) -> t.Completion:
        """Complete anything."""
        return t.Completion(values=["paris", "park"], total=2, has_more=False)
