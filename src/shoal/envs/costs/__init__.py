"""Costs: what a step does that it should not, apart from its reward."""
