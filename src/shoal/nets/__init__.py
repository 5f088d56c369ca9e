"""Policies: networks, distributions over actions, acting, and lowering to native code."""
