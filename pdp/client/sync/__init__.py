# Generated from pdp/client/aio/__init__.py by `make client`; never edited.

"""The client for threads."""
