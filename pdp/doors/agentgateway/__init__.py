"""The door for agentgateway, by its contract for external policy servers (ExtMcp)."""
