"""Environments behind a network: servers of rows over gRPC, and the backend `remote` that steps them."""
