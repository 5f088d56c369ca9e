"""Defects of one line each, most of them seen in other libraries: a test must fail on every one."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mutation:
    """One line replaced, and a test that must notice."""

    defect: str
    file: str
    """Counted from `src/shoal`, or from `native`."""
    line: str
    """Without its indent; it stands once in the file."""
    instead: str
    test: str


PYTHON = [
    Mutation(
        "truncation treated as termination",
        "memory/slab.py",
        "self.next_value[self.terminated] = 0",
        "self.next_value[self.terminated | self.truncated] = 0",
        "tests/stream/test_rollouts.py::test_every_field_of_the_first_rollout",
    ),
    Mutation(
        "a rollout's last step bootstraps from itself: a horizon one step short",
        "memory/slab.py",
        "self.next_value[:-1] = self.value[1:]",
        "self.next_value[:-1] = self.value[:-1]",
        "tests/stream/test_rollouts.py::test_every_field_of_the_first_rollout",
    ),
    Mutation(
        "a step that only reset its row does not begin an episode",
        "stream/collector.py",
        "role.start[mine] = ended | ~valid",
        "role.start[mine] = ended",
        "tests/stream/test_rollouts.py::test_steps_that_only_reset_are_marked_and_skipped",
    ),
    Mutation(
        "the value of a final observation forgets the recurrent state",
        "stream/collector.py",
        "values = role.actor.value(obs, np.zeros(len(cut), np.bool_), rows)",
        "values = role.actor.value(obs, np.ones(len(cut), np.bool_), rows)",
        "tests/stream/test_rollouts.py::test_every_field_of_the_first_rollout",
    ),
    Mutation(
        "noise counters not restored: a resumed run explores anew",
        "stream/roles.py",
        'self.actor.row_step[:] = saved["row_step"]',
        "self.actor.row_step[:] = 0",
        "tests/stream/test_rollouts.py::test_a_restored_stream_goes_on_bit_for_bit[native-way0-network0]",
    ),
    Mutation(
        "published weights never reach those who act",
        "stream/roles.py",
        "if self.version != self.source.version:",
        "if self.version < 0:",
        "tests/stream/test_rollouts.py::test_acting_uses_the_published_weights",
    ),
    Mutation(
        "the fused rollout ignores its stream: several agents explore alike",
        "stream/rollouts.py",
        "noise = Noise(acting.seed, acting.stream, actor.rows, actor.row_step)",
        "noise = Noise(acting.seed, 0, actor.rows, actor.row_step)",
        "tests/stream/test_publishing.py::test_noise_is_of_seed_stream_row_and_step",
    ),
    Mutation(
        "a target goes on where its episode terminated",
        "math/q_learning.py",
        "return reward + discount * next_value",
        "return reward + discount.max() * next_value",
        "tests/math/test_q_learning.py::test_targets",
    ),
    Mutation(
        "more transitions are drawn than the steps allow",
        "stream/replay.py",
        "self._credit -= self.batch_size",
        "self._credit -= self.batch_size / 2",
        "tests/stream/test_replay.py::test_what_is_drawn_for_each_step",
    ),
    Mutation(
        "a restored memory begins to count its steps anew",
        "stream/replay.py",
        'self._inserted = int(state["inserted"])',
        "self._inserted = 0",
        "tests/stream/test_replay.py::test_a_restored_stream_goes_on",
    ),
    Mutation(
        "the fused rollout says another version than acted",
        "stream/rollouts.py",
        "slab.version.fill(role.version)",
        "slab.version.fill(self.version + 1)",
        "tests/stream/test_rollouts.py::test_a_restored_stream_goes_on_bit_for_bit[native-way0-network0]",
    ),
    Mutation(
        "normalized rewards forget their statistics on resume",
        "stream/rollouts.py",
        'normalizer.restore(state["rewards"][name])',
        "normalizer.restore(normalizer.state())",
        "tests/stream/test_rewards.py::test_games_of_turns_and_self_play",
    ),
    Mutation(
        "returns by which rewards are normalized go on over an episode's end",
        "stream/rewards.py",
        "before = np.where(slab.start[t], 0.0, self.gamma * self.returns)",
        "before = self.gamma * self.returns",
        "tests/stream/test_rewards.py::test_by_hand",
    ),
    Mutation(
        "the next rollout may be pulled without a publish",
        "stream/rollouts.py",
        "self._published = False",
        "self._published = True",
        "tests/stream/test_rollouts.py::test_publish_comes_between_two_pulls",
    ),
    Mutation(
        "recurrent state not reset at an episode's start",
        "nets/policy.py",
        "keep = (~start.bool()).to(x.dtype).unsqueeze(-1)",
        "keep = (start.bool() | ~start.bool()).to(x.dtype).unsqueeze(-1)",
        "tests/stream/test_rollouts.py::test_a_policy_unrolled_over_the_rollout_gives_its_values_again",
    ),
    Mutation(
        "a rollback gives an old version's number to new weights",
        "learn/learner.py",
        'self.version = max(self.version, state["version"])',
        'self.version = state["version"]',
        "tests/stream/test_publishing.py::test_rolled_back_weights_act_as_a_new_version",
    ),
    Mutation(
        "a gradient that is not finite counts as a step",
        "learn/learner.py",
        "if not math.isfinite(norm):",
        "if math.isinf(norm):",
        "tests/learn/test_learner.py::test_a_step_that_is_not_finite_changes_nothing[fused-none]",
    ),
    Mutation(
        "advantages leak over a truncated episode's end",
        "math/returns.py",
        "ended = terminated | _array(steps.truncated, torch.bool)",
        "ended = terminated",
        "tests/math/test_math.py::test_gae_by_hand",
    ),
    Mutation(
        "a worker's lost episode ends as if it had failed at its task",
        "envs/row_keeper.py",
        "out.truncated[rows] = True",
        "out.terminated[rows] = True",
        "tests/fault/test_workers.py::test_restart_cuts_the_workers_rows_and_loses_no_step[SIGKILL-whole]",
    ),
    Mutation(
        "the step in which a lost row is reset is learned from",
        "envs/workers/worker_rows.py",
        "out.valid[row] = out.terminated[row] = False",
        "out.valid[row], out.terminated[row] = True, False",
        "tests/fault/test_workers.py::test_restart_cuts_the_workers_rows_and_loses_no_step[SIGKILL-whole]",
    ),
    Mutation(
        "Ctrl-C reaches the workers too",
        "envs/workers/supervisor.py",
        "signal.signal(signal.SIGINT, signal.SIG_IGN)",
        "signal.signal(signal.SIGINT, signal.default_int_handler)",
        "tests/envs/test_workers.py::test_ctrl_c_is_for_the_parent_to_handle",
    ),
    Mutation(
        "workers live on when their parent was killed",
        "envs/workers/supervisor.py",
        "_prctl(PR_SET_PDEATHSIG, signal.SIGTERM)",
        "_prctl(PR_SET_PDEATHSIG, 0)",
        "tests/envs/test_workers.py::test_a_parent_killed_by_9_leaves_no_process",
    ),
    Mutation(
        "a worker's row is seeded as if it were its first one",
        "envs/workers/rows.py",
        "{number: seeds[rows] for number, rows in enumerate(self.pool.rows)}",
        "{number: seeds[: rows.stop - rows.start] for number, rows in enumerate(self.pool.rows)}",
        "tests/contract/test_vec_env.py::test_row_r_is_seeded_with_seed_plus_r[workers-nested]",
    ),
    Mutation(
        "a flipped byte in a file of tensors is not noticed",
        "run/tensors.py",
        'if hashlib.file_digest(file, "sha256").hexdigest() != sha256:',
        "if found != size:",
        "tests/run/test_checkpoint.py::test_nothing_whole_is_an_error_and_nothing_at_all_is_none",
    ),
    Mutation(
        "a flipped byte in a manifest is not noticed",
        "run/checkpoint.py",
        'if hashlib.sha256(body).hexdigest() != sealed["sha256"]:',
        "if not body:",
        "tests/run/test_checkpoint.py::test_every_flipped_byte_is_found",
    ),
    Mutation(
        "the oldest checkpoint is loaded",
        "run/checkpoint.py",
        'manifests = [folder / f"{tag}.json"] if tag else rolling(folder)[::-1]',
        'manifests = [folder / f"{tag}.json"] if tag else rolling(folder)',
        "tests/run/test_checkpoint.py::test_damaged_newest_gives_the_one_before[truncate tensors]",
    ),
    Mutation(
        "another environment's checkpoint is loaded",
        "run/checkpoint.py",
        "if found != expected:",
        "if not found:",
        "tests/run/test_checkpoint.py::test_refuses_another_run",
    ),
    Mutation(
        "files that the best checkpoint shares with an old one are deleted",
        "run/checkpoint.py",
        "wanted = {path for manifest in manifests for path in files_of(manifest)}",
        "wanted = {path for manifest in rolling(folder) for path in files_of(manifest)}",
        "tests/run/test_checkpoint.py::test_keep_last_and_best",
    ),
    Mutation(
        "a checkpoint takes in what training changed after it was begun",
        "run/snapshot.py",
        "self.arrays[name] = self.arrays[name].copy()",
        "self.arrays[name] = self.arrays[name][...]",
        "tests/run/test_writer.py::test_what_is_saved_is_the_moment_of_the_call[copied]",
    ),
    Mutation(
        "determinism is checked against the same instance",
        "check/repeat.py",
        "elsewhere = trace(other, seed, actions)",
        "elsewhere = trace(player, seed, actions)",
        "tests/check/test_check_env.py::test_instances_that_behave_differently",
    ),
    Mutation(
        "an observation that is changed later is not found",
        "check/play.py",
        "copied = copy.deepcopy(plain(value))",
        "copied = plain(value)",
        "tests/check/test_check_env.py::test_each_defect_is_found_by_its_check_alone[OneBuffer]",
    ),
    Mutation(
        "unbounded actions pass",
        "check/values.py",
        "if acts and not space.is_bounded():",
        'if acts and not (space.is_bounded("below") or space.is_bounded("above")):',
        "tests/check/test_check_env.py::test_an_action_with_one_open_bound",
    ),
    Mutation(
        "the interquartile mean leaves a fifth out",
        "report/statistics.py",
        "cut = len(scores) // 4",
        "cut = len(scores) // 5",
        "tests/report/test_compare.py::test_iqm",
    ),
    Mutation(
        "a memory in a file goes on behind its checkpoint, with steps that are taken again",
        "memory/replay_file.py",
        "memory.heads[:] = heads",
        "memory.gone = gone",
        "tests/memory/test_replay_file.py::test_what_was_not_overwritten_goes_on_exactly",
    ),
    Mutation(
        "a recording keeps views, which hold the last observation in every row in the end",
        "run/record.py",
        "self.obs.append(map_tree(np.copy, obs))  # views are written anew",
        "self.obs.append(obs)",
        "tests/run/test_record.py::test_the_environment_did_the_same[True]",
    ),
    Mutation(
        "an episode that its recording cut ends as if it had terminated",
        "memory/data.py",
        "self.truncated[-1] |= not self.terminated[-1]",
        "self.terminated[-1] |= not self.truncated[-1]",
        "tests/memory/test_data.py::test_transitions_by_hand",
    ),
    Mutation(
        "a resumed run goes on with another data set",
        "stream/data.py",
        'if state.get("sha256") != self.sha256:',
        'if not state.get("sha256"):',
        "tests/stream/test_data_draws.py::test_another_data_set_is_refused",
    ),
    Mutation(
        "a goal in hindsight may be of the next episode",
        "memory/hindsight.py",
        "ahead = self._ends_of(rows, index) - index",
        "ahead = self._ends_of(rows, index) - index + 1",
        "tests/memory/test_hindsight.py::test_goals_are_later_ones_of_the_same_episode[1000]",
    ),
]
"""In the library's own files."""

