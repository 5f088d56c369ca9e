"""The process of a sampler: it draws tokens, step by step, and sends each as soon as it is drawn."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import torch

from shoal.envs.workers.failures import failure_of
from shoal.envs.workers.pipe import pack
from shoal.envs.workers.worker import Pipe
from shoal.learn.weights import pack as packed_weights
from shoal.llm.model import LanguageModel
from shoal.llm.sampler.local import LocalSampler
from shoal.memory.arena import Arena
from shoal.stream.groups.messages import WORD, Beginning, Loaded, Op
from shoal.types import RAISED

if TYPE_CHECKING:
    from shoal.llm.engines.in_process import VllmSampler
    from shoal.memory.arena import Packed


def main(given: dict[str, Any]) -> None:
    """Its whole life, started by `supervisor.main` with its file descriptors."""
    pipe = Pipe(given["pipe"])
    said: Beginning = pipe.receive()
    torch.set_num_threads(said.num_threads)
    try:
        serve(said, pipe, Arena(given["block"], said.sizes))
    except RAISED as error:  # whatever it is, the learner raises it
        pipe.send(pack((0, False, failure_of(error, 0, WORD))))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def serve(said: Beginning, pipe: Pipe, arena: Arena) -> None:
    """Does what it is asked between two steps, until it is to close."""
    model = LanguageModel(said.architecture, said.tokenizer, said.temperature)
    flat = packed_weights(model.to(said.device))
    sampler: LocalSampler | VllmSampler | None = None
    standing = False
    while True:
        while standing or sampler is None or not sampler.pending or pipe.poll():
            op, value = pipe.receive()
            if op == Op.CLOSE:
                return
            if op in (Op.PAUSE, Op.GO_ON):
                standing = op == Op.PAUSE
            elif op == Op.LOAD:
                version, weights = value
                _copy(arena, weights, flat)
                if sampler is None:
                    sampler = _made(said, model)
                sampler.load(version, model)
                pipe.send(pack((0, True, Loaded(version))))
            elif sampler is not None and op == Op.SUBMIT:
                sampler.submit(value)
            elif sampler is not None:
                sampler.restore(value)
        sampler.poll(max_steps=1)
        if sampler.progress is not None:
            pipe.send(pack((0, True, sampler.progress)))


def _made(said: Beginning, model: LanguageModel) -> LocalSampler | VllmSampler:
    if said.inside is not None:
        return said.inside.sampler(
            model, said.drawing, slots=said.slots, refill=said.refill
        )
    return LocalSampler(
        model,
        said.drawing,
        slots=said.slots,
        seed=said.seed,
        num_threads=said.num_threads,
        reload="refill" if said.refill else "keep",
        exact=said.exact,
    )


def _copy(arena: Arena, weights: Packed, flat: torch.Tensor) -> None:
    flat.copy_(torch.from_numpy(arena.read(weights).copy()))
