"""Serving a policy where gRPC is installed, and a sentence where it is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.types import ConfigError
from shoal.types.arguments import object_of, string_of, whole_of

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
        from shoal.remote.settings import Guard
    except ImportError as error:
        raise ConfigError(
            f"a server needs gRPC: pip install 'shoal-rl[remote]' ({error})"
        ) from error
    if guard is not None:
        guard = object_of("guard", guard, Guard, "Guard(token_file=...)")
    return PolicyServer(
        policy,
        spec,
        listen=string_of("listen", listen),
        guard=guard,
        most_rows=whole_of("most_rows", most_rows, 1),
        provenance=provenance,
        native=native,
    )
