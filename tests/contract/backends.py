"""The registry that the contract test runs over: a backend is added here and nowhere else."""

import atexit
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import pytest
import trustme
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import FrameStackObservation
from numpy.typing import NDArray

from shoal.envs import native
from shoal.envs.action_guard.guarded import guarded
from shoal.envs.action_guard.settings import ActionGuard
from shoal.envs.preprocessing import Preprocessing
from shoal.envs.registry import make, on_servers
from shoal.envs.vec_env import VecEnv
from shoal.envs.workers.settings import Workers
from shoal.remote.server import Server
from shoal.remote.settings import Guard, Remote, Terms
from tests.contract.toys import Alone, Corridor, Gates, Lamps, make_pointer
from tests.contract.trees import Crane, FlatCrane, FlatRows
from tests.slow_worlds import SlowSnake


@dataclass(frozen=True, slots=True)
class Backend:
    """How to make rows, and one of the same environment in plain Gymnasium."""

    name: str
    rows: Callable[[int], Any]
    single: Callable[[], gym.Env[Any, Any]] | None
    """None where plain Gymnasium has no such row."""
    truncates: bool = True
    whole: bool = False
    """Whether all rows must be sent at once, as to libraries that batch themselves."""
    restores: bool = True
    """Whether saved rows go on exactly; else they begin fresh episodes, and say so."""
    slow: bool = False


def registered(name: str, env_id: str, backend: str, max_episode_steps: int) -> Backend:
    """A registered environment with a short time limit."""
    limit: dict[str, Any] = {"max_episode_steps": max_episode_steps}
    return Backend(
        name,
        lambda num_envs: make(env_id, num_envs, backend=backend, num_threads=2, env_kwargs=limit),
        lambda: gym.make(env_id, **limit),
    )


def stacked(name: str, backend: str) -> Backend:
    """CartPole behind a frame stack, beside Gymnasium's wrapper."""
    preprocessing = Preprocessing(frame_stack=3, max_episode_steps=25)
    return Backend(
        name,
        lambda num_envs: make("CartPole-v1", num_envs, backend=backend, num_threads=2, preprocessing=preprocessing),
        lambda: FrameStackObservation(gym.make("CartPole-v1", max_episode_steps=25), 3),
    )


def vector_of(single: Callable[[], gym.Env[Any, Any]], mode: AutoresetMode) -> Callable[[int], VecEnv]:
    """Rows of Gymnasium's own vector environment that resets in this mode."""

    def vector(num_envs: int) -> SyncVectorEnv:
        return SyncVectorEnv([single] * num_envs, autoreset_mode=mode)

    return lambda num_envs: make(vector, num_envs, backend="vector")


def library(
    name: str,
    rows: Callable[[int], Any],
    single: Callable[[], gym.Env[Any, Any]] | None = None,
    **about: bool,
) -> Backend:
    """A library that batches itself."""
    return Backend(name, rows, single, whole=True, **{"restores": False, **about})


@cache
def certificates() -> dict[str, str]:
    """A certificate authority and a server's certificate, as files that are there as long as the tests."""
    folder = tempfile.mkdtemp(prefix="contract-")
    atexit.register(shutil.rmtree, folder)
    authority = trustme.CA()
    signed = authority.issue_cert("127.0.0.1")
    files = {name: f"{folder}/{name}.pem" for name in ("ca", "cert", "key")}
    authority.cert_pem.write_to_path(files["ca"])
    signed.cert_chain_pems[0].write_to_path(files["cert"])
    signed.private_key_pem.write_to_path(files["key"])
    return files


def served(
    name: str,
    rows: Callable[[int], VecEnv],
    single: Callable[[], gym.Env[Any, Any]],
    plane: Literal["auto", "tls", "grpc"] = "auto",
    *,
    slow: bool = False,
) -> Backend:
    """The same rows on servers, two of them, which end with the tests."""
    servers: list[Server] = []

    def start() -> None:
        guard = Guard()
        if plane == "tls":
            files = certificates()
            guard = Guard(files["cert"], files["key"])
        servers.extend(Server(rows, num_envs=1_000, listen="127.0.0.1:0", guard=guard) for _ in range(2))
        atexit.register(lambda: [server.stop(0.0) for server in servers])

    def rows_on_servers(num_envs: int) -> VecEnv:
        if not servers:
            start()
        count = 1 + (num_envs > 1)
        scheme, remote = "grpc://", Remote(plane=plane)
        if plane == "tls":
            scheme, remote = "grpcs://", Remote(ca=certificates()["ca"], plane=plane)
        name = scheme + ",".join(server.address for server in servers[:count])
        return on_servers(name, num_envs, None, (), Preprocessing(), terms=Terms(remote))

    return Backend(name, rows_on_servers, single, slow=slow)


def short_cart_pole() -> gym.Env[Any, Any]:
    """With a time limit of 25 steps."""
    return gym.make("CartPole-v1", max_episode_steps=25)


def short_pendulum() -> gym.Env[Any, Any]:
    """With a time limit of 25 steps."""
    return gym.make("Pendulum-v1", **SHORT)


def as_it_is(obs: Any, action: Any) -> Any:
    """A constraint that allows every action."""
    return action


SHORT: dict[str, Any] = {"max_episode_steps": 25}
# Every action passes, each by the guard's arithmetic.
LOOSE = ActionGuard(low=(-2,), max_change=(4,))
# Time limits under which random actions end some episodes before it and some by it.
LANDERS = {"LunarLander-v3": 80, "LunarLanderContinuous-v3": 110}

