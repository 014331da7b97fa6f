"""The decision about one call: the gate, the cache, the questions to the policies, and the explanation."""
