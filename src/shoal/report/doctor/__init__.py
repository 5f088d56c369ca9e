"""The doctor: what is wrong with a run, by what its directory tells, and what to try."""
