"""Experiments: what is trained, with which settings, in which session; and the trained policy afterwards."""
