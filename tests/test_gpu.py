"""Training on a CUDA device: the same stream and algorithms, with page-locked slabs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

import shoal

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("algo", ["ppo", "a2c"])
@pytest.mark.parametrize("recurrent", ["none", "lstm"])
def test_trains_on_cuda_and_repeats(algo: str, recurrent: str, tmp_path: Path) -> None:
    """Two runs with one seed end with the same weights, on the device, from a few updates."""
    weights: list[torch.Tensor] = []
    for name in ("one", "two"):
        result = shoal.train(
            "CartPole-v1",
            algo=algo,
            device="cuda",
            seed=5,
            num_envs=8,
            num_steps=16,
            total_timesteps=8 * 16 * 5,
            network={"recurrent": recurrent, "normalize_obs": True},
            panel="none",
            run_dir=str(tmp_path),
            name=name,
        )
        flat = torch.cat([p.detach().reshape(-1) for p in result.policy.parameters()])
        assert flat.device.type == "cuda"
        assert bool(flat.isfinite().all())
        weights.append(flat.cpu())
    assert torch.equal(weights[0], weights[1])
    loaded = shoal.load(tmp_path / "CartPole-v1" / algo / "one")
    assert loaded.act([0.0, 0.0, 0.0, 0.0]) in (0, 1)
