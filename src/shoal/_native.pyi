"""
shoal's native core: environments, equations, lowered policies, hand-offs between processes.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, overload

import numpy
from numpy.typing import NDArray
from typing_extensions import CapsuleType


def decode_attention(qkv: Annotated[NDArray, dict(device='cpu', writable=False)], norm: Annotated[NDArray, dict(device='cpu', writable=False)] | None, eps: float, turns: Annotated[NDArray, dict(device='cpu', writable=False)], position: Annotated[NDArray, dict(device='cpu', writable=False)], key: Annotated[NDArray, dict(device='cpu')], value: Annotated[NDArray, dict(device='cpu')], out: Annotated[NDArray, dict(device='cpu')], kernels: str = '') -> None:
    """
    One token of each answer: queries and keys are normalized (with `norm`) and turned, keys and values join the cache at `position`, and `out` is what each head sees; all float32.

    `qkv`: [n, heads + 2 kv_heads, size]; `norm`: [heads + kv_heads, size]; `turns`: [capacity, 2, size], cosines, and sines of alternating sign, of pairs side by side; `position`: int64 [n]; `key`, `value`: [slots, kv_heads, capacity, size], slots in the order of rows; `out`: [n, heads, size].
    """

def env_ids() -> list[str]:
    """
    Ids of the native environments, those that were added included, sorted.
    """

def add_environments(environments: CapsuleType) -> list[str]:
    """
    Adds the environments of an extension module, whose capsule this is; their ids. ValueError where it was built against another core.
    """

def env_info(id: str) -> dict:
    """
    What is known of a native environment: spaces, limits, parameters with their defaults.
    """

class Pool:
    """Rows of one native environment, stepped in place by a team of threads."""

    def __init__(self, id: str, num_rows: int, num_threads: int, params: Mapping[str, float], draws: Sequence[tuple[str, str, Sequence[float], float, float]] = [], *, frame_stack: int = 1, sticky_actions: float = 0.0, reward_scale: float = 1.0, reward_low: float = float('-inf'), reward_high: float = float('inf'), reward_sign: bool = False) -> None: ...

    @property
    def num_rows(self) -> int: ...

    @property
    def obs_size(self) -> int: ...

    @property
    def action_size(self) -> int: ...

    @property
    def discrete(self) -> bool: ...

    @property
    def num_agents(self) -> int: ...

    @property
    def num_threads(self) -> int: ...

    @property
    def layout(self) -> str:
        """
        What the bytes of a saved row mean, in words; rows saved under other words are not these.
        """

    def attach(self, obs: Annotated[NDArray, dict(device='cpu')], reward: Annotated[NDArray, dict(device='cpu')], terminated: Annotated[NDArray, dict(device='cpu')], truncated: Annotated[NDArray, dict(device='cpu')], final_obs: Annotated[NDArray, dict(device='cpu')], episode_return: Annotated[NDArray, dict(device='cpu')], episode_length: Annotated[NDArray, dict(device='cpu')], drawn: Annotated[NDArray, dict(device='cpu')]) -> None:
        """Keep these arrays and write every step to them."""

    def reset(self, seeds: Annotated[NDArray, dict(device='cpu', writable=False)]) -> None:
        """Seed and reset every row; writes obs."""

    def send(self, slot: int, first: int, count: int, actions: Annotated[NDArray, dict(device='cpu', writable=False)]) -> None:
        """
        Start stepping rows [first, first + count). ValueError naming the row for a bad action; nothing is stepped.
        """

    def recv(self, slot: int) -> None:
        """Wait until the slot's rows are stepped."""

    def state(self) -> NDArray[numpy.uint8]:
        """Every row's bytes: uint8 [num_rows, row_bytes]."""

    @property
    def frame(self) -> tuple[int, int]:
        """
        Height and width of a row's picture; (0, 0) where the environment draws none.
        """

    def render(self, row: int) -> NDArray[numpy.uint8]:
        """
        An RGB image of a row: uint8 [height, width, 3]. ValueError where the environment cannot be rendered.
        """

    def restart(self, seeds: Annotated[NDArray, dict(device='cpu', writable=False)], seeded: Annotated[NDArray, dict(device='cpu', writable=False)], going_on: Annotated[NDArray, dict(device='cpu', writable=False)]) -> None:
        """
        Begin a new episode in some rows: seeded, or going on with the row's own generator; writes their obs.
        """

    def restore(self, state: Annotated[NDArray, dict(device='cpu', writable=False)]) -> list[int]:
        """
        Put back what state() gave; returns the rows that could not be brought back: they have ended as truncated and begun anew. obs is written for those alone.
        """

def fork_writer(files: Sequence[tuple[bytes, Sequence[Annotated[NDArray, dict(device='cpu', writable=False)]]]]) -> int:
    """
    Fork a child that writes arrays of bytes to new files, for each (path, [arrays]), as they are now; its process id. It exits with 0 or with the errno of what failed. OSError where fork fails.
    """

def copy_within(given: object, out: NDArray, low: NDArray, high: NDArray) -> bool:
    """
    Copies `given` to `out` [rows, ...] where it is a contiguous array of its shape and dtype (int64 or float32) whose every row lies between low and high [...]; otherwise writes nothing and returns False.
    """

class Tally:
    """
    Adds up the steps of rows that are stepped at once.

    `returns`, `lengths` and `lives` [rows] are those of the episodes under way.
    """

    def __init__(self, out: object, clip_reward: bool) -> None:
        """
        `out`: the Outputs whose arrays are written; `clip_reward`: it is given the signs of the rewards.
        """

    @property
    def returns(self) -> NDArray[numpy.float64]: ...

    @property
    def lengths(self) -> NDArray[numpy.int64]: ...

    @property
    def lives(self) -> NDArray[numpy.int64]: ...

    def step(self, reward: object, terminated: object, truncated: object, only_reset: object | None, lives: object | None) -> int:
        """
        Takes a step of all rows, each argument an array [rows].

        Returns 1 if episodes ended, plus 2 if lives were lost where none did: both are ends in `out`, the second with the length 0. Returns -1, with nothing counted, where an array has another form or a reward is not finite.
        """

