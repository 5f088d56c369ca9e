// How the iterations are saved. A step asks for 180; after ten or twenty the velocities mostly repeat themselves, often
// with a period of two or three because of rounding. What still changes then are sums of impulses that nothing reads
// before the next step: they are added up without the rest. All arithmetic is Box2D's, in its order, so that every bit
// is; what does not change between iterations is computed once.
#include "box2d/settle.hpp"

#include <array>
#include <cstring>

#include <Box2D/Box2D.h>
#include <Box2D/Dynamics/Contacts/b2ContactSolver.h>
#include <Box2D/Dynamics/b2TimeStep.h>

namespace shoal {
namespace {

/// The protected members that the solver works on.
struct Open : b2RevoluteJoint {
  static constexpr auto impulse = &Open::m_impulse;
  static constexpr auto motor_impulse = &Open::m_motorImpulse;
  static constexpr auto max_torque = &Open::m_maxMotorTorque;
  static constexpr auto motor_speed = &Open::m_motorSpeed;
  static constexpr auto motor_mass = &Open::m_motorMass;
  static constexpr auto index_a = &Open::m_indexA;
  static constexpr auto index_b = &Open::m_indexB;
  static constexpr auto arm_a = &Open::m_rA;
  static constexpr auto arm_b = &Open::m_rB;
  static constexpr auto inverse_mass_a = &Open::m_invMassA;
  static constexpr auto inverse_mass_b = &Open::m_invMassB;
  static constexpr auto inverse_inertia_a = &Open::m_invIA;
  static constexpr auto inverse_inertia_b = &Open::m_invIB;
  static constexpr auto mass = &Open::m_mass;
  static constexpr auto limit = &Open::m_limitState;
};

enum class Limit { free, lower, upper };

/// What an iteration adds to a leg's sums of impulses. `dropped`: it took the limit's impulse back instead.
struct Added {
  float x, y, z;
  bool dropped;
};

/// One leg's joint: constants of the step, and the sums of its impulses.
struct Leg {
  float mass_a, mass_b, inertia_a, inertia_b;  ///< inverse
  b2Vec2 arm_a, arm_b;
  b2Mat33 mass;
  b2Vec3 mass_cross;  ///< of the second and third column
  float inverse_det, inverse_det22;
  float motor_mass, motor_speed, motor_most;
  Limit limit;
  b2Vec3 sum;

  void read(const b2RevoluteJoint& joint, float seconds) {
    mass_a = joint.*Open::inverse_mass_a;
    mass_b = joint.*Open::inverse_mass_b;
    inertia_a = joint.*Open::inverse_inertia_a;
    inertia_b = joint.*Open::inverse_inertia_b;
    arm_a = joint.*Open::arm_a;
    arm_b = joint.*Open::arm_b;
    mass = joint.*Open::mass;
    mass_cross = b2Cross(mass.ey, mass.ez);
    inverse_det = inverse(b2Dot(mass.ex, mass_cross));
    inverse_det22 = inverse(mass.ex.x * mass.ey.y - mass.ey.x * mass.ex.y);
    motor_mass = joint.*Open::motor_mass;
    motor_speed = joint.*Open::motor_speed;
    motor_most = seconds * (joint.*Open::max_torque);
    const b2LimitState state = joint.*Open::limit;
    limit = state == e_atLowerLimit ? Limit::lower : (state == e_atUpperLimit ? Limit::upper : Limit::free);
    sum = joint.*Open::impulse;
  }

  static float inverse(float det) { return det != 0.0F ? 1.0F / det : det; }

  b2Vec2 solve22(const b2Vec2& b) const {
    return {inverse_det22 * (mass.ey.y * b.x - mass.ey.x * b.y), inverse_det22 * (mass.ex.x * b.y - mass.ex.y * b.x)};
  }

  /// Whether the limit would pull instead of push.
  bool beyond(float z) const { return limit == Limit::lower ? z < 0.0F : z > 0.0F; }

