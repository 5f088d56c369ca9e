#include "box2d/lander_world.hpp"

#include <Box2D/Box2D.h>

namespace shoal {
namespace {

constexpr uint16 lander_category = 0x0010;
constexpr uint16 leg_category = 0x0020;
constexpr uint16 ground_category = 0x0001;

/// Box2D counts in float32; all that Gymnasium hands it is rounded here.
b2Vec2 rounded(double x, double y) { return {static_cast<float>(x), static_cast<float>(y)}; }
b2Vec2 rounded(Vec v) { return rounded(v.x, v.y); }

b2PolygonShape hull() {
  constexpr std::array<std::array<double, 2>, 6> corners{
      {{-14, +17}, {-17, 0}, {-17, -10}, {+17, -10}, {+17, 0}, {+14, +17}}};
  std::array<b2Vec2, corners.size()> points;
  for (std::size_t i = 0; i < corners.size(); ++i) {
    points[i] = rounded(corners[i][0] / LanderShape::scale, corners[i][1] / LanderShape::scale);
  }
  b2PolygonShape shape;
  shape.Set(points.data(), static_cast<int32>(points.size()));
  return shape;
}

b2Body* add_body(b2World& world, double x, double y, double angle, const b2PolygonShape& shape, float density,
                 uint16 category, float friction) {
  b2BodyDef body;
  body.type = b2_dynamicBody;
  body.position = rounded(x, y);
  body.angle = static_cast<float>(angle);
  b2FixtureDef fixture;
  fixture.shape = &shape;
  fixture.density = density;
  fixture.friction = friction;
  fixture.filter.categoryBits = category;
  fixture.filter.maskBits = ground_category;
  b2Body* made = world.CreateBody(&body);
  made->CreateFixture(&fixture);
  return made;
}

/// Box2D fills its tables at the first allocation and the first contact. Threads that step worlds must find them full.
bool fill_tables() {
  b2World world(rounded(0, 0));
  b2PolygonShape box;
  box.SetAsBox(1, 1);
  add_body(world, 0, 0, 0, box, 1.0F, ground_category, 0.2F);
  add_body(world, 0, 0, 0, box, 1.0F, ground_category, 0.2F);
  world.Step(static_cast<float>(1.0 / 50), 1, 1);
  return world.GetContactCount() > 0;
}

}  // namespace

struct LanderWorld::Parts final : b2ContactListener {
  b2World world;
  b2Body* lander = nullptr;
  std::array<b2Body*, 2> legs{};
  std::array<bool, 2> touches{};
  bool crashed = false;

  explicit Parts(double gravity) : world(rounded(0, gravity)) { world.SetContactListener(this); }

  void BeginContact(b2Contact* contact) override {
    crashed = crashed || concerns(contact, lander);
    for (std::size_t i = 0; i < legs.size(); ++i) {
      touches[i] = touches[i] || concerns(contact, legs[i]);
    }
  }

  void EndContact(b2Contact* contact) override {
    for (std::size_t i = 0; i < legs.size(); ++i) {
      touches[i] = touches[i] && !concerns(contact, legs[i]);
    }
  }

  void add_ground(const std::array<double, num_ground_points>& heights) {
    const b2BodyDef definition;
    b2Body* ground = world.CreateBody(&definition);
    b2EdgeShape edge;
    b2FixtureDef fixture;
    fixture.shape = &edge;
    edge.Set(rounded(0, 0), rounded(LanderShape::width, 0));
    ground->CreateFixture(&fixture);
    fixture.friction = 0.1F;
    const auto place = [](std::size_t i) {
      return LanderShape::width / (num_ground_points - 1) * static_cast<double>(i);
    };
    for (std::size_t i = 0; i + 1 < heights.size(); ++i) {
      edge.Set(rounded(place(i), heights[i]), rounded(place(i + 1), heights[i + 1]));
      ground->CreateFixture(&fixture);
    }
  }

  /// `side`: -1 or 1.
  b2Body* add_leg(double x, double y, int side) {
    constexpr double scale = LanderShape::scale;
    b2PolygonShape shape;
    shape.SetAsBox(static_cast<float>(2 / scale), static_cast<float>(8 / scale));
    b2Body* leg =
        add_body(world, x - side * LanderShape::leg_away / scale, y, side * 0.05, shape, 1.0F, leg_category, 0.2F);
    b2RevoluteJointDef joint;
    joint.bodyA = lander;
    joint.bodyB = leg;
    joint.localAnchorA = rounded(0, 0);
    joint.localAnchorB = rounded(side * LanderShape::leg_away / scale, LanderShape::leg_down / scale);
    joint.referenceAngle = leg->GetAngle() - lander->GetAngle();
    joint.enableMotor = true;
    joint.enableLimit = true;
    joint.maxMotorTorque = 40;
    joint.motorSpeed = static_cast<float>(0.3 * side);
    joint.lowerAngle = static_cast<float>(side < 0 ? 0.9 - 0.5 : -0.9);
    joint.upperAngle = static_cast<float>(side < 0 ? 0.9 : -0.9 + 0.5);
    world.CreateJoint(&joint);
    return leg;
  }

  static bool concerns(b2Contact* contact, const b2Body* body) {
    return contact->GetFixtureA()->GetBody() == body || contact->GetFixtureB()->GetBody() == body;
  }
};

LanderWorld::LanderWorld(double gravity, const std::array<double, num_ground_points>& ground, Vec push)
    : parts_(std::make_unique<Parts>(gravity)) {
  [[maybe_unused]] static const bool filled = fill_tables();
  constexpr double x = LanderShape::width / 2;
  constexpr double y = LanderShape::height;
  Parts& parts = *parts_;
  parts.add_ground(ground);
  parts.lander = add_body(parts.world, x, y, 0, hull(), 5.0F, lander_category, 0.1F);
  parts.lander->ApplyForceToCenter(rounded(push), true);
  parts.legs = {parts.add_leg(x, y, -1), parts.add_leg(x, y, 1)};
}

LanderWorld::~LanderWorld() = default;
LanderWorld::LanderWorld(LanderWorld&&) noexcept = default;
LanderWorld& LanderWorld::operator=(LanderWorld&&) noexcept = default;

void LanderWorld::blow(double force, double torque) noexcept {
  parts_->lander->ApplyForceToCenter(rounded(force, 0), true);
  parts_->lander->ApplyTorque(static_cast<float>(torque), true);
}

void LanderWorld::kick(Vec impulse, Vec place) noexcept {
  parts_->lander->ApplyLinearImpulse(rounded(impulse), rounded(place), true);
}

void LanderWorld::step() noexcept { parts_->world.Step(static_cast<float>(1.0 / 50), 180, 60); }

Vec LanderWorld::position() const noexcept {
  const b2Vec2& at = parts_->lander->GetPosition();
  return {at.x, at.y};
}
Vec LanderWorld::velocity() const noexcept {
  const b2Vec2& at = parts_->lander->GetLinearVelocity();
  return {at.x, at.y};
}
double LanderWorld::angle() const noexcept { return parts_->lander->GetAngle(); }
double LanderWorld::spin() const noexcept { return parts_->lander->GetAngularVelocity(); }
bool LanderWorld::leg_touches(int leg) const noexcept { return parts_->touches[static_cast<std::size_t>(leg)]; }
bool LanderWorld::crashed() const noexcept { return parts_->crashed; }
bool LanderWorld::at_rest() const noexcept { return !parts_->lander->IsAwake(); }

}  // namespace shoal
