"""Defects of one line each in what is said of Gymnasium's MuJoCo classes, and in their rows."""

from tests.mutations import Mutation

EXACT = "tests/exact/test_mujoco.py::test_equals_gymnasium"

SIMULATIONS = [
    Mutation(
        "native steps go on after their time limit",
        "envs/mujoco/rows.py",
        "np.greater_equal(lengths, self._limits[rows], out=ready.truncated)",
        "np.greater(lengths, self._limits[rows], out=ready.truncated)",
        f"{EXACT}[HalfCheetah-v5-]",
    ),
    Mutation(
        "native steps are not kept, so that a saved row begins its episode anew",
        "envs/mujoco/rows.py",
        "self._resets.history.record(rows, actions)",
        "pass",
        "tests/envs/test_mujoco.py::test_rows_go_on_where_they_were_saved[Ant-v5-mujoco-mujoco]",
    ),
    Mutation(
        "contact forces are observed as they are, and not clipped",
        "envs/mujoco/tasks.py",
        "shown.append((data.cfrc_ext[1:], *forces))",
        "shown.append((data.cfrc_ext[1:], *ANYTHING))",
        f"{EXACT}[Ant-v5-]",
    ),
    Mutation(
        "a Humanoid's controls cost as float32, as those of others do",
        "envs/mujoco/tasks.py",
        '"control_of_action": False,',
        '"control_of_action": True,',
        f"{EXACT}[Humanoid-v5-]",
    ),
    Mutation(
        "a Python function among MuJoCo's callbacks runs in threads without Python's lock",
        "envs/mujoco/rows.py",
        'if getattr(mujoco, f"get_mjcb_{callback}")() is not None:',
        "if callback is None:",
        "tests/envs/test_mujoco.py::test_callbacks_in_python_are_refused",
    ),
    Mutation(
        "functions put into Gymnasium's class are passed over",
        "envs/mujoco/rows.py",
        "if not str(function.__module__).startswith(MODULE):",
        "if not function.__module__:",
        "tests/envs/test_mujoco.py::test_functions_put_into_the_class_are_left_to_gymnasium",
    ),
    Mutation(
        "a last observation that is not finite is handed over as it is",
        "envs/mujoco/rows.py",
        "put_last_finite(layout, ready.obs, before, ready.terminated)",
        "del layout",
        "tests/envs/test_mujoco.py::test_the_last_finite_observation_stands_in",
    ),
    Mutation(
        "a flag that is none ends episodes as if it were one",
        "envs/mujoco/tasks.py",
        "flag = read_flag(vars(env)[name])",
        "flag = bool(vars(env)[name])",
        "tests/envs/test_mujoco.py::test_odd_keywords_are_left_to_gymnasium",
    ),
    Mutation(
        "a rollout's converted observations are learned from though torch has written to them",
        "learn/gradients.py",
        "if version != self._obs_version:",
        "if version < self._obs_version:",
        "tests/stream/test_straight.py::test_a_rollout_is_converted_once_until_torch_writes_to_it",
    ),
]
