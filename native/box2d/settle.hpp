// The velocity iterations of Box2D for a body on two motorised legs, with Box2D's bits in a fraction of its time.
#pragma once

class b2ContactSolver;
class b2Joint;
struct b2SolverData;

namespace shoal {

/// Does all velocity iterations of an island and returns how many that were: all, or 0 where its joints are not two
/// revolute ones on one body, and nothing was done.
int settle(b2Joint** joints, int num_joints, b2ContactSolver& contacts, const b2SolverData& data);

}  // namespace shoal
