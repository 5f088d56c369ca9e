#!/bin/sh
# TRL's GRPOTrainer samples and scores answers with the model's dropout on.
#
# The model is in training mode while it generates, while the old log-probabilities are computed and while the loss is.
# GPT-2's configuration has dropout 0.1, and `disable_dropout` is false by default. So answers come from another policy
# than the one that is learned and used later: with top_k=1, which leaves nothing to chance, eight answers to one prompt
# differ. And with several updates on a batch the ratio to the old policy compares two draws of dropout: at a learning
# rate of 0, where it is 1 by definition, a share of the tokens is clipped in every update. With one update on a batch
# the old log-probabilities are those of the loss itself, the ratio is 1, and nothing shows. No warning is given.
# With disable_dropout=True, or a model without dropout (the Llama family's default), all of it is as it should be.
#
# Run by hand: sh findings/trl_dropout_while_sampling.sh. It fails where the behavior has changed.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install -q --disable-pip-version-check 'torch==2.13.0' 'numpy==2.4.6' 2>/dev/null
venv/bin/python -m pip install -q --disable-pip-version-check 'trl==1.16.0' 'transformers==5.24.0' 'accelerate==1.15.0' \
  'datasets==5.2.0' 2>/dev/null
cat > dropout.py <<'PY'
"""A small GPT-2 with random weights, trained at a learning rate of 0 on additions, with and without dropout."""

from importlib.metadata import version

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast
from trl import GRPOConfig, GRPOTrainer

names = ["<end>", *"0123456789+="]
backend = Tokenizer(models.WordLevel({name: place for place, name in enumerate(names)}, unk_token="<end>"))
backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>", pad_token="<end>")
prompts = Dataset.from_list([{"prompt": f"{left}+{right}="} for left in range(4) for right in range(8)])


def train(**settings):
    """Answers to the first prompt, and the share of clipped tokens in each of four updates."""
    answers = []

    def reward(prompts, completions, **_):
        answers.extend(text for prompt, text in zip(prompts, completions) if prompt == prompts[0])
        return [float(len(set(text))) for text in completions]

    torch.manual_seed(0)
    config = GPT2Config(vocab_size=len(names), n_embd=32, n_layer=2, n_head=2, n_positions=64, initializer_range=0.1,
                        bos_token_id=0, eos_token_id=0)
    shared = {"output_dir": "out", "use_cpu": True, "bf16": False, "learning_rate": 0.0, "max_steps": 4,
              "per_device_train_batch_size": 32, "num_generations": 8, "max_completion_length": 6, "logging_steps": 1,
              "shuffle_dataset": False, "report_to": "none", "save_strategy": "no", "disable_tqdm": True}
    trainer = GRPOTrainer(model=GPT2LMHeadModel(config), args=GRPOConfig(**shared, **settings), reward_funcs=reward,
                          train_dataset=prompts, processing_class=tokenizer)
    trainer.train()
    clipped = [line["clip_ratio/region_mean"] for line in trainer.state.log_history if "clip_ratio/region_mean" in line]
    return sorted(set(answers[:8])), clipped


certain, _ = train(top_k=1)
_, clipped = train(num_iterations=2)
certain_without, _ = train(top_k=1, disable_dropout=True)
_, clipped_without = train(num_iterations=2, disable_dropout=True)
print("trl", version("trl"), "transformers", version("transformers"), "torch", version("torch"))
print("eight answers to one prompt at top_k=1, different ones among them:", certain)
print("clipped at learning rate 0, by update:", [round(share, 3) for share in clipped])
print("with disable_dropout=True:", certain_without, clipped_without)
if len(certain) < 2 or min(clipped) == 0 or len(certain_without) != 1 or any(clipped_without):
    raise SystemExit("the behavior has changed")
PY
CUDA_VISIBLE_DEVICES='' venv/bin/python -W ignore dropout.py > said.txt 2> error.txt || { cat error.txt said.txt; exit 1; }
grep -v '^{' said.txt
echo "as described"