class Account:
    """
    Adds up the steps of rows that are stepped one by one.

    The arrays [rows, ...] of `out`, an Outputs, are written, `returns` and `lengths` [rows] count on.
    """

    def __init__(self, out: object, returns: object, lengths: object, limits: object) -> None:
        """`limits` [rows]: steps after which a row's episode is truncated."""

    def step(self, first: int, seen: list, rewards: list, largest_reward: float) -> int:
        """
        Takes a step of the rows from `first` on: what each saw, and its reward.

        Returns 1 if rows came to their limits, which are truncated, else 0; no row is terminated. Returns -1, with nothing counted, unless every observation is a contiguous array of the shape and dtype of its place, every reward a Python number of at most largest_reward either way, and all of them finite.
        """

def sticky_rows(seeds: Annotated[NDArray, dict(device='cpu', writable=False)], steps: Annotated[NDArray, dict(device='cpu', writable=False)], probability: float) -> NDArray[numpy.bool_]:
    """
    Which rows stick to their previous action: of the seed of each and its steps since.
    """

def philox_uniform(seed: int, stream: int, rows: Annotated[NDArray, dict(device='cpu', writable=False)], steps: Annotated[NDArray, dict(device='cpu', writable=False)], size: int) -> Annotated[NDArray[numpy.float32], dict(shape=(None, None))]:
    """
    Uniform float32 in [0, 1), [rows, size]: Philox4x32-10 of (seed, stream, row, row_step).
    """

def philox_normal(seed: int, stream: int, rows: Annotated[NDArray, dict(device='cpu', writable=False)], steps: Annotated[NDArray, dict(device='cpu', writable=False)], size: int) -> Annotated[NDArray[numpy.float32], dict(shape=(None, None))]:
    """
    Standard normal float32, [rows, size]: Philox4x32-10 of (seed, stream, row, row_step), by Box and Muller.
    """

def gae(reward: Annotated[NDArray, dict(device='cpu', writable=False)], value: Annotated[NDArray, dict(device='cpu', writable=False)], next_value: Annotated[NDArray, dict(device='cpu', writable=False)], terminated: Annotated[NDArray, dict(device='cpu', writable=False)], ended: Annotated[NDArray, dict(device='cpu', writable=False)], valid: Annotated[NDArray, dict(device='cpu', writable=False)], gamma: Annotated[NDArray, dict(device='cpu', writable=False)], gae_lambda: Annotated[NDArray, dict(device='cpu', writable=False)], advantage_out: Annotated[NDArray, dict(device='cpu')]) -> None:
    """
    Generalised advantage estimation (Schulman et al. 2016) over [M, T, B]; gamma, gae_lambda float64 [M].
    """

def n_step(reward: Annotated[NDArray, dict(device='cpu', writable=False)], next_value: Annotated[NDArray, dict(device='cpu', writable=False)], terminated: Annotated[NDArray, dict(device='cpu', writable=False)], ended: Annotated[NDArray, dict(device='cpu', writable=False)], valid: Annotated[NDArray, dict(device='cpu', writable=False)], gamma: Annotated[NDArray, dict(device='cpu', writable=False)], n: int, target_out: Annotated[NDArray, dict(device='cpu')]) -> None:
    """n-step returns within a rollout over [M, T, B]; gamma float64 [M]."""

def q_lambda(reward: Annotated[NDArray, dict(device='cpu', writable=False)], next_value: Annotated[NDArray, dict(device='cpu', writable=False)], terminated: Annotated[NDArray, dict(device='cpu', writable=False)], ended: Annotated[NDArray, dict(device='cpu', writable=False)], valid: Annotated[NDArray, dict(device='cpu', writable=False)], gamma: Annotated[NDArray, dict(device='cpu', writable=False)], q_lambda: Annotated[NDArray, dict(device='cpu', writable=False)], target_out: Annotated[NDArray, dict(device='cpu')]) -> None:
    """
    Q(lambda) returns (Peng and Williams 1996) over [M, T, B]; gamma, q_lambda float64 [M].
    """

def vtrace(reward: Annotated[NDArray, dict(device='cpu', writable=False)], value: Annotated[NDArray, dict(device='cpu', writable=False)], next_value: Annotated[NDArray, dict(device='cpu', writable=False)], terminated: Annotated[NDArray, dict(device='cpu', writable=False)], ended: Annotated[NDArray, dict(device='cpu', writable=False)], valid: Annotated[NDArray, dict(device='cpu', writable=False)], rho: Annotated[NDArray, dict(device='cpu', writable=False)], c: Annotated[NDArray, dict(device='cpu', writable=False)], gamma: Annotated[NDArray, dict(device='cpu', writable=False)], vtrace_lambda: Annotated[NDArray, dict(device='cpu', writable=False)], advantage_out: Annotated[NDArray, dict(device='cpu')], error_out: Annotated[NDArray, dict(device='cpu')]) -> None:
    """
    V-trace (Espeholt et al. 2018, eq. 1) over [M, T, B], error_out being target - value; gamma, vtrace_lambda float64 [M].
    """

def map_shared(fd: int, size: int) -> NDArray[numpy.uint8]:
    """
    The memory behind a descriptor as bytes that processes share; the descriptor may be closed then.
    """