cranes = served("cranes", lambda n: make(Crane, n), FlatCrane)
tls_cranes = served("tls-cranes", lambda n: make(Crane, n), FlatCrane, "tls")
BACKENDS = [
    registered("native-CartPole", "CartPole-v1", "native", 25),
    registered("native-Pendulum", "Pendulum-v1", "native", 25),
    Backend(
        "native-Snake",
        lambda n: make(
            "shoal/Snake-v0", n, num_threads=2, env_kwargs={"size": 4, "patience": 6, "max_episode_steps": 8}
        ),
        lambda: SlowSnake(size=4, patience=6, max_episode_steps=8),
    ),
    *(registered(f"native-{name}", name, "native", limit) for name, limit in LANDERS.items() if name in native.ids()),
    registered("serial-CartPole", "CartPole-v1", "serial", 25),
    registered("serial-LunarLander", "LunarLander-v3", "serial", 80),
    Backend("serial-discrete-obs", lambda n: make(Corridor, n), Corridor, truncates=False),
    Backend("serial-multi-discrete", lambda n: make(Lamps, n), Lamps),
    Backend("serial-box-action", lambda n: make(make_pointer, n), make_pointer),
    Backend("serial-nested", lambda n: FlatRows(make(Crane, n)), FlatCrane),
    Backend("agents-multi-discrete", lambda n: make(lambda: Alone(Lamps()), n), Lamps),
    Backend("agents-box-action", lambda n: make(lambda: Alone(make_pointer()), n), make_pointer),
    stacked("native-stacked", "native"),
    stacked("serial-stacked", "serial"),
    Backend("workers-nested", lambda n: FlatRows(make(Crane, n, backend="workers", workers=Workers(2))), FlatCrane),
    Backend("workers-masked", lambda n: make(Gates, n, backend="workers", workers=Workers(2)), Gates),
    Backend("guarded-native", lambda n: guarded(make("Pendulum-v1", n, env_kwargs=SHORT), LOOSE), short_pendulum),
    Backend("serial-guarded", lambda n: guarded(make(Lamps, n), ActionGuard(constraint=as_it_is)), Lamps),
    library("vector-same-step", vector_of(short_cart_pole, AutoresetMode.SAME_STEP), short_cart_pole),
    library("vector-disabled", vector_of(Lamps, AutoresetMode.DISABLED), Lamps),
    library("vector-next-step", vector_of(Lamps, AutoresetMode.NEXT_STEP)),
    served(
        "remote-native-CartPole",
        lambda n: make("CartPole-v1", n, num_threads=2, env_kwargs={"max_episode_steps": 25}),
        short_cart_pole,
        "grpc",
    ),
    served(
        "remote-tls-CartPole",
        lambda n: make("CartPole-v1", n, num_threads=2, env_kwargs={"max_episode_steps": 25}),
        short_cart_pole,
        "tls",
        slow=True,
    ),
    Backend("remote-tls-nested", lambda n: FlatRows(tls_cranes.rows(n)), FlatCrane, slow=True),
    Backend("remote-nested", lambda n: FlatRows(cranes.rows(n)), FlatCrane),
    served("remote-masked", lambda n: make(Gates, n), Gates, slow=True),
    Backend("workers-multi-discrete", lambda n: make(Lamps, n, backend="workers", workers=Workers(3)), Lamps),
]
if find_spec("mujoco"):
    BACKENDS.append(registered("mujoco-Hopper", "Hopper-v5", "mujoco", 12))
    BACKENDS.append(registered("mujoco-Ant", "Ant-v5", "mujoco", 25))
if find_spec("ale_py"):
    BACKENDS.append(library("ale", lambda n: make("ALE/Breakout-v5", n, num_threads=2), restores=True, slow=True))
if find_spec("envpool"):
    limit = {"max_episode_steps": 25}
    BACKENDS.append(library("envpool", lambda n: make("CartPole-v1", n, backend="envpool", env_kwargs=limit)))


def listed(where: Callable[[Backend], bool]) -> list[Any]:
    """The backends that fit, as parameters of a test."""
    slow = pytest.mark.slow
    return [pytest.param(b, marks=[slow] if b.slow else [], id=b.name) for b in BACKENDS if where(b)]


def draw_actions(space: Any, num_rows: int, rng: np.random.Generator) -> NDArray[Any]:
    """Actions of the space for a batch of rows."""
    match space:
        case spaces.Discrete():
            return rng.integers(space.start, space.start + space.n, num_rows)
        case spaces.MultiDiscrete():
            return rng.integers(space.start, space.start + space.nvec, (num_rows, *space.shape))
        case _:
            return rng.uniform(space.low, space.high, (num_rows, *space.shape)).astype(space.dtype)


def bad_actions(space: Any, good: NDArray[Any], row: int) -> list[tuple[NDArray[Any], str]]:
    """Batches with a mistake, each with a word of its message; a wrong value stands in `row`."""
    bad: list[tuple[NDArray[Any], str]] = [(good[:-1], "shape"), (good[..., None], "shape")]
    if isinstance(space, spaces.Box):
        values = [np.nan, np.inf, space.high.max() + 1]
        bad.append((good.astype(np.complex64), "complex64"))
    else:
        high = space.start + (space.n if isinstance(space, spaces.Discrete) else space.nvec)
        values = [int(np.max(high)), int(np.min(space.start)) - 1, -(2**63)]
        bad.append((good.astype(np.float64), "float64"))
    for value in values:
        wrong = good.copy()
        wrong[row] = value
        bad.append((wrong, f"row {row}"))
    return bad
