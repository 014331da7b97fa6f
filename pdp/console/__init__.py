"""The console: the web application in which people approve, watch and revoke, each with their own authority."""