class Signals:
    """The hand-off between a parent and its workers in shared memory."""

    def __init__(self, block: Annotated[NDArray, dict(device='cpu')], num_workers: int) -> None: ...

    @staticmethod
    def bytes(num_workers: int) -> int:
        """Bytes of the block."""

    def clear(self, worker: int) -> None:
        """Forget a worker's tasks before another process takes its place."""

    def post(self, op: int, workers: Sequence[int], firsts: Sequence[int], lasts: Sequence[int]) -> list[int]:
        """
        Hand each of the workers a task; returns their numbers. A worker has at most two under way.
        """

    def answered(self, worker: int) -> int:
        """The last task that the worker has answered."""

    def failed(self, worker: int, task: int) -> bool:
        """
        Whether this task, one of the last two, failed, or a second process came back from one.
        """

    def stray(self, worker: int) -> None:
        """
        In a process that a worker's environment forked: say that it came back from the worker's task.
        """

    def strayed(self, worker: int) -> bool:
        """
        Whether a second process came back from one of the worker's tasks, since clear.
        """

    def wait(self, workers: Sequence[int], tasks: Sequence[int], ends: Sequence[int], spin_s: float, timeout_s: float) -> int:
        """
        Wait for tasks[i] of workers[i], in groups that end before ends[g]: the first group that is answered whole; -1 when the time is over or a signal came.
        """

    def take(self, worker: int, done: int, spin_s: float, timeout_s: float) -> tuple[int, int, int]:
        """
        In a worker: the task after `done` as (op, first, last); op 0 when the time is over or a signal came.
        """

    def answer(self, worker: int, task: int, *, failed: bool) -> None:
        """In a worker: say that a task is done."""

class MujocoRows:
    """
    Rows of MuJoCo simulations: stepped, observed and paid as Gymnasium's classes are.
    """

    def __init__(self, step: int, after: int, user_error: int, num_actions: int, num_threads: int, *, frame_skip: int, dt: float, forward: float | None = None, alive: float | None = None, control: float | None = None, control_of_action: bool = True, contact: float | None = None, contact_forces: tuple[float, float] = (float('-inf'), float('inf')), contact_costs: tuple[float, float] = (float('-inf'), float('inf')), ends_unhealthy: bool = True) -> None:
        """
        Addresses of mj_step, of mj_rnePostConstraint (0: nothing reads what it computes) and of mju_user_error; the weights of what is paid, those that are there.
        """

    def add(self, model: int, data: int, ctrl: Annotated[NDArray[numpy.float64], dict(order='C', device='cpu')], place: Annotated[NDArray[numpy.float64], dict(order='C', device='cpu', writable=False)], masses: Annotated[NDArray[numpy.float64], dict(order='C', device='cpu', writable=False)] | None = None, contacts: Annotated[NDArray[numpy.float64], dict(order='C', device='cpu', writable=False)] | None = None, shown: Sequence[tuple[Annotated[NDArray[numpy.float64], dict(order='C', device='cpu', writable=False)], float, float]], healthy: Sequence[tuple[Annotated[NDArray[numpy.float64], dict(order='C', device='cpu', writable=False)], float, float, bool]]) -> None:
        """
        A simulation: its addresses and its own arrays, which stay its own. `place`: whose first number is the place along x, or (with masses) [bodies, 3]; `shown`: arrays and their bounds; `healthy`: arrays, the range in which they must lie, and whether without its ends.
        """

    def step(self, first: int, action: Annotated[NDArray, dict(device='cpu', writable=False)], obs: Annotated[NDArray, dict(device='cpu')], reward: Annotated[NDArray, dict(device='cpu')], terminated: Annotated[NDArray, dict(device='cpu')], largest: float, largest_reward: float) -> bool:
        """
        One step of the rows from `first` on, as many as there are actions [rows, A] (float32), into their places in obs [B, D], reward [B] (float64) and terminated [B]; whether no observation is larger than `largest` nor reward than `largest_reward`, and none NaN. RuntimeError with what MuJoCo says where it fails.
        """

def kernel_names() -> list[str]:
    """Names of the kernels that this machine can run, the fastest first."""

def fma_peak(repeats: int = 5) -> float:
    """
    Single-precision operations per second of one core: the median of `repeats` timings.
    """

def convert_pixels(pixels: Annotated[NDArray, dict(device='cpu', writable=False)], mean: Annotated[NDArray, dict(device='cpu', writable=False)] | None, inv_std: Annotated[NDArray, dict(device='cpu', writable=False)] | None, clip: float, channels_last: bool, out: Annotated[NDArray, dict(device='cpu')], kernels: str = '') -> None:
    """
    Writes uint8 images to `out`, float32 or uint16 (bfloat16's bits) [N, H, W, C]: clip((x - mean) * inv_std, -clip, clip), or x where mean and inv_std are None.

    `pixels`: [N, H, W, C] with `channels_last`, else [N, C, H, W]; `mean` and `inv_std`: float32 [H, W, C].
    """

