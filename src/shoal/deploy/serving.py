"""Serving a policy where gRPC is installed, and a sentence where it is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.types import ConfigError

if TYPE_CHECKING:
    from torch import nn

    from shoal.deploy.description import Provenance
    from shoal.deploy.policy_server import PolicyServer
    from shoal.remote.settings import Guard
    from shoal.types import Spec


def serve_policy(
    policy: nn.Module,
    spec: Spec,
    *,
    listen: str,
    guard: Guard | None,
    most_rows: int,
    provenance: Provenance,
    native: bool,
) -> PolicyServer:
    """A server as `PolicyServer` describes it; ConfigError where gRPC is missing."""
    try:
        from shoal.deploy.policy_server import PolicyServer
    except ImportError as error:
        raise ConfigError(
            f"a server needs gRPC: pip install 'shoal-rl[remote]' ({error})"
        ) from error
    return PolicyServer(
        policy,
        spec,
        listen=listen,
        guard=guard,
        most_rows=most_rows,
        provenance=provenance,
        native=native,
    )
