"""The tools that policies are about: what servers say of them, what authors add, and the types of arguments."""