class MlpPlan:
    """
    A policy of two MLP towers, or a Q-network of one, in native code that shares its owner's parameters.
    """

    def __init__(self, params: Annotated[NDArray, dict(device='cpu')], obs_size: int, hidden: Sequence[int], head: str, action_nvec: Sequence[int], activation: str, num_threads: int, act_block: int, grad_shards: int, kernels: str = '', *, shared: bool = False) -> None:
        """
        shared: it waits for the calls of others that share, and uses their threads and their memory for gradients.
        """

    @property
    def num_params(self) -> int: ...

    @property
    def num_threads(self) -> int: ...

    @property
    def act_block(self) -> int: ...

    def rows_per_block(self, num_agents: int, count: int) -> int:
        """Rows of a rollout of `count` rows that act together on one thread."""

    @property
    def grad_shards(self) -> int: ...

    @property
    def kernels(self) -> str: ...

    def set_normalizer(self, mean: Annotated[NDArray, dict(device='cpu', writable=False)], inv_std: Annotated[NDArray, dict(device='cpu', writable=False)], clip: float) -> None:
        """
        Observations become clip((x - mean) * inv_std, -clip, clip); the numbers are copied.
        """

    def set_action_bounds(self, low: Annotated[NDArray, dict(device='cpu', writable=False)], high: Annotated[NDArray, dict(device='cpu', writable=False)]) -> None:
        """
        What rollout clips a Gaussian's actions to before the environment sees them.
        """

    def forward(self, obs: Annotated[NDArray, dict(device='cpu', writable=False)], logits_out: Annotated[NDArray, dict(device='cpu')], value_out: Annotated[NDArray, dict(device='cpu')]) -> None:
        """Logits (or means) [N, A] and values [N] of observations [N, D]."""

    def act(self, obs: Annotated[NDArray, dict(device='cpu', writable=False)], seed: int, stream: int, rows: Annotated[NDArray, dict(device='cpu', writable=False)], steps: Annotated[NDArray, dict(device='cpu', writable=False)], greedy: bool, action_out: Annotated[NDArray, dict(device='cpu')], log_prob_out: Annotated[NDArray, dict(device='cpu')], value_out: Annotated[NDArray, dict(device='cpu')], *, mask: Annotated[NDArray, dict(device='cpu', writable=False)] | None = None, epsilon: Annotated[NDArray, dict(device='cpu', writable=False)] | None = None) -> None:
        """
        Actions drawn with the Philox noise of (seed, stream, row, step), or greedy. mask: uint8 or bool [N, A], all choices side by side, 0 where an option is not to be chosen. epsilon: float32 [N], how often a Q-network's rows explore.
        """

    def rollout(self, pool: Pool, current_obs: Annotated[NDArray, dict(device='cpu')], current_start: Annotated[NDArray, dict(device='cpu')], row_step: Annotated[NDArray, dict(device='cpu')], obs: Annotated[NDArray, dict(device='cpu')], start: Annotated[NDArray, dict(device='cpu')], action: Annotated[NDArray, dict(device='cpu')], log_prob: Annotated[NDArray, dict(device='cpu')], value: Annotated[NDArray, dict(device='cpu')], next_value: Annotated[NDArray, dict(device='cpu')], reward: Annotated[NDArray, dict(device='cpu')], terminated: Annotated[NDArray, dict(device='cpu')], truncated: Annotated[NDArray, dict(device='cpu')], final_index: Annotated[NDArray, dict(device='cpu')], final_obs: Annotated[NDArray, dict(device='cpu')], episode_return: Annotated[NDArray, dict(device='cpu')], episode_length: Annotated[NDArray, dict(device='cpu')], drawn: Annotated[NDArray, dict(device='cpu')], seed: int, stream: int, rows: Annotated[NDArray, dict(device='cpu', writable=False)], *, epsilon: Annotated[NDArray, dict(device='cpu', writable=False)] | None = None) -> float:
        """
        Acts in and steps all of the pool's rows for T steps and fills the slab. rows [B]: their numbers in the noise; epsilon [B] as in act. Returns the share of the time in which the rows stepped.
        """

    def loss_gradient(self, name: str, samples: Samples, index: Annotated[NDArray, dict(device='cpu', writable=False)], settings: dict[str, float], grad_out: Annotated[NDArray, dict(device='cpu')], stats_out: Annotated[NDArray, dict(device='cpu')]) -> None:
        """
        The gradient of a fused loss over samples[index], unclipped; stats_out as in loss_step.
        """

    def loss_step(self, name: str, samples: Samples, index: Annotated[NDArray, dict(device='cpu', writable=False)], settings: dict[str, float], optimizer: Optimizer, max_grad_norm: float, stats_out: Annotated[NDArray, dict(device='cpu')]) -> bool:
        """
        One step on a fused loss over samples[index], int32 [M]. stats_out, float64, gets the loss's statistics and then the gradient's norm. False where that is not finite: then nothing else has changed.
        """

    @overload
    def forward_train(self, obs: Annotated[NDArray, dict(device='cpu', writable=False)], index: Annotated[NDArray, dict(device='cpu', writable=False)] | None, logits_out: Annotated[NDArray, dict(device='cpu')], value_out: Annotated[NDArray, dict(device='cpu')]) -> None:
        """
        Logits (or means) [M, A] and values [M] of the rows that index [M] names (None: all); keeps what backward needs. Logits are not masked.
        """

    @overload
    def forward_train(self, samples: Samples, index: Annotated[NDArray, dict(device='cpu', writable=False)] | None, logits_out: Annotated[NDArray, dict(device='cpu')], value_out: Annotated[NDArray, dict(device='cpu')]) -> None: ...

    def backward(self, logits_grad: Annotated[NDArray, dict(device='cpu', writable=False)], value_grad: Annotated[NDArray, dict(device='cpu', writable=False)], grad_out: Annotated[NDArray, dict(device='cpu')], obs_grad_out: Annotated[NDArray, dict(device='cpu')] | None = None) -> None:
        """
        The parameters' gradient [P], from those of forward_train's logits [M, A] and values [M]. log_std is no output of the towers: its part is 0.
        """

def fused_losses() -> dict[str, tuple[list[str], list[str], list[str], bool]]:
    """
    The fused losses: name -> the columns that it reads, the settings that it takes, the statistics that it gives, whether it is one of a Q-network.
    """

class Samples:
    """
    A rollout's samples, checked once; its arrays are kept alive and not copied.
    """

    def __init__(self, obs: Annotated[NDArray, dict(device='cpu', writable=False)], action: Annotated[NDArray, dict(device='cpu', writable=False)], columns: dict[str, Annotated[NDArray, dict(device='cpu', writable=False)]], *, mask: Annotated[NDArray, dict(device='cpu', writable=False)] | None = None, error: Annotated[NDArray, dict(device='cpu')] | None = None) -> None:
        """
        obs: float32 [N, D]. action: int64 [N, K] choices, or float32 [N, K]. columns: float32 [N] by name, what a loss reads besides. mask: uint8 or bool [N, options], all choices side by side, 0 where one is forbidden. error: float32 [N], where a loss of a Q-network leaves each sample's error.
        """

    def __len__(self) -> int: ...

