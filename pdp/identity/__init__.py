"""The caller's identity: tokens, certificates, key sets, and the file of callers."""
