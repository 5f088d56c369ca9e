"""Groups in flight: prompts that were admitted, their answers as they are finished, and what these have earned."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import nan
from typing import TYPE_CHECKING, Any, NamedTuple

from shoal.llm.sampler.protocol import Drawn

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from shoal.llm.tasks.task import Prompt

PARTS = ("number", "token", "logprob", "version", "truncated", "kept", "learned")
"""What a checkpoint holds of an answer, or of its turns so far."""
ROUTED = ("routing", "prefix")
"""And of one that a mixture of experts has drawn."""


class Asked(NamedTuple):
    """A prompt of a task, in tokens."""

    prompt: Prompt
    token: tuple[int, ...]
    """What the model reads; of a game, what player 0 is told before anybody moves."""
    others: tuple[tuple[int, ...], ...] = ()
    """What the further players of a game are told."""


@dataclass(slots=True)
class Group:
    """One prompt and its answers; of a game, one start and what its players said in several games from there.

    An answer's number is that of its game times the number of players, plus that of its player.
    """

    key: int
    """Which admission it was, counted from 0."""
    prompt: Prompt
    token: tuple[int, ...]
    """The prompt's tokens."""
    since: int
    """Batches whose weights were published when it was admitted."""
    wanted: int
    """Answers that were asked for."""
    drawn: dict[int, Drawn] = field(default_factory=dict)
    """Finished answers by their number."""
    text: dict[int, str] = field(default_factory=dict)
    """What of them is scored, where that is not the text of all their tokens."""
    reward: dict[int, float] = field(default_factory=dict)
    """What they have earned; NaN where that will never be known."""
    parts: dict[int, Mapping[str, float]] = field(default_factory=dict)
    """What these rewards are made of, where the scorer says so."""
    others: tuple[tuple[int, ...], ...] = ()
    """The tokens that further players of a game are told."""
    learners: tuple[int, ...] = (0,)
    """The players that learn."""

    @property
    def num_players(self) -> int:
        """Of the game; 1 where the task is none."""
        return 1 + len(self.others)

    def told(self, number: int) -> tuple[int, ...]:
        """The tokens before the answer of this number."""
        player = number % self.num_players
        return self.others[player - 1] if player else self.token

    def of_player(self, player: int) -> list[tuple[int, float]]:
        """The numbers of a player's answers that can be learned from, in their order, and what they earned."""
        mine = [n for n in sorted(self.drawn) if n % self.num_players == player]
        known = [(n, self.reward.get(n, nan)) for n in mine]
        return [(number, reward) for number, reward in known if reward == reward]

    @property
    def num_episodes(self) -> int:
        """Answers, or games, of which a reward is known."""
        return len({n // self.num_players for n, x in self.reward.items() if x == x})

    @property
    def has_pair(self) -> bool:
        """Whether two answers of one player have a reward, so that they can be compared."""
        return any(len(self.of_player(player)) > 1 for player in self.learners)

    @property
    def has_signal(self) -> bool:
        """Whether two answers of one player have earned unlike rewards."""
        return any(len({x for _, x in self.of_player(p)}) > 1 for p in self.learners)

    @property
    def complete(self) -> bool:
        """Whether every answer is finished and scored."""
        return len(self.reward) == self.wanted

    @property
    def scored(self) -> list[tuple[Drawn, float]]:
        """The answers whose reward is known, in the order of their numbers."""
        pairs = sorted((n, x) for n, x in self.reward.items() if n in self.drawn)
        return [(self.drawn[number], x) for number, x in pairs if x == x]

    def state(self) -> dict[str, Any]:
        """The group without its prompt, which the task gives again."""
        return {
            "key": self.key,
            "index": self.prompt.index,
            "since": self.since,
            "wanted": self.wanted,
            "learners": list(self.learners),
            "drawn": [parts_of(one) for one in self.drawn.values()],
            "text": [[number, text] for number, text in self.text.items()],
            "scored": sorted(self.reward),
            "reward": [self.reward[number] for number in sorted(self.reward)],
            "parts": [[number, dict(self.parts[number])] for number in self.parts],
        }

    @classmethod
    def of_state(cls, state: Mapping[str, Any], asked: Asked) -> Group:
        """The group as it was, with its prompt."""
        key, prompt, token = int(state["key"]), asked.prompt, asked.token
        group = cls(key, prompt, token, int(state["since"]), int(state["wanted"]))
        group.others = asked.others
        group.learners = tuple(int(player) for player in state.get("learners", [0]))
        for one in state["drawn"]:
            group.drawn[int(one["number"])] = drawn_of(key, one)
        group.text = {int(number): text for number, text in state["text"]}
        pairs = zip(state["scored"], state["reward"], strict=True)
        group.reward = {int(number): float(reward) for number, reward in pairs}
        group.parts = {int(number): one for number, one in state.get("parts", [])}
        return group


def parts_of(drawn: Drawn) -> dict[str, Any]:
    """An answer as a checkpoint holds it, in a group that has its key."""
    routed = (name for name in ROUTED if getattr(drawn, name) is not None)
    return {name: getattr(drawn, name) for name in (*PARTS, *routed)}


def drawn_of(key: int, state: Mapping[str, Any]) -> Drawn:
    """What `parts_of` was given."""
    return Drawn(
        key,
        int(state["number"]),
        state["token"],
        state["logprob"],
        state["version"],
        bool(state["truncated"]),
        state["kept"],
        state["learned"],
        state.get("routing"),
        state.get("prefix"),
    )


class Flight:
    """All groups that were admitted and are not learned from yet, and how many more may be.

    Of all that were admitted, those that were given back apart, no more than (max_staleness + published + 1) *
    num_prompts: then every group can be learned from at most `max_staleness` versions after its admission, as a batch
    takes first those that may not wait any longer.
    """

    def __init__(self, num_prompts: int, max_staleness: int) -> None:
        """Nothing in flight."""
        self.num_prompts, self.max_staleness = num_prompts, max_staleness
        self.groups: dict[int, Group] = {}
        self.admitted = 0
        """Groups so far; also the next one's key."""
        self.given_back = 0
        """Those that gave their place to another."""

    def room(self, published: int) -> int:
        """Groups that may be admitted when the weights of so many batches are published."""
        most = (self.max_staleness + published + 1) * self.num_prompts
        return max(0, most - (self.admitted - self.given_back))

    def admit(
        self,
        asked: Asked,
        count: int,
        published: int,
        learners: tuple[int, ...] = (0,),
    ) -> Group:
        """Another group, of so many answers, or games in which some players learn."""
        wanted = count * len(learners)
        group = Group(self.admitted, asked.prompt, asked.token, published, wanted)
        group.others, group.learners = asked.others, learners
        self.groups[group.key] = group
        self.admitted += 1
        return group

    def give_back(self, group: Group) -> None:
        """Takes a group out, in whose place another may be admitted."""
        del self.groups[group.key]
        self.given_back += 1

    def take(self, batches: int) -> list[Group] | None:
        """The groups of the batch after so many, in the order of their admission; None where one is still awaited."""
        late = batches - self.max_staleness
        groups = self.groups.values()
        if not all(group.complete for group in groups if group.since <= late):
            return None
        ready = [group for group in groups if group.complete]
        if len(ready) < self.num_prompts:
            return None
        ready.sort(key=lambda group: (group.since > late, group.key))
        chosen = ready[: self.num_prompts]
        for group in chosen:
            del self.groups[group.key]
        return sorted(chosen, key=lambda group: group.key)

    def state(self) -> dict[str, Any]:
        """All that `restore` needs but the prompts."""
        return {
            "admitted": self.admitted,
            "given_back": self.given_back,
            "groups": [group.state() for group in self.groups.values()],
        }

    def restore(self, state: Mapping[str, Any], asked: Callable[[int], Asked]) -> None:
        """Continues; `asked` gives a prompt by its number, and its tokens."""
        self.admitted, self.given_back = state["admitted"], state["given_back"]
        self.groups = {}
        for saved in state["groups"]:
            group = Group.of_state(saved, asked(int(saved["index"])))
            self.groups[group.key] = group