class Optimizer:
    """What steps on a gradient; see Adam and RMSProp."""

    @property
    def learning_rate(self) -> float: ...

    @learning_rate.setter
    def learning_rate(self, arg: float, /) -> None: ...

    @property
    def eps(self) -> float: ...

    @eps.setter
    def eps(self, arg: float, /) -> None: ...

    @property
    def step(self) -> int:
        """Steps made so far."""

    @step.setter
    def step(self, arg: int, /) -> None: ...

    def apply(self, params: Annotated[NDArray, dict(device='cpu')], grad: Annotated[NDArray, dict(device='cpu', writable=False)], max_grad_norm: float) -> float:
        """
        One step of float32 params [P] on grad [P], scaled down to max_grad_norm as torch's clip_grad_norm_ does. Returns the gradient's norm; where that is not finite, nothing has changed.
        """

class Adam(Optimizer):
    """
    torch.optim.Adam (no weight decay) on float32 moments [P] that stay the caller's memory.
    """

    def __init__(self, exp_avg: Annotated[NDArray, dict(device='cpu')], exp_avg_sq: Annotated[NDArray, dict(device='cpu')], *, learning_rate: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-08, step: int = 0, kernels: str = '') -> None: ...

    @property
    def betas(self) -> tuple[float, float]: ...

    @betas.setter
    def betas(self, arg: tuple[float, float], /) -> None: ...

class RMSProp(Optimizer):
    """
    torch.optim.RMSprop (no momentum, not centered) on float32 moments [P] that stay the caller's memory.
    """

    def __init__(self, square_avg: Annotated[NDArray, dict(device='cpu')], *, learning_rate: float, alpha: float = 0.99, eps: float = 1e-08, step: int = 0, kernels: str = '') -> None: ...

    @property
    def alpha(self) -> float: ...

    @alpha.setter
    def alpha(self, arg: float, /) -> None: ...

class TowerPlan:
    """
    One MLP tower in native code that shares its owner's parameters: a Q-network, a critic, an encoder.
    """

    def __init__(self, params: Annotated[NDArray, dict(device='cpu')], obs_size: int, hidden: Sequence[int], outputs: int, activation: str, num_threads: int, grad_shards: int, *, act_block: int = 64, kernels: str = '') -> None: ...

    @property
    def num_params(self) -> int: ...

    def forward(self, obs: Annotated[NDArray, dict(device='cpu', writable=False)], out: Annotated[NDArray, dict(device='cpu')]) -> None:
        """Outputs [N, O] of observations [N, D]."""

    def forward_train(self, obs: Annotated[NDArray, dict(device='cpu', writable=False)], index: Annotated[NDArray, dict(device='cpu', writable=False)] | None, out: Annotated[NDArray, dict(device='cpu')]) -> None:
        """
        Outputs [M, O] of the rows that index [M] names; keeps what backward needs.
        """

    def backward(self, out_grad: Annotated[NDArray, dict(device='cpu', writable=False)], grad_out: Annotated[NDArray, dict(device='cpu')] | None, obs_grad_out: Annotated[NDArray, dict(device='cpu')] | None = None) -> None:
        """
        The parameters' gradient [P], from that of forward_train's outputs [M, O], and the observations' [M, D]: each if it is given.
        """

class ActorCritic:
    """
    An actor's tower beside critics' towers, which are called with an observation and an action in [-1, 1] side by side.
    """

    def __init__(self, actor: object, critics: list, action_size: int) -> None: ...

    def soft_values(self, actor_obs: Annotated[NDArray, dict(device='cpu', writable=False)], critic_obs: Annotated[NDArray, dict(device='cpu', writable=False)], noise: Annotated[NDArray, dict(device='cpu', writable=False)], temperature: float, value_out: Annotated[NDArray, dict(device='cpu')]) -> None:
        """
        value [N] = min Q(s, a) - temperature * log pi(a | s), a of the noise [N, D].
        """

    def smoothed_values(self, actor_obs: Annotated[NDArray, dict(device='cpu', writable=False)], critic_obs: Annotated[NDArray, dict(device='cpu', writable=False)], noise: Annotated[NDArray, dict(device='cpu', writable=False)], deviation: float, clip: float, value_out: Annotated[NDArray, dict(device='cpu')]) -> None:
        """
        value [N] = min Q(s, a), a = clip(tanh(actor) + clip(deviation * noise, -clip, clip), -1, 1).
        """

    def critics_gradient(self, obs: Annotated[NDArray, dict(device='cpu', writable=False)], action: Annotated[NDArray, dict(device='cpu', writable=False)], squash: bool, target: Annotated[NDArray, dict(device='cpu', writable=False)], weight: Annotated[NDArray, dict(device='cpu', writable=False)], grad_out: Annotated[NDArray, dict(device='cpu')], error_out: Annotated[NDArray, dict(device='cpu')], stats_out: Annotated[NDArray, dict(device='cpu')]) -> None:
        """
        The gradient [P] of the mean of weight / 2 * sum (Q - target)^2; errors [N], a mean over critics; stats: the loss and the mean value. squash: actions [N, D] come before the tanh.
        """

    def soft_gradient(self, actor_obs: Annotated[NDArray, dict(device='cpu', writable=False)], critic_obs: Annotated[NDArray, dict(device='cpu', writable=False)], noise: Annotated[NDArray, dict(device='cpu', writable=False)], temperature: float, grad_out: Annotated[NDArray, dict(device='cpu')], stats_out: Annotated[NDArray, dict(device='cpu')]) -> None:
        """
        The actor's gradient [P] of the mean of temperature * log pi(a | s) - min Q(s, a); stats: the loss and the entropy.
        """

    def deterministic_gradient(self, actor_obs: Annotated[NDArray, dict(device='cpu', writable=False)], critic_obs: Annotated[NDArray, dict(device='cpu', writable=False)], grad_out: Annotated[NDArray, dict(device='cpu')], stats_out: Annotated[NDArray, dict(device='cpu')]) -> None:
        """
        The actor's gradient [P] of the mean of -Q_1(s, tanh(actor)); stats: the loss.
        """

