// Box2D's timer without a clock: its profile is read by nobody, and the clock is asked nine times a step.
#include <Box2D/Common/b2Timer.h>

b2Timer::b2Timer() = default;

void b2Timer::Reset() {}

float32 b2Timer::GetMilliseconds() const { return 0; }
