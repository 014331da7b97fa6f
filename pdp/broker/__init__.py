"""The broker: a process of its own that uses downstream secrets, so that agents never hold them."""
