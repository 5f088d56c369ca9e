"""The guard of a run: it looks at every update, and where learning breaks it skips, slows, goes back or stops."""
