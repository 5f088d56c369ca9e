"""C99: a policy's program written as source, its weights as data."""
