"""SmolLM2 trained with LoRA on a task of reasoning-gym: `shoal fetch smollm2` comes first."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import shoal
from shoal.experiment.talking import Talk, model_of
from shoal.llm.sampler.protocol import Drawing
from shoal.llm.smollm import smollm2
from shoal.types import ConfigError

PROGRAM = """
import json, resource, sys
import shoal

found = shoal.train(
    "reasoning-gym:chain_sum",
    algo="grpo",
    model="smollm2",
    env_kwargs={"max_terms": 2, "max_digits": 1, "extract": "last_number"},
    language={"lora_rank": 8, "system": "Give the number.", "checkpoint_activations": True, "micro_tokens": 128},
    num_prompts=2,
    num_generations=4,
    max_completion_length=4,
    total_timesteps=2 * 8,
    beta=0.01,
    final_episodes=0,
    stop_at=float("inf"),
    num_threads=1,
    panel="none",
    run_dir=sys.argv[1],
)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"path": str(found.path), "peak_mb": peak}))
"""
BASE_MB = 538
"""Of the weights in float32."""
REST_MB = 900
"""Of Python, torch, and what is computed."""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_smollm2_with_lora(tmp_path: Path) -> None:
    """Two updates: no model in memory that is not needed, small checkpoints, a merged model, and an answer."""
    try:
        smollm2()
    except ConfigError:
        pytest.skip("shoal fetch smollm2 was not run")
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(tmp_path)], capture_output=True, text=True, check=True)
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["peak_mb"] < REST_MB + 3 * BASE_MB  # the learner's, the sampler's, and in the end the merged one
    path = Path(said["path"])
    assert sum(file.stat().st_size for file in (path / "checkpoints").iterdir()) < 100e6
    assert (path / "model" / "model.safetensors").stat().st_size > 500e6
    assert (path / "model" / "adapter" / "adapter_model.safetensors").stat().st_size < 12e6
    asked = Talk(model_of(str(path), "runs"), Drawing(max_tokens=4, temperature=0)).answer("2 + 2 =")
    assert "".join(asked)
    again = shoal.resume(path, total_timesteps=3 * 8, panel="none")
    assert again.steps >= 3 * 8
