"""The competition, each peer in a virtual environment of its own."""
