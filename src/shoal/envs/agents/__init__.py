"""Agents: environments of several agents, each agent a row."""
