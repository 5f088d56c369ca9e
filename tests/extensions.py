"""Capsules as packages of C++ environments have them, of native/core/extension.hpp, with no environment."""

import ctypes
from typing import Any


class Extension(ctypes.Structure):
    """shoal::Extension."""

    _fields_ = (("stamp", ctypes.c_char_p), ("entries", ctypes.c_void_p), ("num_entries", ctypes.c_size_t))


KEPT: list[Extension] = []


def capsule(stamp: str) -> Any:
    """A capsule with this stamp."""
    ctypes.pythonapi.PyCapsule_New.restype = ctypes.py_object
    KEPT.append(Extension(stamp.encode(), None, 0))
    return ctypes.pythonapi.PyCapsule_New(ctypes.byref(KEPT[-1]), b"shoal.environments", None)
