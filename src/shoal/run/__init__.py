"""A run: its directory, its log, its checkpoints, its panel, and the loop around an algorithm."""
