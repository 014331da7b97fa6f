"""What the proxy does with each method of MCP, of both eras: a closed table, in which the rest is refused."""

from __future__ import annotations

# Requests of the client that pass unasked: they hold the conversation together, and list what there is.
PASSED = frozenset(
    {
        "initialize",
        "logging/setLevel",
        "ping",
        "prompts/list",
        "resources/list",
        "resources/templates/list",
        "server/discover",
        "subscriptions/listen",
        "tools/list",
    }
)
# Requests that bring content. The PDP is asked about each as about a tool of this name, with these parameters.
ASKED = {
    "completion/complete": ("ref", "argument", "context"),
    "prompts/get": ("name", "arguments"),
    "resources/read": ("uri",),
}
CALL, LIST, PING = "tools/call", "tools/list", "ping"
# What a request that is asked about can have besides. Any other member could change what it means: a task, or to some
# readers `Name` beside `name`.
INPUT_RESPONSES, REQUEST_STATE = "inputResponses", "requestState"
BESIDES = frozenset({"_meta", INPUT_RESPONSES, REQUEST_STATE})
# What must not be in its `_meta`: FastMCP runs by it another version of a tool than the one that it lists.
CHOOSING = frozenset({"fastmcp"})
# In their answers the server states its capabilities.
INITIALIZE = "initialize"
GREETINGS = frozenset({INITIALIZE, "server/discover"})
LISTEN = "subscriptions/listen"

# Notifications of the client.
SAID = frozenset(
    {
        "notifications/cancelled",
        "notifications/initialized",
        "notifications/progress",
        "notifications/roots/list_changed",
    }
)
CANCELLED, INITIALIZED = "notifications/cancelled", "notifications/initialized"

# Notifications of the server.
TOLD = frozenset(
    {
        "notifications/cancelled",
        "notifications/elicitation/complete",
        "notifications/message",
        "notifications/progress",
        "notifications/prompts/list_changed",
        "notifications/resources/list_changed",
        "notifications/resources/updated",
        "notifications/subscriptions/acknowledged",
        "notifications/tools/list_changed",
    }
)
TOOLS_CHANGED = "notifications/tools/list_changed"
LOGGED, PROGRESS = "notifications/message", "notifications/progress"
ACKNOWLEDGED = "notifications/subscriptions/acknowledged"

# Requests of the server, which ask the client's model, person or disk.
ROOTS = frozenset({"roots/list"})
SERVER_ASKS = ROOTS | {"elicitation/create", "sampling/createMessage"}

# What an operator can let pass besides, by name.
PASSABLE = SERVER_ASKS | {
    "resources/subscribe",
    "resources/unsubscribe",
}

PROTOCOL_VERSION = "io.modelcontextprotocol/protocolVersion"
CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"
SUBSCRIPTION_ID = "io.modelcontextprotocol/subscriptionId"
# What a request of the era without a handshake must state about its client.
STATED = (
    PROTOCOL_VERSION,
    CAPABILITIES,
    "io.modelcontextprotocol/clientInfo",
)