  Added step(b2Velocity& a, b2Velocity& b, float& motor) {
    const float push = -motor_mass * (b.w - a.w - motor_speed);
    const float before = motor;
    motor = b2Clamp(motor + push, -motor_most, motor_most);
    const float turn = motor - before;
    a.w -= inertia_a * turn;
    b.w += inertia_b * turn;

    const b2Vec2 slip = b.v + b2Cross(b.w, arm_b) - a.v - b2Cross(a.w, arm_a);
    if (limit == Limit::free) {
      const b2Vec2 impulse = solve22(-slip);
      sum.x += impulse.x;
      sum.y += impulse.y;
      a.v -= mass_a * impulse;
      a.w -= inertia_a * b2Cross(arm_a, impulse);
      b.v += mass_b * impulse;
      b.w += inertia_b * b2Cross(arm_b, impulse);
      return {impulse.x, impulse.y, 0.0F, false};
    }
    const b2Vec3 error(slip.x, slip.y, b.w - a.w);
    b2Vec3 impulse(-(inverse_det * b2Dot(error, mass_cross)), -(inverse_det * b2Dot(mass.ex, b2Cross(error, mass.ez))),
                   -(inverse_det * b2Dot(mass.ex, b2Cross(mass.ey, error))));
    const bool dropped = beyond(sum.z + impulse.z);
    if (dropped) {
      const b2Vec2 rest = solve22(-slip + sum.z * b2Vec2(mass.ez.x, mass.ez.y));
      impulse.Set(rest.x, rest.y, -sum.z);
      sum.x += rest.x;
      sum.y += rest.y;
      sum.z = 0.0F;
    } else {
      sum += impulse;
    }
    const b2Vec2 flat(impulse.x, impulse.y);
    a.v -= mass_a * flat;
    a.w -= inertia_a * (b2Cross(arm_a, flat) + impulse.z);
    b.v += mass_b * flat;
    b.w += inertia_b * (b2Cross(arm_b, flat) + impulse.z);
    return {impulse.x, impulse.y, impulse.z, dropped};
  }

  /// Adds to `total` what an iteration with the same velocities would add; false where it would do something else.
  bool add(const Added& more, b2Vec3& total) const {
    if (more.dropped) {
      if (more.z != 0.0F || total.z != 0.0F) {
        return false;
      }
    } else if (limit != Limit::free) {
      total.z += more.z;
      if (beyond(total.z)) {
        return false;
      }
    }
    total.x += more.x;
    total.y += more.y;
    return true;
  }
};

/// All that an iteration reads and writes but the legs' sums.
struct Moving {
  b2Velocity body;
  std::array<b2Velocity, 2> leg;
  std::array<float, 2> motor;
};

/// The contacts' impulses, which iterations read too.
class ContactSums {
 public:
  static constexpr int most = 16;
  explicit ContactSums(const b2ContactSolver& contacts) {
    for (int i = 0; i < contacts.m_count; ++i) {
      size_ += 2 * contacts.m_velocityConstraints[i].pointCount;
    }
    if (fits()) {
      copy(contacts);
    }
  }
  [[nodiscard]] bool fits() const { return size_ <= most; }
  void copy(const b2ContactSolver& contacts) {
    std::size_t at = 0;
    each(contacts, [&](float& value) { values_[at++] = value; });
  }
  [[nodiscard]] bool equal(const b2ContactSolver& contacts) const {
    std::size_t at = 0;
    bool same = true;
    each(contacts, [&](float& value) { same = same && std::memcmp(&value, &values_[at++], sizeof(value)) == 0; });
    return same;
  }

 private:
  template <class F>
  static void each(const b2ContactSolver& contacts, F&& use) {
    for (int i = 0; i < contacts.m_count; ++i) {
      b2ContactVelocityConstraint& contact = contacts.m_velocityConstraints[i];
      for (int j = 0; j < contact.pointCount; ++j) {
        use(contact.points[j].normalImpulse);
        use(contact.points[j].tangentImpulse);
      }
    }
  }
  int size_ = 0;
  std::array<float, most> values_;
};

class Settling {
 public:
  static constexpr int longest_period = 16;

