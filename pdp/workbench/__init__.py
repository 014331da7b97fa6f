"""The policy author's workbench: tests of policies, and the tools that use them."""
