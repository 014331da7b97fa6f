"""How a secret rests: sealed under a key of its own, and that key under a key of its tenant and compartment."""
