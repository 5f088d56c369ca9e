"""Tasks: what a language model is asked, and what its answers earn."""