class Sequences:
    """
    Samples [T * B] as the sequences of B rows, checked once; nothing is copied.
    """

    def __init__(self, samples: Samples, start: Annotated[NDArray, dict(device='cpu', writable=False)], h: Annotated[NDArray, dict(device='cpu', writable=False)], c: Annotated[NDArray, dict(device='cpu', writable=False)] | None = None, *, valid: Annotated[NDArray, dict(device='cpu', writable=False)] | None = None) -> None:
        """
        start: uint8 or bool [T, B], where the memory is zeroed before the step. h, and c of an LSTM: float32 [B, H], the memory before step 0. valid: uint8 or bool [T, B], the steps that a loss counts; None: all.
        """

    def __len__(self) -> int: ...

class RecurrentPlan:
    """
    A policy with a GRU or LSTM in native code that shares its owner's parameters: a body of Linear layers, the cell, two linear heads.
    """

    def __init__(self, params: Annotated[NDArray, dict(device='cpu')], obs_size: int, hidden: Sequence[int], cell: str, recurrent_size: int, head: str, action_nvec: Sequence[int], activation: str, num_threads: int, act_block: int, grad_shards: int, kernels: str = '') -> None: ...

    @property
    def num_params(self) -> int: ...

    @property
    def num_threads(self) -> int: ...

    @property
    def act_block(self) -> int: ...

    def rows_per_block(self, num_agents: int, count: int) -> int:
        """Rows of a rollout of `count` rows that act together on one thread."""

    @property
    def grad_shards(self) -> int: ...

    @property
    def kernels(self) -> str: ...

    def set_normalizer(self, mean: Annotated[NDArray, dict(device='cpu', writable=False)], inv_std: Annotated[NDArray, dict(device='cpu', writable=False)], clip: float) -> None:
        """
        Observations become clip((x - mean) * inv_std, -clip, clip); the numbers are copied.
        """

    def set_action_bounds(self, low: Annotated[NDArray, dict(device='cpu', writable=False)], high: Annotated[NDArray, dict(device='cpu', writable=False)]) -> None:
        """
        What rollout clips a Gaussian's actions to before the environment sees them.
        """

    def forward(self, obs: Annotated[NDArray, dict(device='cpu', writable=False)], start: Annotated[NDArray, dict(device='cpu', writable=False)], h: Annotated[NDArray, dict(device='cpu')], c: Annotated[NDArray, dict(device='cpu')] | None, logits_out: Annotated[NDArray, dict(device='cpu')], value_out: Annotated[NDArray, dict(device='cpu')]) -> None:
        """
        Logits (or means) [N, A] and values [N] of observations [N, D] that follow the memory h [N, H] (and c of an LSTM), zeroed where start [N] is true. The memory stays as it is.
        """

    def act(self, obs: Annotated[NDArray, dict(device='cpu', writable=False)], start: Annotated[NDArray, dict(device='cpu', writable=False)], h: Annotated[NDArray, dict(device='cpu')], c: Annotated[NDArray, dict(device='cpu')] | None, seed: int, stream: int, rows: Annotated[NDArray, dict(device='cpu', writable=False)], steps: Annotated[NDArray, dict(device='cpu', writable=False)], greedy: bool, action_out: Annotated[NDArray, dict(device='cpu')], log_prob_out: Annotated[NDArray, dict(device='cpu')], value_out: Annotated[NDArray, dict(device='cpu')], *, mask: Annotated[NDArray, dict(device='cpu', writable=False)] | None = None) -> None:
        """
        Actions drawn with the Philox noise of (seed, stream, row, step), or greedy; h and c advance in place. mask: uint8 or bool [N, A], all choices side by side, 0 where an option is not to be chosen.
        """

    def rollout(self, pool: Pool, current_obs: Annotated[NDArray, dict(device='cpu')], current_start: Annotated[NDArray, dict(device='cpu')], row_step: Annotated[NDArray, dict(device='cpu')], h: Annotated[NDArray, dict(device='cpu')], c: Annotated[NDArray, dict(device='cpu')] | None, obs: Annotated[NDArray, dict(device='cpu')], start: Annotated[NDArray, dict(device='cpu')], action: Annotated[NDArray, dict(device='cpu')], log_prob: Annotated[NDArray, dict(device='cpu')], value: Annotated[NDArray, dict(device='cpu')], next_value: Annotated[NDArray, dict(device='cpu')], reward: Annotated[NDArray, dict(device='cpu')], terminated: Annotated[NDArray, dict(device='cpu')], truncated: Annotated[NDArray, dict(device='cpu')], final_index: Annotated[NDArray, dict(device='cpu')], final_obs: Annotated[NDArray, dict(device='cpu')], episode_return: Annotated[NDArray, dict(device='cpu')], episode_length: Annotated[NDArray, dict(device='cpu')], drawn: Annotated[NDArray, dict(device='cpu')], seed: int, stream: int, rows: Annotated[NDArray, dict(device='cpu', writable=False)]) -> float:
        """
        Acts in and steps all of the pool's rows for T steps and fills the slab; h [B, H] and c advance in place. rows [B]: their numbers in the noise. Returns the share of the time in which the rows stepped.
        """

    def loss_gradient(self, name: str, sequences: Sequences, index: Annotated[NDArray, dict(device='cpu', writable=False)], settings: dict[str, float], grad_out: Annotated[NDArray, dict(device='cpu')], stats_out: Annotated[NDArray, dict(device='cpu')]) -> None:
        """
        The gradient of a fused loss over the rows that index names, unclipped; stats_out as in loss_step.
        """

    def loss_step(self, name: str, sequences: Sequences, index: Annotated[NDArray, dict(device='cpu', writable=False)], settings: dict[str, float], optimizer: Optimizer, max_grad_norm: float, stats_out: Annotated[NDArray, dict(device='cpu')]) -> bool:
        """
        One step on a fused loss over all steps of the rows that index, int32 [M], names. stats_out, float64, gets the loss's statistics and then the gradient's norm. False where that is not finite: then nothing else has changed.
        """

    def forward_train(self, sequences: Sequences, index: Annotated[NDArray, dict(device='cpu', writable=False)] | None, logits_out: Annotated[NDArray, dict(device='cpu')], value_out: Annotated[NDArray, dict(device='cpu')]) -> None:
        """
        Logits (or means) [T, M, A] and values [T, M] of the rows that index [M] names (None: all); keeps what backward needs. Logits are not masked.
        """

    def backward(self, logits_grad: Annotated[NDArray, dict(device='cpu', writable=False)], value_grad: Annotated[NDArray, dict(device='cpu', writable=False)], grad_out: Annotated[NDArray, dict(device='cpu')]) -> None:
        """
        The parameters' gradient [P] through time, from those of forward_train's logits [T, M, A] and values [T, M]; once for each forward_train. log_std is no output of the network: its part is 0.
        """

