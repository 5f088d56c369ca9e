"""Learning: who owns the weights, how policies act, and their lowering to native code."""
