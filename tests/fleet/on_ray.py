"""What tests of fleets on Ray run in processes of their own: `python -m tests.fleet.on_ray CASE FOLDER`.

Ray warns, prints, and keeps threads, none of which belongs into the tests' own process.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

STORE_BYTES = 80 << 20
SETTINGS: dict[str, Any] = {
    "total_timesteps": 8192,
    "num_envs": 6,
    "num_steps": 128,
    "num_minibatches": 4,
    "final_episodes": 4,
    "stop_at": float("inf"),
    "panel": "none",
    "num_threads": 1,
}


class Counting(gym.Env[Any, Any]):
    """An environment of this module, which servers get by its pickle."""

    observation_space = gym.spaces.Dict({"count": gym.spaces.Box(0, 9, (1,), np.float32)})
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.count = int(self.np_random.integers(4))
        return self._seen(), {}

    def step(self, action: Any) -> Any:
        self.count += 1
        return self._seen(), float(action), self.count == 9, False, {}

    def _seen(self) -> Any:
        return {"count": np.array([self.count], np.float32)}


def cluster(nodes: int) -> Any:
    """Simulated nodes of one CPU each, beside a head of one."""
    from ray.cluster_utils import Cluster

    quick = {"health_check_period_ms": 1000, "health_check_failure_threshold": 3}
    head = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": STORE_BYTES, "_system_config": quick}
    made = Cluster(initialize_head=True, head_node_args=head)
    added = [made.add_node(num_cpus=1, object_store_memory=STORE_BYTES) for _ in range(nodes - 1)]
    made.wait_for_nodes()
    os.environ["RAY_ADDRESS"] = str(made.address)
    return made, added


def case_equal(folder: Path) -> dict[str, Any]:
    """A native environment and one by pickle, with a fleet and without."""
    import shoal

    found: dict[str, Any] = {}
    for env in ("CartPole-v1", Counting):
        name = env if isinstance(env, str) else env.__name__
        for fleet in (None, "local"):
            run = shoal.train(env, fleet=fleet, run_dir=folder / "runs", **SETTINGS)
            weights = [part.tobytes().hex() for part in map(np.asarray, run.policy.state_dict().values())]
            found[f"{name} {fleet}"] = [weights, run.greedy_return]
    return found


def case_lost(folder: Path) -> dict[str, Any]:
    """PPO on four nodes, of which one is killed in the middle; and the same without that."""
    import shoal

    made, added = cluster(4)
    times: list[float] = []
    killed: list[str] = []

    def watch(run: Any, _: Any) -> None:
        times.append(time.monotonic())
        if killed or run.updates < 40:
            return
        victim = next(node for node in added if node.node_id.startswith(tuple(nodes_with_servers())))
        killed.append(victim.node_id)
        made.remove_node(victim, allow_graceful=False)

    settings: dict[str, Any] = SETTINGS | {"total_timesteps": 100_000, "num_envs": 9}
    servers = {"servers": 3}
    found: dict[str, Any] = {}
    try:
        whole = shoal.train("CartPole-v1", run_dir=folder / "runs", **settings)
        found["whole"] = whole.greedy_return
        run = shoal.train(
            "CartPole-v1", fleet="auto", placement=servers, run_dir=folder / "runs", callbacks=[watch], **settings
        )
        found |= {"return": run.greedy_return, "steps": run.steps, "killed": killed}
        found["longest_s"] = float(np.max(np.diff(times)))
    finally:
        made.shutdown()
    return found


def nodes_with_servers() -> list[str]:
    """The beginnings of the names of nodes that have servers."""
    import ray

    from shoal.fleet.control import _actors

    module: Any = ray
    told = [module.get(actor.about.remote()) for _, _, actor in _actors(module)]
    return [about.node.split()[1] for about in told]


def case_actors(folder: Path) -> dict[str, Any]:
    """Four actors in processes of this machine, and on a fleet."""
    import shoal

    found: dict[str, Any] = {}
    settings: dict[str, Any] = SETTINGS | {"num_envs": 8, "actors": 4, "total_timesteps": 4096}
    for fleet in (None, "local"):
        placement = {"cpus": 0.25} if fleet else {}
        run = shoal.train("CartPole-v1", fleet=fleet, placement=placement, run_dir=folder / "runs", **settings)
        weights = [part.tobytes().hex() for part in map(np.asarray, run.policy.state_dict().values())]
        lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
        told = [{k: x for k, x in line.items() if not k.startswith(("time/", "speed/"))} for line in lines]
        found[str(fleet)] = [weights, told, run.steps]
    return found


ALGOS: dict[str, dict[str, Any]] = {
    "ppo": {"num_steps": 128, "num_minibatches": 4, "total_timesteps": 100_000},
    "dqn": {"agents": 3, "num_steps": 4, "total_timesteps": 12_000, "batch_size": 32},
}


def case_lost_actors(folder: Path) -> dict[str, Any]:
    """Actors on four nodes, of which one is killed in the middle; and the same without that."""
    return lost_actors(folder, ALGOS, {"actors": 3})


def case_lost_shards(folder: Path) -> dict[str, Any]:
    """The same of three agents whose steps two actors keep."""
    settings = ALGOS["dqn"] | {"total_timesteps": 16_000}
    return lost_actors(folder, {"dqn": settings}, {"actors": 2, "replay": {"shards": True}})


def lost_actors(folder: Path, algos: dict[str, dict[str, Any]], placed: dict[str, Any]) -> dict[str, Any]:
    """Of each algorithm: how long the longest wait was, and what it came to; `placed`: settings on the fleet alone."""
    import shoal

    found: dict[str, Any] = {}
    for algo, own in algos.items():
        made, added = cluster(4)
        times: list[float] = []
        killed: list[str] = []

        def watch(
            run: Any, _: Any, made: Any = made, added: Any = added, times: Any = times, killed: Any = killed
        ) -> None:
            times.append(time.monotonic())
            if killed or run.progress < 0.3:
                return
            victim = next(node for node in added if node.node_id.startswith(tuple(nodes_with_servers())))
            killed.append(victim.node_id)
            made.remove_node(victim, allow_graceful=False)

        shared = {"num_envs": 9, "final_episodes": 20, "stop_at": float("inf"), "panel": "none", "num_threads": 1}
        settings: dict[str, Any] = shared | own | {"algo": algo, "run_dir": folder / "runs"}
        there: dict[str, Any] = settings | placed
        try:
            whole = shoal.train("CartPole-v1", **settings)
            run = shoal.train("CartPole-v1", fleet="auto", callbacks=[watch], **there)
        finally:
            import ray

            module: Any = ray
            module.shutdown()
            made.shutdown()
        longest = float(np.max(np.diff(times)))
        found[algo] = {
            "whole": whole.greedy_return,
            "return": run.greedy_return,
            "steps": run.steps,
            "longest_s": longest,
        }
        found[algo]["killed"] = killed
        lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
        found[algo]["steps_lost"] = max((line.get("replay/steps_lost", 0) for line in lines), default=0)
    return found


def case_refused(_: Path) -> dict[str, Any]:
    """No room; another version; an environment that is not there."""
    import shoal

    made, _ = cluster(1)
    found: dict[str, Any] = {}

    def refused(name: str, **settings: Any) -> None:
        begun = time.monotonic()
        try:
            shoal.train(settings.pop("env", "CartPole-v1"), fleet="auto", panel="none", **settings)
        except shoal.ConfigError as error:
            found[name] = [str(error), time.monotonic() - begun]

    try:
        refused("room", placement={"servers": 4, "wait_s": 2.0})
        refused("resource", placement={"servers": 1, "resource": "envs", "wait_s": 2.0})
        refused("environment", env="NoSuch-v0", placement={"servers": 1})
        from ray._private import utils

        utils.compute_version_info = lambda: ("1.2.3", "3.9.1")
        refused("version", placement={"servers": 1})
    finally:
        made.shutdown()
    return found


def case_endless(folder: Path) -> dict[str, Any]:
    """Trains until it is ended."""
    import shoal

    settings: dict[str, Any] = SETTINGS | {"total_timesteps": 10**9}
    try:
        shoal.train("CartPole-v1", fleet="local", run_dir=folder / "runs", **settings)
    except KeyboardInterrupt:
        return {"ended": True}
    return {}


def main() -> None:
    """Writes what the case found."""
    _, case, folder = sys.argv
    signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever the tests' own parent thinks of it
    found = globals()[f"case_{case}"](Path(folder))
    (Path(folder) / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
