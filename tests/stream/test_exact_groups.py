"""Exact log-probabilities in the stream: what a sampler recorded, here or in a process, is what its learner says."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch.optim import SGD

from shoal.learn.learner import Learner
from shoal.llm.lora import Lora, adapted, add_lora
from shoal.llm.sampler.local import LocalSampler, threads
from shoal.llm.sampler.protocol import Sampling
from shoal.llm.scorers.pool import ScorerPool
from shoal.llm.settings import Language
from shoal.stream.groups.groups import Groups
from shoal.stream.groups.process import ProcessSampler
from shoal.types import ConfigError
from tests.llm.toy import Successor, toy_model
from tests.stream.test_groups import Drawn


@pytest.mark.parametrize("apart", [False, True], ids=["here", "process"])
@pytest.mark.parametrize("with_lora", [False, True], ids=["whole", "lora"])
def test_recorded_log_probabilities_are_those_of_each_version(apart: Any, with_lora: Any) -> None:
    cfg, model = Drawn(max_completion_length=9, sampling=Sampling(top_p=0.95)), toy_model()
    model.exact = True
    if with_lora:
        add_lora(model, Lora(rank=2), name="")
    learner = Learner(model, SGD, lr=0.0)
    drawing = cfg.sampling.drawing(cfg.max_completion_length)
    if apart:
        sampler = ProcessSampler(model, drawing, slots=4, seed=1, refill=True)
    else:
        sampler = LocalSampler(model, drawing, slots=4, seed=1, reload="refill", exact=True)
    task = Successor()
    scorers = ScorerPool(lambda: task.score, workers=0)
    stream = Groups(task, sampler, scorers, learner, cfg, max_staleness=2)
    versions: dict[int, Any] = {}
    seen: set[int] = set()
    for _ in range(4):
        versions[stream.version] = deepcopy(model)
        batch = next(stream)
        for version in set(batch.version[batch.mask].tolist()):
            of = batch.mask & (batch.version == version)
            with torch.no_grad(), threads(1):
                logprob = versions[version](batch).logprob
            assert torch.equal(batch.logprob[of], logprob[of])
            seen.add(version)
        with torch.no_grad():
            changed = [layer.lora_b for _, layer in adapted(model)] or list(model.parameters())
            for number, parameter in enumerate(changed):
                parameter.add_(torch.sin(torch.arange(parameter.numel()) + number).view_as(parameter), alpha=0.01)
        stream.publish()
    assert len(seen) > 2
    stream.close()


def test_settings_that_do_not_go_together() -> None:
    with pytest.raises(ConfigError, match="exact=true needs after_publish=refill"):
        Language(exact=True)
    with pytest.raises(ConfigError, match="checkpoint_activations has no effect"):
        Language(exact=True, after_publish="refill", checkpoint_activations=True)
