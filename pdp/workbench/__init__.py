"""The policy author's workbench: tests of policies, and what stands on them."""
