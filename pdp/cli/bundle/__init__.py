"""`pdp bundle`: packed bundles, and the versions that a server keeps."""
