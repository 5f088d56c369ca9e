"""The ground: frozen records that every package speaks, the packed layout behind them, and errors."""

from shoal.types.answers import Answers
from shoal.types.calls import misfit
from shoal.types.errors import (
    ConfigError,
    EnvError,
    check_finite,
    check_given,
    check_least,
    check_positive,
    check_ranges,
    check_room,
    check_seed,
    text_of,
)
from shoal.types.leaving import RAISED, refuse_end, refuse_leaving
from shoal.types.records import (
    Acted,
    ActedStep,
    Bools,
    Episodes,
    Floats,
    Ready,
    Sequences,
    Steps,
    Transitions,
)
from shoal.types.spec import (
    ALIGNMENT,
    ARRAYS,
    Layout,
    Leaf,
    Spec,
    choices,
    is_text,
    leaf_spaces,
)
from shoal.types.trees import Tree, assign, map_tree, select

__all__ = [
    "ALIGNMENT",
    "ARRAYS",
    "Acted",
    "ActedStep",
    "Answers",
    "Bools",
    "ConfigError",
    "EnvError",
    "Episodes",
    "Floats",
    "RAISED",
    "Layout",
    "Leaf",
    "Ready",
    "Sequences",
    "Spec",
    "Steps",
    "Transitions",
    "Tree",
    "assign",
    "check_finite",
    "check_given",
    "check_least",
    "check_positive",
    "check_ranges",
    "check_room",
    "check_seed",
    "choices",
    "is_text",
    "leaf_spaces",
    "map_tree",
    "misfit",
    "refuse_end",
    "refuse_leaving",
    "select",
    "text_of",
]
