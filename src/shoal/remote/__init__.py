"""Environments behind a network: servers of rows over gRPC, and the backend `remote` that steps them."""

import os
from pathlib import Path

# Children that are forked beside servers and clients write checkpoints or step rows, and never speak gRPC: what gRPC
# does for children that do would stop and open its descriptors anew in the parent, at every fork.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

PROTO = Path(__file__).with_name("environments.proto")
"""The protocol, for clients in other languages."""
POLICY_PROTO = PROTO.with_name("policies.proto")
"""That of served policies."""
