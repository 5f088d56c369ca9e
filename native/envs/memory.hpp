// shoal/Memory-v0: a probe of memory: a cue is shown once, nothing for some steps, and then it is asked for.
//
// The episode's first observation shows one of four cues. `delay` observations follow that show nothing. The last one
// asks: the action there is the answer, worth a point if it names the cue. All other actions do nothing. Without memory
// one answer in four is right.
#pragma once

#include "core/env.hpp"
#include "math/splitmix.hpp"

namespace shoal {

struct Memory {
  static constexpr int cues = 4;

  static constexpr std::string_view id = "shoal/Memory-v0";
  static constexpr Box<cues + 1> observation_space = Box<cues + 1>::between(0, 1);  // the cue, and whether it asks
  static constexpr Discrete action_space{cues};
  static constexpr int max_episode_steps = 0;
  static constexpr std::optional<double> reward_threshold = 0.9;
  static constexpr Frame frame{32, 80};

  struct Params {
    double delay = 8;
    static constexpr auto fields() { return std::array{Field{"delay", &Params::delay, 0, 10'000, true}}; }
  };

  int cue, passed, delay;

  void reset(const Params& params, Pcg64& rng) noexcept {
    cue = SplitMix64{rng.next_u64()}.below(cues);
    passed = 0;
    delay = static_cast<int>(params.delay);
  }

  Outcome step(const Params& /*params*/, std::int64_t action) noexcept {
    if (!asks()) {
      ++passed;
      return {0, false};
    }
    return {action == cue ? 1.0 : 0.0, true};
  }

  void observe(std::span<float, cues + 1> obs) const noexcept {
    for (int i = 0; i < cues; ++i) {
      obs[static_cast<std::size_t>(i)] = passed == 0 && i == cue ? 1.0F : 0.0F;
    }
    obs[cues] = asks() ? 1.0F : 0.0F;
  }

  [[nodiscard]] bool valid(const Params& params) const noexcept {
    return cue >= 0 && cue < cues && delay == static_cast<int>(params.delay) && passed >= 0 && passed <= delay + 1;
  }

  void render(const Params& /*params*/, std::span<std::uint8_t> rgb) const noexcept {
    constexpr Color paints[cues] = {colors::red, colors::yellow, colors::green, colors::blue};
    Canvas canvas(frame, rgb, colors::night);
    for (int i = 0; i < cues; ++i) {
      const bool shown = asks() || (passed == 0 && i == cue);
      canvas.box(0.2 * i + 0.02, 0.1, 0.2 * i + 0.18, 0.9, shown ? paints[i] : colors::slate);
    }
    canvas.box(0.82, 0.1, 0.98, 0.9, asks() ? colors::chalk : colors::slate);
  }

 private:
  [[nodiscard]] bool asks() const noexcept { return passed == delay + 1; }
};

}  // namespace shoal
