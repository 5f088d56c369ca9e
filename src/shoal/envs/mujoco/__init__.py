"""Gymnasium's MuJoCo environments, stepped by native threads."""
