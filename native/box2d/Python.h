// Box2D's b2Settings.h includes Python.h to report failed assertions. Nothing here may know Python: an assertion that
// fails ends the process, and lander_world.hpp keeps its callers from failing any.
#pragma once

#define PyExc_AssertionError 0
#define PyErr_SetString(kind, message) ((void)0)