NATIVE = [
    Mutation(
        "PPO's clip is wider above than below",
        "losses/ppo.hpp",
        "const Vec clipped = -gain * clamp(ratio, 1.0F - set.clip_coef, 1.0F + set.clip_coef);",
        "const Vec clipped = -gain * clamp(ratio, 1.0F - set.clip_coef, 1.0F + 2.0F * set.clip_coef);",
        "tests/test_net_learning.py::test_gradient_equals_autograd",
    ),
    Mutation(
        "PPO's gradient goes on where its surrogate is clipped",
        "losses/ppo.hpp",
        "return {weight * (plain < clipped ? Vec{} : plain), -(set.ent_coef * weight)};",
        "return {weight * plain, -(set.ent_coef * weight)};",
        "tests/test_net_learning.py::test_gradient_equals_autograd",
    ),
    Mutation(
        "a clipped value loss pulls where it is flat",
        "losses/ppo.hpp",
        "slope = farther && !inside ? Vec{} : error;",
        "slope = error;",
        "tests/test_net_learning.py::test_gradient_equals_autograd",
    ),
    Mutation(
        "PPO's value loss is not weighed",
        "losses/ppo.hpp",
        "return set.vf_coef * weight * slope;",
        "return weight * slope;",
        "tests/test_net_learning.py::test_gradient_equals_autograd",
    ),
    Mutation(
        "A2C drives entropy down",
        "losses/a2c.hpp",
        "return {-weight * gain, -(set.ent_coef * weight)};",
        "return {-weight * gain, set.ent_coef * weight};",
        "tests/test_net_learning.py::test_gradient_equals_autograd",
    ),
    Mutation(
        "Adam does not correct the bias of its second moment",
        "net/optimizer.hpp",
        "param -= step.step_size * exp_avg / (square_root(exp_avg_sq) / step.bias2_sqrt + step.eps);",
        "param -= step.step_size * exp_avg / (square_root(exp_avg_sq) + step.eps);",
        "tests/test_net_learning.py::test_adam_equals_torch",
    ),
    Mutation(
        "RMSProp adds its epsilon inside the root",
        "net/optimizer.hpp",
        "param -= step.learning_rate * grad / (square_root(square_avg) + step.eps);",
        "param -= step.learning_rate * grad / square_root(square_avg + step.eps);",
        "tests/test_net_learning.py::test_rmsprop_equals_torch",
    ),
    Mutation(
        "advantages bootstrap from a terminated step",
        "math/scan.hpp",
        "const float next = in.terminated[at + b] != 0 ? 0.0F : in.next_value[at + b];",
        "const float next = in.next_value[at + b];",
        "tests/math/test_math.py::test_a_terminated_step_never_bootstraps",
    ),
    Mutation(
        "n-step returns run over an episode's end",
        "math/scan.hpp",
        "float next = bootstrap || in.ended[at] != 0 ? in.next_value[at] : carry;",
        "float next = bootstrap ? in.next_value[at] : carry;",
        "tests/math/test_math.py::test_n_step_of_a_population_equals_its_definition",
    ),
    Mutation(
        "records are read without the check that no writer was there: torn ones come through",
        "memory/transitions.hpp",
        "if (!checked_ || record.whole()) return true;",
        "return true;",
        "tests/memory/test_replay_races.py::test_a_sample_that_lasts_longer_than_what_it_draws_from",
    ),
    Mutation(
        "a stack takes its other frames from the episode before",
        "memory/insert.hpp",
        "if (frames == 1 || continues(end, stacks, at)) return;",
        "if (end.index() + 1 >= frames) return;",
        "tests/memory/test_replay_stacks.py::test_against_lists",
    ),
    Mutation(
        "a step leads to the oldest frame of the next stack instead of its newest",
        "memory/transitions.hpp",
        "walk.advance(rings_.layout().frames - 1);",
        "walk.advance(1);",
        "tests/memory/test_replay_stacks.py::test_against_lists",
    ),
    Mutation(
        "the tail of an n-step return has gamma^n with fewer rewards",
        "memory/transitions.hpp",
        "out.discount[b] = terminated ? 0.0F : static_cast<float>(power);",
        "out.discount[b] = terminated ? 0.0F : static_cast<float>(std::pow(gamma_, n_));",
        "tests/memory/test_replay.py::test_three_steps_by_hand",
    ),
    Mutation(
        "a replay memory's truncated episodes end as terminated ones",
        "memory/transitions.hpp",
        "const bool terminated = over && (step.flags & RecordFlags::terminated) != 0;",
        "const bool terminated = over;",
        "tests/memory/test_replay.py::test_one_step_transitions_over_each_kind_of_end",
    ),
]
"""In headers that `SOURCES` of tests/native_mutants.py include."""
