"""Stages: work that runs beside the loop, in processes of its own, and of which nothing is lost."""