def pack_panels(weight: Annotated[NDArray, dict(device='cpu', writable=False)], panels: Annotated[NDArray, dict(device='cpu')], kernels: str = '') -> None:
    """
    Weights [out, in] as panels [out / 32, in, 32], float32, for `panel_product`.
    """

def panel_product(x: Annotated[NDArray, dict(device='cpu', writable=False)], panels: Annotated[NDArray, dict(device='cpu', writable=False)], bias: Annotated[NDArray, dict(device='cpu', writable=False)] | None, other: Annotated[NDArray, dict(device='cpu', writable=False)] | None, finish: str, out: Annotated[NDArray, dict(device='cpu')], kernels: str = '') -> None:
    """
    x [n, in] times weights in panels, plus `bias` [out], into `out` [n, out], all float32. `finish`: keep; swish, through x sigmoid(x); times or plus `other` [n, out]. A row does not depend on the others.
    """

class ReplayRings:
    """
    A ring of records for each row, in a block of bytes that processes may share.

    A row has one writer at a time; any number of readers.
    """

    def __init__(self, block: Annotated[NDArray, dict(device='cpu')], num_rows: int, slots: int, obs_bytes: Sequence[int], action_bytes: Sequence[int], mask_bytes: int, contents: int, frames: int = 1) -> None:
        """
        A block of zeros becomes an empty memory. ValueError where it holds another memory than this; `contents`: a hash of what its records mean; `frames`: observations are stacks of so many, and `obs_bytes` of one.
        """

    @staticmethod
    def bytes(num_rows: int, slots: int, obs_bytes: Sequence[int], action_bytes: Sequence[int], mask_bytes: int) -> int:
        """Bytes of the block."""

    @property
    def stride(self) -> int:
        """Words of 8 bytes of a slot: its sequence number, and the record."""

    def insert(self, first_row: int, obs: Sequence[Annotated[NDArray, dict(device='cpu', writable=False)]], action: Sequence[Annotated[NDArray, dict(device='cpu', writable=False)]], reward: Annotated[NDArray, dict(device='cpu', writable=False)], terminated: Annotated[NDArray, dict(device='cpu', writable=False)], truncated: Annotated[NDArray, dict(device='cpu', writable=False)], valid: Annotated[NDArray, dict(device='cpu', writable=False)], start: Annotated[NDArray, dict(device='cpu', writable=False)], version: Annotated[NDArray, dict(device='cpu', writable=False)], final_index: Annotated[NDArray, dict(device='cpu', writable=False)], final_obs: Sequence[Annotated[NDArray, dict(device='cpu', writable=False)]], action_mask: Annotated[NDArray, dict(device='cpu', writable=False)] | None, *, in_turns: bool) -> int:
        """
        Append the valid steps of arrays [T, B, ...] to the rings of B rows; returns how many.

        ValueError, with nothing stored, where a reward is not finite or an end has no final observation.
        """

