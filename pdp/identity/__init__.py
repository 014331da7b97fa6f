"""Who is calling: tokens, certificates, key sets, and the file of callers."""
