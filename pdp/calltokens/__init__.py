"""Call tokens: signed statements that exactly one call was allowed. Nothing here needs more than `cryptography`."""
