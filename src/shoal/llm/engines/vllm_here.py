"""vLLM's own names, for `VllmSampler`: an engine that this process steps. Imported where vLLM is installed alone."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

# Before the import of vLLM: the engine in this process.
os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")

from vllm import SamplingParams
from vllm.engine.arg_utils import EngineArgs
from vllm.sampling_params import RequestOutputKind
from vllm.utils.argparse_utils import FlexibleArgumentParser
from vllm.v1.engine.llm_engine import LLMEngine

from shoal.llm.engines.vllm_receiver import BACKEND

if TYPE_CHECKING:
    from collections.abc import Sequence


def engine(folder: str, slots: int, options: Sequence[str]) -> LLMEngine:
    """An engine for a model in a folder, which takes weights from files."""
    given = [
        "--model",
        folder,
        "--dtype",
        "float32",
        "--max-num-seqs",
        str(slots),
        "--logprobs-mode",
        "processed_logprobs",
        "--weight-transfer-config",
        f'{{"backend": "{BACKEND}"}}',
        "--skip-tokenizer-init",
        "--disable-log-stats",
        *options,
    ]
    parser = EngineArgs.add_cli_args(FlexibleArgumentParser())
    arguments = EngineArgs.from_cli_args(parser.parse_args(given))
    return LLMEngine.from_engine_args(arguments)


def sampling(**given: Any) -> SamplingParams:
    """How an answer is drawn; its tokens come as they are drawn."""
    kind = RequestOutputKind.DELTA
    return SamplingParams(detokenize=False, output_kind=kind, **given)
