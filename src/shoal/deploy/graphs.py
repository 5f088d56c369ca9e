"""Graphs: a policy as ONNX, TorchScript or torch's own exported program, checked against the policy itself."""

from __future__ import annotations

import importlib
import importlib.util
import io
import logging
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from torch import Tensor

    from shoal.deploy.greedy import Greedy
    from shoal.types import Spec

    Runs = Callable[[Sequence[Tensor]], Sequence[Any]]

CHECKED = 256
"""Observations, drawn from their space, on which a graph is compared with the policy."""
TOLERANCE = 1e-4
"""By how much numbers may differ, of themselves or of 1."""
EXAMPLES = 3
"""Rows of the inputs that a graph is made of."""


def onnx_file(greedy: Greedy, spec: Spec) -> bytes:
    """An ONNX model whose inputs and outputs have any number of rows.

    Args:
        greedy: of the policy.
        spec: of the environment.

    Raises:
        ConfigError: onnx or onnxscript is missing, torch cannot export the policy, or the graph acts differently.
    """
    _check_installed("onnx", "onnxscript", "onnxruntime")
    with _quietly(), _named(spec, "ONNX"):
        program = torch.onnx.export(
            greedy,
            greedy.examples(spec, EXAMPLES),
            dynamo=True,
            dynamic_shapes=_any_rows(greedy),
            input_names=[port.name for port in greedy.inputs],
            output_names=[port.name for port in greedy.outputs],
            verbose=False,
        )
    assert program is not None
    data: bytes = program.model_proto.SerializeToString()
    runtime: Any = importlib.import_module("onnxruntime")
    session = runtime.InferenceSession(data, providers=["CPUExecutionProvider"])

    def run(given: Sequence[Tensor]) -> Sequence[Any]:
        names = [port.name for port in greedy.inputs]
        pairs = zip(names, given, strict=True)
        return session.run(None, {name: value.numpy() for name, value in pairs})

    _compare(greedy, spec, run)
    return data


def torchscript_file(greedy: Greedy, spec: Spec) -> bytes:
    """A traced module that `torch.jit.load` reads, in C++ too; torch 2.13 has deprecated the format.

    Raises:
        ConfigError: torch cannot trace the policy, or the traced one acts differently.
    """
    buffer = io.BytesIO()
    with _quietly(), _named(spec, "TorchScript"), torch.no_grad():
        examples = greedy.examples(spec, EXAMPLES)
        traced: Any = torch.jit.trace(greedy, examples, check_trace=False)
        torch.jit.save(traced, buffer)
        _compare(greedy, spec, _called(traced))
    return buffer.getvalue()


def torch_export_file(greedy: Greedy, spec: Spec) -> bytes:
    """A program that `torch.export.load` reads, and that torch's compiler makes a library of.

    Raises:
        ConfigError: torch cannot export the policy, or the program acts differently.
    """
    buffer = io.BytesIO()
    with _quietly(), _named(spec, "an exported program"):
        program = torch.export.export(
            greedy,
            greedy.examples(spec, EXAMPLES),
            dynamic_shapes=_any_rows(greedy),
        )
        torch.export.save(program, buffer)
    module = program.module()
    _compare(greedy, spec, _called(module))
    return buffer.getvalue()


def _called(module: Any) -> Runs:
    """A module as a function of all its inputs."""

    def run(given: Sequence[Tensor]) -> Sequence[Any]:
        return module(*given)

    return run


def _any_rows(greedy: Greedy) -> tuple[tuple[dict[int, Any], ...]]:
    """What torch is told of the shapes: the first axis of every input is the number of rows."""
    rows = torch.export.Dim("batch", min=1)
    return (tuple({0: rows} for _ in greedy.inputs),)


def _compare(greedy: Greedy, spec: Spec, run: Runs) -> None:
    """ConfigError unless a graph gives what the policy gives, for another number of rows than it was made with."""
    given = greedy.examples(spec, CHECKED, seed=1)
    with torch.no_grad():
        ours = greedy(*given)
        with _named(spec, "a graph for any number of rows"):
            theirs = run(given)
    for port, own, made in zip(greedy.outputs, ours, theirs, strict=True):
        other = np.asarray(made)
        same = tuple(own.shape) == other.shape
        if not same or not np.allclose(own.numpy(), other, TOLERANCE, TOLERANCE):
            raise ConfigError(
                f"{spec.env_id}: the exported graph gives another {port.name} than the policy; a module whose control "
                "flow depends on values or on the number of rows cannot be exported"
            )


def _check_installed(*names: str) -> None:
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"this export needs {' and '.join(missing)}: pip install 'shoal-rl[export]'"
        )


@contextmanager
def _quietly() -> Generator[None]:
    """Without torch's words about its own exporters."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


@contextmanager
def _named(spec: Spec, kind: str) -> Generator[None]:
    """What torch raises while it exports, as a sentence with its reason below."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(
            f"{spec.env_id}: torch cannot make {kind} of this policy ({type(error).__name__}: "
            f"{str(error).strip().splitlines()[0][:300] if str(error).strip() else 'no reason given'}); modules must "
            "be made of torch's operations on tensors"
        ) from error
