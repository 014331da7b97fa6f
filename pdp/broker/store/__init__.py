"""What the broker keeps: connections, sealed secrets, which keys there are, and the highest version of each secret."""
