"""The door for Envoy, which asks it about each HTTP request by external authorization."""
