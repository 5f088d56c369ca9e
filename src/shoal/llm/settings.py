"""Settings of language models that are a run's, not an algorithm's."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Literal

from shoal.llm.scorers.named import scorer_name, scorer_names
from shoal.types import ConfigError, check_ranges

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Language:
    """How a language model samples, how its answers are judged, how its gradients are computed."""

    slots: int = 64
    """Answers that are drawn at a time; more use matrix products better and take more memory for keys and values."""
    after_publish: Literal["keep", "refill"] = "keep"
    """What answers under way do when weights change: keep the keys and values of older weights, or read all anew."""
    exact: bool = False
    """Whether the log-probabilities that the sampler records are the learner's bit for bit, on CPUs of one kind; needs
    after_publish="refill". Sampling and learning take about twice the time."""
    micro_tokens: int = 16_384
    """Tokens whose gradient is computed at a time; fewer take less memory. Changes rounding alone."""
    prompt_workers: int = 0
    """Processes that make prompts before they are asked, for tasks that take long to come to one; 0: the training
    process makes each when it is asked."""
    prompts_ahead: int = 64
    """Prompts that they make ahead of the one that was asked last."""
    scorers: tuple[str, ...] = ()
    """Who judges answers in the task's place: `package.module:function` of a prompt and an answer, or `task`. Of
    several the sum is learned from, each times its weight, as in `my_scorers:short=0.5`. Python takes the functions
    themselves, and pairs with weights."""
    scorer_workers: int = 0
    """Processes that judge answers; 0: the training process does."""
    scorer_timeout_s: float = 30.0
    """Seconds that judging one answer may take, where processes judge."""
    scorer_retries: int = 2
    """How often an answer is judged again after a failure."""
    on_scorer_failure: Literal["raise", "zero", "drop"] = "raise"
    """Where judging an answer goes on failing: end the run, give it 0, or leave the answer out."""
    held_out_scorer: str = ""
    """Another scorer, that nothing is learned from: `package.module:function` of a prompt and an answer. The guard acts
    where it falls while rewards rise, and the best state is the best by it."""
    held_out_answers: int = 0
    """Answers of each group that it judges, the first ones; 0: all. More are surer and take its time."""
    log_answers: bool = True
    """Whether the run directory keeps some of the newest answers (`shoal answers RUN`), at every line of metrics."""
    lora_rank: int = 0
    """Rank of the small matrices that are trained beside the model's own, which stay (LoRA); 0: all weights are
    trained."""
    lora_alpha: float = 16.0
    """What those matrices add counts lora_alpha / lora_rank times; more moves the model faster."""
    lora_layers: Literal["all", "attention"] = "all"
    """Which layers have them: all products of a layer, or those of its attention; fewer take less memory."""
    checkpoint_activations: bool = False
    """Compute each layer a second time for the gradient, in place of keeping what it computed: less memory, a third
    more time, the same bits."""
    shard: bool = False
    """Whether a model's parameters, gradients and moments lie in parts on all learners (FSDP2), so that each of them
    needs less memory; the first one also holds the weights once as a whole."""
    routing_replay: bool = False
    """Whether a mixture of experts learns with the experts that chose each token when it was drawn (R3), where rounding
    or newer weights would choose others; what they count is computed anew."""
    chat: Literal["auto", "on", "off"] = "auto"
    """Whether plain questions are asked in a chat, by the model's template; auto: where it has one."""
    system: str = ""
    """Instruction before the question, in a chat; empty: what the template itself says."""
    reply_workers: int = 0
    """Processes that reply in tasks of several turns, and run their tools; 0: the training process does."""
    reply_timeout_s: float = 60.0
    """Seconds that one reply may take, where processes reply."""
    reply_retries: int = 1
    """How often a reply is asked for again after a failure."""
    on_reply_failure: Literal["end", "raise"] = "end"
    """Where a reply goes on failing: end the conversation, which is scored as it is, or the run."""
    opponent: str = "self"
    """Who plays a game's other players. self: the model plays all, and learns from all. Else it learns as one player,
    another one in each group, against: first, version:-10 (its weights of ten to nineteen versions ago), average:0.99
    (their exponential average), smollm2 or a folder (another model of the same tokens), task (the game's own),
    package.module:function, or http://HOST:PORT/v1#MODEL."""
    eval_opponent: str = "auto"
    """Against whom it is evaluated: self, or an opponent that is no model of the run; auto: the opponent of training
    where that is none, else the game's own where it has one, else itself."""
    engine: Literal["local", "vllm", "sglang", "openai"] = "local"
    """Who draws answers: shoal's own sampler, or a server that takes the run's weights while it decodes."""
    engine_url: str = ""
    """Of the server: http://127.0.0.1:8000; empty: the run starts vLLM itself, and ends it."""
    engine_in_process: bool = False
    """Whether vLLM, installed beside shoal, draws in the sampler's own process, as shoal's sampler does; else it is a
    server."""
    engine_python: str = ""
    """The interpreter of an environment with vLLM, where the run starts it; empty: the run's own."""
    engine_options: str = ""
    """Further options of vLLM's server, where the run starts it, as in a shell: "--max-num-seqs 256"."""
    engine_folder: str = ""
    """Where weights are put for the server, which must see it under the same name; empty: in this machine's memory."""
    engine_timeout_s: float = 120.0
    """Seconds that the server may be away, or say nothing, while answers are awaited; then the run ends."""
    engine_tolerance: float = 0.1
    """Nats by which the server's log-probabilities may be off on average after it took weights; then the run ends."""

    @classmethod
    def with_names(cls, given: Mapping[str, object]) -> Mapping[str, object]:
        """Settings with the names of scorers that are given as functions; ConfigError for one without a name."""
        found = dict(given)
        if "scorers" in found:
            found["scorers"] = scorer_names("language.scorers", found["scorers"])
        if "held_out_scorer" in found:
            held_out = found["held_out_scorer"]
            found["held_out_scorer"] = scorer_name("language.held_out_scorer", held_out)
        return found

    def __post_init__(self) -> None:
        """Refuses what cannot work."""
        _name_functions(self)
        check_ranges(self, slots=(1, 65_536), micro_tokens=(1, inf))
        check_ranges(self, scorer_workers=(0, 1024), scorer_retries=(0, 100))
        check_ranges(self, lora_rank=(0, 4096), held_out_answers=(0, 2**15))
        check_ranges(self, prompt_workers=(0, 256), prompts_ahead=(1, 2**20))
        if self.exact and self.after_publish != "refill":
            raise ConfigError(
                "exact=true needs after_publish=refill: keys and values of older weights give other log-probabilities"
            )
        if self.exact and self.checkpoint_activations:
            raise ConfigError(
                "checkpoint_activations has no effect with exact=true; set a smaller micro_tokens"
            )
        if self.exact and self.shard:
            raise ConfigError(
                "shard=true does not go with exact=true, whose products are not those of whole layers; leave one out"
            )
        if self.routing_replay:
            self._check_replay()
        if not 0 < self.lora_alpha < inf:
            raise ConfigError(f"lora_alpha must be above 0, got {self.lora_alpha}")
        if self.chat == "off" and self.system:
            raise ConfigError(
                f"system={self.system!r} is said in a chat, and chat is off; set chat to auto or on"
            )
        check_ranges(self, reply_workers=(0, 256), reply_retries=(0, 100))
        if not self.opponent or not self.eval_opponent:
            raise ConfigError(
                "language.opponent and language.eval_opponent name somebody: self, task, ..."
            )
        for name in (
            "scorer_timeout_s",
            "reply_timeout_s",
            "engine_timeout_s",
            "engine_tolerance",
        ):
            number: float = getattr(self, name)
            if not 0 < number < inf:
                raise ConfigError(f"{name} must be above 0, got {number}")
        self._check_engine()

    def _check_replay(self) -> None:
        """Refuses the replay of a routing that nobody tells."""
        if self.exact:
            raise ConfigError(
                "routing_replay=true does not go with exact=true, where sampler and learner choose the same experts; "
                "leave one out"
            )
        if self.engine != "local":
            raise ConfigError(
                f"routing_replay=true needs shoal's own sampler, and engine={self.engine} tells no routing; leave one "
                "out"
            )

    def _check_engine(self) -> None:
        """Refuses an engine that could not draw what is learned from."""
        if self.engine == "local":
            if self.engine_url:
                raise ConfigError(
                    f"engine_url={self.engine_url!r} is for a server, and engine=local draws here; set engine to vllm "
                    "or sglang"
                )
            return
        if self.engine == "openai":
            raise ConfigError(
                "engine=openai: such a server takes no weights, so its answers would not be those of the model that "
                "is trained; take engine=vllm or sglang. As a judge or a teacher it serves: see the pages on scorers "
                "and engines"
            )
        if self.engine == "sglang" and not self.engine_url:
            raise ConfigError(
                "engine=sglang needs engine_url, such as http://127.0.0.1:30000: a run starts vLLM itself, SGLang not"
            )
        if self.engine_url and (self.engine_python or self.engine_options):
            raise ConfigError(
                "engine_python and engine_options are for a server that the run starts; leave engine_url out"
            )
        if self.engine_in_process:
            self._check_in_process()
        if self.exact:
            raise ConfigError(
                "exact=true: only shoal's own sampler gives the learner's bits; set engine=local"
            )

    def _check_in_process(self) -> None:
        if self.engine != "vllm":
            raise ConfigError(
                f"engine_in_process=true is for vLLM, and engine={self.engine}; leave it out"
            )
        for name in ("engine_url", "engine_python", "engine_folder"):
            if getattr(self, name):
                raise ConfigError(
                    f"{name} is for a server, and with engine_in_process=true there is none; leave one of them out"
                )


def _name_functions(given: Language) -> None:
    """Puts names in the place of functions, in settings that were made as an object."""
    own = {"scorers": given.scorers, "held_out_scorer": given.held_out_scorer}
    for name, value in given.with_names(own).items():
        object.__setattr__(given, name, value)
