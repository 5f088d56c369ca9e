"""vLLM on a CPU as a sampler, in one process on one thread: it draws once for each line on its input.

Run in its own environment by `python -m benchmarks.sampler --vllm`. It answers each line by one of JSON: tokens, and
seconds of processor time of the whole process.
"""

from __future__ import annotations

import os

# Before the import: the engine in this process, so that its time is this process's.
os.environ |= {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_KVCACHE_SPACE": "2",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}

import argparse
import json
import sys
import time
from pathlib import Path

import torch
import vllm


def main() -> None:
    """Loads, says so, and draws when it is told to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--prompts", type=Path, required=True, help="JSON: a list of lists of tokens")
    parser.add_argument("--tokens", type=int, required=True)
    parser.add_argument("--group", type=int, default=1)
    parser.add_argument("--top-p", type=float, default=1.0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    prompts = json.loads(given.prompts.read_text())
    sequences = len(prompts) * given.group
    engine = vllm.LLM(
        given.model,
        dtype="float32",
        max_num_seqs=sequences,
        max_num_batched_tokens=max(2048, sum(map(len, prompts))),
        max_model_len=max(map(len, prompts)) + given.tokens + 1,
        skip_tokenizer_init=True,
        disable_log_stats=True,
    )
    sampling = vllm.SamplingParams(
        n=given.group,
        temperature=1.0,
        top_p=given.top_p,
        max_tokens=given.tokens,
        ignore_eos=True,
        detokenize=False,
        logprobs=0,
    )
    wanted = [{"prompt_token_ids": prompt} for prompt in prompts]
    out = os.fdopen(os.dup(1), "w")
    print(json.dumps({"vllm": vllm.__version__}), file=out, flush=True)
    for _ in sys.stdin:
        start = time.process_time()
        done = engine.generate(wanted, sampling, use_tqdm=False)
        seconds = time.process_time() - start
        tokens = sum(len(one.token_ids) for answers in done for one in answers.outputs)
        print(json.dumps({"tokens": tokens, "seconds": seconds}), file=out, flush=True)
        engine.reset_prefix_cache()  # every round reads the prompts, as the others do


if __name__ == "__main__":
    main()
