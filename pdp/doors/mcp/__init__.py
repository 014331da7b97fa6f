"""The MCP proxy: stands in front of one MCP server, and asks the PDP before every tool call."""
