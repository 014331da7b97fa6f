"""Find secrets that lie in configuration of agents and their tools, without showing them."""
