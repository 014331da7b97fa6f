"""The MCP proxy: stands before one MCP server, and asks the PDP before every tool call."""