  Settling(b2RevoluteJoint& first, b2RevoluteJoint& second, b2ContactSolver& contacts, const b2SolverData& data)
      : joints_{&first, &second}, contacts_(contacts), data_(data), sums_(contacts) {
    for (std::size_t i = 0; i < 2; ++i) {
      legs_[i].read(*joints_[i], data.step.dt);
      now_.leg[i] = at(joints_[i]->*Open::index_b);
      now_.motor[i] = joints_[i]->*Open::motor_impulse;
    }
    now_.body = at(first.*Open::index_a);
  }

  void run() {
    const int wanted = data_.step.velocityIterations;
    Moving mark = now_;
    int marked = 0;
    int next_mark = 4;
    for (int done = 0; done < wanted;) {
      iterate();
      ++done;
      if (!sums_.fits()) {
        continue;
      }
      if (same(mark)) {
        const int period = done - marked;
        if (period <= longest_period && done + period < wanted) {
          done = repeat(period, done, wanted);
        }
        next_mark = done;
      }
      if (done >= next_mark) {
        mark = now_;
        sums_.copy(contacts_);
        marked = done;
        next_mark = 2 * done;
      }
    }
    finish();
  }

 private:
  b2Velocity& at(int index) const { return data_.velocities[index]; }

  std::array<Added, 2> iterate() {
    const std::array<Added, 2> added{legs_[0].step(now_.body, now_.leg[0], now_.motor[0]),
                                     legs_[1].step(now_.body, now_.leg[1], now_.motor[1])};
    if (contacts_.m_count > 0) {
      write();
      contacts_.SolveVelocityConstraints();
      now_.body = at(joints_[0]->*Open::index_a);
      now_.leg[0] = at(joints_[0]->*Open::index_b);
      now_.leg[1] = at(joints_[1]->*Open::index_b);
    }
    return added;
  }

  bool same(const Moving& mark) const {
    return std::memcmp(&now_.leg[0], &mark.leg[0], sizeof(b2Velocity)) == 0 &&
           std::memcmp(&now_, &mark, sizeof(mark)) == 0 && sums_.equal(contacts_);
  }

  /// The state repeats itself after `period` iterations: goes through them once more, noting what each adds to the
  /// sums, and then only adds, a period at a time. Returns the iterations done.
  int repeat(int period, int done, int wanted) {
    std::array<std::array<Added, 2>, longest_period> added;
    const auto size = static_cast<std::size_t>(period);
    for (std::size_t i = 0; i < size; ++i) {
      added[i] = iterate();
    }
    done += period;
    for (; done + period <= wanted; done += period) {
      std::array<b2Vec3, 2> sums{legs_[0].sum, legs_[1].sum};
      for (std::size_t i = 0; i < size; ++i) {
        if (!legs_[0].add(added[i][0], sums[0]) || !legs_[1].add(added[i][1], sums[1])) {
          return done;
        }
      }
      legs_[0].sum = sums[0];
      legs_[1].sum = sums[1];
    }
    return done;
  }

  void write() {
    at(joints_[0]->*Open::index_a) = now_.body;
    at(joints_[0]->*Open::index_b) = now_.leg[0];
    at(joints_[1]->*Open::index_b) = now_.leg[1];
  }

  void finish() {
    write();
    for (std::size_t i = 0; i < 2; ++i) {
      joints_[i]->*Open::impulse = legs_[i].sum;
      joints_[i]->*Open::motor_impulse = now_.motor[i];
    }
  }

  std::array<b2RevoluteJoint*, 2> joints_;
  std::array<Leg, 2> legs_;
  b2ContactSolver& contacts_;
  const b2SolverData& data_;
  Moving now_;
  ContactSums sums_;  ///< at the mark
};

}  // namespace

int settle(b2Joint** joints, int num_joints, b2ContactSolver& contacts, const b2SolverData& data) {
  if (num_joints != 2 || joints[0]->GetType() != e_revoluteJoint || joints[1]->GetType() != e_revoluteJoint ||
      joints[0]->GetBodyA() != joints[1]->GetBodyA()) {
    return 0;
  }
  auto& first = *static_cast<b2RevoluteJoint*>(joints[0]);
  auto& second = *static_cast<b2RevoluteJoint*>(joints[1]);
  Settling(first, second, contacts, data).run();
  return data.step.velocityIterations;
}

}  // namespace shoal
