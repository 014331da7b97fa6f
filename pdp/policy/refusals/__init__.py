"""Explain to authors what the engine refuses: in our words, at the place in the text, with what to do."""