class ReplayReader:
    """Samples transitions of n steps from a memory."""

    def __init__(self, rings: ReplayRings, batch_size: int, n_step: int, gamma: float, seed: int, *, checked: bool = True, block_ends: Sequence[int] = [], shares: Sequence[float] = [], recency: float = 1.0) -> None:
        """
        `block_ends`, `shares`: blocks of rows that end before these, each with its share of a batch; `recency`: k, where P(age <= x) = x^(1/k) of a row's steps.
        """

    def attach(self, obs: Sequence[Annotated[NDArray, dict(device='cpu')]], next_obs: Sequence[Annotated[NDArray, dict(device='cpu')]], action: Sequence[Annotated[NDArray, dict(device='cpu')]], action_mask: Annotated[NDArray, dict(device='cpu')] | None, next_action_mask: Annotated[NDArray, dict(device='cpu')] | None, reward: Annotated[NDArray, dict(device='cpu')], discount: Annotated[NDArray, dict(device='cpu')], steps: Annotated[NDArray, dict(device='cpu')], version: Annotated[NDArray, dict(device='cpu')], weight: Annotated[NDArray, dict(device='cpu')], error: Annotated[NDArray, dict(device='cpu')], key: Annotated[NDArray, dict(device='cpu')]) -> None:
        """Keep these arrays [batch_size, ...] and write every sample to them."""

    def sample(self, count: int | None = None) -> bool:
        """
        Write a batch, or its first `count` transitions; False where no step can be sampled yet.
        """

    def prioritize_by(self, alpha: float, epsilon: float, uniform_mix: float) -> None:
        """
        Draw steps by priorities from now on: of those that are sampled first, 1.
        """

    def sample_prioritized(self, alpha: float, beta: float, count: int | None = None) -> bool:
        """
        Write a batch that is drawn by priorities, or `count` transitions, with their weights; False where no step can be sampled yet.
        """

    def prioritize(self, keys: Annotated[NDArray, dict(device='cpu', writable=False)], errors: Annotated[NDArray, dict(device='cpu', writable=False)]) -> int:
        """
        Make |error| + epsilon the priority of each key; returns how many keys were of overwritten records so far.

        ValueError, with nothing changed, where an error is not finite or a key of no sampled transition.
        """

    @property
    def priorities(self) -> tuple:
        """
        Copies of the priority of every slot and of each row's records that were looked at, the greatest priority so far, and the number of stale keys.
        """

    def set_priorities(self, priorities: Annotated[NDArray, dict(device='cpu', writable=False)], seen: Annotated[NDArray, dict(device='cpu', writable=False)], most: float, stale: int) -> None:
        """
        Continue from what `priorities` gave; ValueError where it is of another memory.
        """

    @property
    def mass(self) -> tuple[float, int]:
        """
        What the steps that can be sampled weigh together (the sum of priorities^alpha; their number where all are as likely), and how many they are.
        """

    @property
    def least_chance(self) -> float:
        """
        The least probability of the last batch that was drawn by priorities, that of its greatest weight.
        """

    @property
    def overwritten(self) -> int:
        """How many times a record was drawn again because a writer was faster."""

    @property
    def random(self) -> list[int]:
        """The state of the random numbers."""

    @random.setter
    def random(self, arg: Sequence[int], /) -> None: ...

class StepRecorder:
    """
    Acts for rows that Python steps, and records their steps in a slab of T steps: one call each.
    """

    def __init__(self, plan: MlpPlan, obs: Annotated[NDArray, dict(device='cpu')], start: Annotated[NDArray, dict(device='cpu')], action: Annotated[NDArray, dict(device='cpu')], log_prob: Annotated[NDArray, dict(device='cpu')], value: Annotated[NDArray, dict(device='cpu')], reward: Annotated[NDArray, dict(device='cpu')], terminated: Annotated[NDArray, dict(device='cpu')], truncated: Annotated[NDArray, dict(device='cpu')], valid: Annotated[NDArray, dict(device='cpu')], version: Annotated[NDArray, dict(device='cpu')], current_start: Annotated[NDArray, dict(device='cpu')], row_step: Annotated[NDArray, dict(device='cpu')], rows: Annotated[NDArray, dict(device='cpu', writable=False)], seed: int, stream: int, epsilon: Annotated[NDArray, dict(device='cpu', writable=False)] | None = None) -> None:
        """
        The slab's arrays [T, B, ...], observations float32 or float64; current_start and row_step [B] are those of the rows and advance; rows, seed, stream and epsilon are those of the noise, as in MlpPlan.act.
        """

    def see(self, obs: Annotated[NDArray, dict(device='cpu', writable=False)]) -> None:
        """
        What the rows see [B, D], of the slab's own type, is read there at every act from now on.
        """

    def watch(self, reward: Annotated[NDArray, dict(device='cpu', writable=False)], terminated: Annotated[NDArray, dict(device='cpu', writable=False)], truncated: Annotated[NDArray, dict(device='cpu', writable=False)], valid: Annotated[NDArray, dict(device='cpu', writable=False)]) -> None:
        """
        What a step comes to [B], rewards as float64, is read there at every record from now on.
        """

    def act(self, t: int, version: int) -> None:
        """
        Writes step t of the slab: what the rows see, and what the plan chooses, as this version; counts row_step up.
        """

    def record(self, t: int) -> bool:
        """
        Writes what step t came to. False and nothing written where an episode ended or a step is not valid.
        """

def pack_step(number: int, first: int, count: int, arrays: list) -> bytes:
    """
    The bytes of a Request that steps `count` rows from `first` on with the actions in `arrays`.
    """

def read_step(data: bytes, at: int, size: int) -> tuple[int, int, int, int, int] | None:
    """
    Of the Request in data[at:at + size]: number, first, count, and where its action begins and how long it is. None unless it is a plain Step: protobuf reads others.
    """

def read_call(data: bytes) -> tuple[int, int, int, int] | None:
    """
    Of a SessionRequest: where its session begins and how long it is, and so of its request. None where it has not both, or more.
    """

def unpack(data: bytes, at: int, size: int, arrays: list) -> None:
    """
    Copies data[at:at + size] to the arrays, as a Layout packs them; ValueError where it has another size.
    """

def pack_rows(number: int, first: int, masked: bool, arrays: list, like: list, finals: list, terminated: NDArray[numpy.bool_], truncated: NDArray[numpy.bool_]) -> bytes | None:
    """
    The bytes of a Reply about as many rows as `terminated` and `truncated` [rows] have, from `first` on: `arrays`, whose first ones are observations, and of `finals` the rows where a flag is set. None unless each array is contiguous, and of the shape and dtype of its place in `like`.
    """

def read_rows(data: bytes) -> tuple[int, int, int, bool, int, int, int, int] | None:
    """
    Of a Reply: number, first, count, masked, and where its arrays begin and how long they are, and so of its final observations. None unless it is of plain Rows, nothing cut: protobuf reads others.
    """

def unpack_rows(data: bytes, at: int, size: int, final_at: int, final_size: int, arrays: list, finals: list, terminated: NDArray[numpy.bool_], truncated: NDArray[numpy.bool_]) -> bool:
    """
    Copies what `read_rows` found to the arrays, and to `finals` the last observations of the rows whose flags, which are among the arrays, are set then. ValueError where sizes differ.

    Returns whether the observations, the first as many arrays as there are `finals`, and the array after them are finite.
    """
