"""Environments behind a network: servers of rows over gRPC, and the backend `remote` that steps them."""

from pathlib import Path

PROTO = Path(__file__).with_name("environments.proto")
"""The protocol, for clients in other languages."""
