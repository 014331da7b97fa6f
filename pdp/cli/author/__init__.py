"""Commands of policy authors."""
