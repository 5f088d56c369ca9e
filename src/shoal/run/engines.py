"""Engines of others as a run has them draw: a server, vLLM that it starts itself, or vLLM in the sampler's process."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from shoal.llm.engines.inside import VllmInside
from shoal.llm.engines.launching import LaunchedVllm
from shoal.llm.engines.registry import make_engine
from shoal.llm.engines.weights_folder import WeightsFolder
from shoal.stream.groups.engine import EngineSampler
from shoal.stream.groups.process import ProcessSampler
from shoal.stream.groups.pushing import Terms
from shoal.stream.schedules import Async

if TYPE_CHECKING:
    from shoal.llm.model import LanguageModel
    from shoal.llm.sampler.protocol import Drawing, Sampler
    from shoal.run.run import Run


def engine_sampler(run: Run, policy: LanguageModel, drawing: Drawing) -> Sampler:
    """Answers that an engine draws, as `language.engine` and its settings say.

    Raises:
        ConfigError: it cannot give what is needed, or is not installed.
        EnvError: it does not answer.
    """
    language = run.settings.language
    if language.engine_in_process:
        return _inside(run, policy, drawing)
    terms = Terms(
        refill=language.after_publish == "refill",
        tolerance=language.engine_tolerance,
        timeout_s=language.engine_timeout_s,
        folder=language.engine_folder,
    )
    server = None if language.engine_url else _launched(run, policy)
    engine = make_engine(
        language.engine,
        language.engine_url if server is None else server.url,
        timeout_s=language.engine_timeout_s,
    )
    sampler = EngineSampler(
        engine,
        policy,
        drawing,
        terms,
        tell=run.warn,
        revive=None if server is None else server.revive,
    )
    sampler.follow(run.meter.ending)
    return sampler


def _inside(run: Run, policy: LanguageModel, drawing: Drawing) -> Sampler:
    """VLLM in this process, or with schedule="async" in the sampler's own."""
    s = run.settings
    options = tuple(shlex.split(s.language.engine_options))
    inside = VllmInside(options, s.language.engine_tolerance)
    slots, refill = s.language.slots, s.language.after_publish == "refill"
    if not isinstance(s.timing, Async):
        return inside.sampler(policy, drawing, slots=slots, refill=refill)
    sampler = ProcessSampler(
        policy,
        drawing,
        slots=slots,
        seed=s.seed,
        refill=refill,
        tell=run.warn,
        inside=inside,
    )
    sampler.ending = run.meter.ending
    return sampler


def _launched(run: Run, policy: LanguageModel) -> LaunchedVllm:
    """VLLM's server with the run's model, whose weights it gets anew."""
    language = run.settings.language
    folder = WeightsFolder()
    run.held.callback(folder.close)
    server = LaunchedVllm(
        folder.write(policy),
        python=language.engine_python,
        options=shlex.split(language.engine_options),
    )
    run.held.callback(server.close)
    return server
