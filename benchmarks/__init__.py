"""Measured claims: each is a figure beside a peer or a limit in the same run."""
