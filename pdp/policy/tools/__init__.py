"""The tools that policies decide about: their definitions, the authors' overlays, and the types of arguments."""
