"""Access tokens of providers of OAuth 2.0, for connections whose secret is that of a client."""
