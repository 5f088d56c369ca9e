"""Engines: servers and libraries of others that draw answers with the weights that a run gives them."""

from pathlib import Path

PACKAGE = Path(__file__).parent
