// The arrays of a rollout that native code fills, checked against the pool and the plan.
#pragma once

#include <string>

#include "bind/arrays.hpp"
#include "bind/native.hpp"
#include "bind/plan.hpp"
#include "net/rollout.hpp"

namespace shoal {

/// What `rollout` is given, [T, B, ...] but for the first three, final_obs and rows.
struct SlabArrays {
  const ArrayOut& current_obs;
  const ArrayOut& current_start;
  const ArrayOut& row_step;
  const ArrayOut& obs;
  const ArrayOut& start;
  const ArrayOut& action;
  const ArrayOut& log_prob;
  const ArrayOut& value;
  const ArrayOut& next_value;
  const ArrayOut& reward;
  const ArrayOut& terminated;
  const ArrayOut& truncated;
  const ArrayOut& final_index;
  const ArrayOut& final_obs;
  const ArrayOut& episode_return;
  const ArrayOut& episode_length;
  const ArrayOut& drawn;
  const ArrayIn& rows;

  /// The arrays' numbers; ValueError where one does not fit.
  [[nodiscard]] Slab checked(NativePool& pool, const Net& heads, Size obs_size, const Memory& memory) const {
    pool.require_idle("rollout");
    return checked(static_cast<Size>(pool.rows().num_rows()), static_cast<Size>(pool.rows().num_drawn()), heads,
                   obs_size, memory);
  }

  /// The same, of so many rows whose episodes have so many numbers besides.
  [[nodiscard]] Slab checked(Size B, Size num_info, const Net& heads, Size obs_size, const Memory& memory) const {
    const Size T = axis(reward, "reward", 2, 0);
    const Size D = obs_size;
    const auto K = static_cast<Size>(heads.num_actions);
    const bool gaussian = heads.head == Head::gaussian;
    if (T < 1 || T * B > 0x7FFFFFFF) {
      throw std::invalid_argument("reward must hold between 1 and 2147483647 steps, not " + std::to_string(T * B));
    }
    return {static_cast<std::ptrdiff_t>(T),
            numbers<float>(current_obs, "current_obs", {B, D}),
            numbers<std::uint8_t>(current_start, "current_start", {B}),
            numbers<std::int64_t>(row_step, "row_step", {B}),
            numbers<std::int64_t>(rows, "rows", {B}),
            numbers<float>(obs, "obs", {T, B, D}),
            numbers<std::uint8_t>(start, "start", {T, B}),
            gaussian ? nullptr : numbers<std::int64_t>(action, "action", {T, B, K}),
            gaussian ? numbers<float>(action, "action", {T, B, K}) : nullptr,
            numbers<float>(log_prob, "log_prob", {T, B}),
            numbers<float>(value, "value", {T, B}),
            numbers<float>(next_value, "next_value", {T, B}),
            numbers<float>(reward, "reward", {T, B}),
            numbers<std::uint8_t>(terminated, "terminated", {T, B}),
            numbers<std::uint8_t>(truncated, "truncated", {T, B}),
            numbers<std::int32_t>(final_index, "final_index", {T, B}),
            numbers<float>(final_obs, "final_obs", {T * B, D}),
            numbers<double>(episode_return, "episode_return", {T, B}),
            numbers<std::int64_t>(episode_length, "episode_length", {T, B}),
            numbers<double>(drawn, "drawn", {T, B, num_info}),
            memory};
  }
};

}  // namespace shoal
