// The physics of LunarLander: a lander on two legs over an uneven ground, in Box2D, which stays behind this header.
#pragma once

#include <array>
#include <memory>

namespace shoal {

/// Lengths in pixels of Gymnasium's picture; `scale` of them are a metre.
struct LanderShape {
  static constexpr double scale = 30;
  static constexpr double width = 600 / scale;   ///< of the picture, metres
  static constexpr double height = 400 / scale;  ///< of the picture, metres
  static constexpr double leg_away = 20;
  static constexpr double leg_down = 18;
};

struct Vec {
  double x, y;
};

class LanderWorld {
 public:
  static constexpr std::size_t num_ground_points = 11;

  /// The lander in the middle of the upper edge, above the ground that joins points at equal distances.
  /// `gravity` in m/s2, downwards below zero; `ground` heights in metres; `push` in newtons, for the first step.
  LanderWorld(double gravity, const std::array<double, num_ground_points>& ground, Vec push);
  ~LanderWorld();
  LanderWorld(LanderWorld&&) noexcept;
  LanderWorld& operator=(LanderWorld&&) noexcept;

  /// Wind for the next step: a force in newtons and a torque in newton metres.
  void blow(double force, double torque) noexcept;
  /// An engine's blow at a place of the world, in newton seconds.
  void kick(Vec impulse, Vec place) noexcept;
  /// A fiftieth of a second.
  void step() noexcept;

  [[nodiscard]] Vec position() const noexcept;
  [[nodiscard]] Vec velocity() const noexcept;
  [[nodiscard]] double angle() const noexcept;
  [[nodiscard]] double spin() const noexcept;
  /// Leg 0 is the one that Gymnasium makes first.
  [[nodiscard]] bool leg_touches(int leg) const noexcept;
  /// The lander itself has touched the ground.
  [[nodiscard]] bool crashed() const noexcept;
  /// Box2D has put the lander to sleep: it has lain still for half a second.
  [[nodiscard]] bool at_rest() const noexcept;

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

}  // namespace shoal
