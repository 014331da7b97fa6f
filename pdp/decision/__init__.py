"""The decision about one call: the gate, what is remembered, what the policies are asked, and why it came out so."""
