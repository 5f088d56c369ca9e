"""The network of a program as three C functions: checks of an observation, its numbers, what is said of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from shoal.deploy.c.chain import chain
from shoal.deploy.names import fields_of
from shoal.deploy.program import Choices, Image, Numbers, out_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shoal.deploy.c.chain import Chain
    from shoal.deploy.c.interface import Interface
    from shoal.deploy.c.weights import WeightBook
    from shoal.deploy.program import Memory, Program, Reading, Standardize


def observed(interface: Interface) -> list[str]:
    """Where each leaf of an observation begins, as C expressions."""
    fields = fields_of(interface.spec.observation)
    return [f"obs->{field}" for field in fields] or ["obs"]


def checks(program: Program, interface: Interface) -> str:
    """`PREFIX_check`: whether an observation can be acted on."""
    prefix = interface.prefix
    lines = [f"if (length != {interface.length_name}) return {prefix.upper()}_LENGTH;"]
    found: list[str] = []
    for reading, at in zip(program.readings, observed(interface), strict=True):
        found += _checks(reading, at, interface)
    lines += found or ["(void)obs; /* any number of its type can be observed */"]
    return function(
        f"{prefix}_status {prefix}_check({interface.obs_argument}, size_t length)",
        [*lines, f"return {prefix.upper()}_OK;"],
    )


def _checks(reading: Reading, at: str, interface: Interface) -> list[str]:
    prefix, leaf = interface.prefix.upper(), reading.leaf
    size = int(np.prod(leaf.shape))
    where = f"{at}[i]" if leaf.shape or at == "obs" else at
    if isinstance(reading, Choices):
        lines: list[str] = []
        pairs = zip(reading.options, reading.first, strict=True)
        for choice, (options, first) in enumerate(pairs):
            value = where.replace("[i]", f"[{choice}]")
            last = first + options - 1
            lines.append(
                f"if ({value} < {first} || {value} > {last}) return {prefix}_RANGE;"
            )
        return lines
    if leaf.dtype.kind != "f":
        return []
    test = f"if (!isfinite((float){where})) return {prefix}_FINITE;"
    if not leaf.shape:
        return [test.replace("[i]", "[0]")]
    return [f"for (int i = 0; i < {size}; i++) {test[:-1]};"]


def encoding(program: Program, interface: Interface, book: WeightBook) -> str:
    """`encode`: an observation as the numbers that the network reads."""
    lines: list[str] = []
    begins = 0
    for reading, at in zip(program.readings, observed(interface), strict=True):
        to = f"x + {begins}" if begins else "x"
        if isinstance(reading, Numbers):
            lines += _numbers(reading, at, to, book)
        elif isinstance(reading, Choices):
            lines += _choices(reading, at, to)
        else:
            lines += _image(reading, at, to, book)
        begins += reading.size
    return function(
        f"static void encode({interface.obs_argument}, float *restrict x)", lines
    )


def _numbers(reading: Numbers, at: str, to: str, book: WeightBook) -> list[str]:
    size = reading.size
    divided = f" / {reading.divisor:.1f}f" if reading.divisor != 1 else ""
    value = f"{at}[i]" if reading.leaf.shape or at == "obs" else at
    place = f"({to})[i]" if " " in to else f"{to}[i]"
    lines = [f"for (int i = 0; i < {size}; i++) {place} = (float){value}{divided};"]
    return lines + _standardized(reading.normalizer, to, size, book)


def _standardized(
    normalizer: Standardize | None, at: str, size: int, book: WeightBook
) -> list[str]:
    if normalizer is None:
        return []
    mean = book.add("mean", normalizer.mean)
    inv_std = book.add("inv_std", normalizer.inv_std)
    return [f"standardize({at}, {size}, {mean}, {inv_std}, {normalizer.clip:.1f}f);"]


def _choices(reading: Choices, at: str, to: str) -> list[str]:
    lines = [f"for (int i = 0; i < {reading.size}; i++) ({to})[i] = 0.0f;"]
    begins = 0
    pairs = zip(reading.options, reading.first, strict=True)
    for choice, (options, first) in enumerate(pairs):
        value = f"{at}[{choice}]" if reading.leaf.shape or at == "obs" else at
        lines.append(f"({to})[{begins} + {value} - {first}] = 1.0f;")
        begins += options
    return lines


def _image(reading: Image, at: str, to: str, book: WeightBook) -> list[str]:
    height, width, channels = reading.sides
    size = height * width * channels
    value = f"(float){at}[{_place(reading)}]"
    if reading.span:
        scale = 255 / reading.span
        value = f"({value} - {reading.low:.8e}f) * {scale:.8e}f"
    ran = chain(reading.layers, "pixels", size, to, book)
    return [
        f"float pixels[{size}];",
        *_scratch([ran]),
        f"for (int h = 0; h < {height}; h++) {{",
        f"  for (int w = 0; w < {width}; w++) {{",
        f"    for (int c = 0; c < {channels}; c++) pixels[(h * {width} + w) * {channels} + c] = {value};",
        "  }",
        "}",
        *_standardized(reading.normalizer, "pixels", size, book),
        *ran.calls,
    ]


def _place(reading: Image) -> str:
    """Where the pixel of a row h, a column w and a channel c stands in the leaf."""
    height, width, channels = reading.sides
    shape = reading.leaf.shape
    if not reading.last:
        return f"(c * {height} + h) * {width} + w"
    colors = shape[-1]
    if len(shape) == 3:
        return f"(h * {width} + w) * {channels} + c"
    return f"((c / {colors} * {height} + h) * {width} + w) * {colors} + c % {colors}"


def deciding(program: Program, interface: Interface, book: WeightBook) -> str:
    """`decide`: from an encoded observation to the numbers of the head, and the next state."""
    size = program.size
    features = out_size(program.body, size)
    chains = [chain(program.body, "x", size, "features", book)]
    calls = list(chains[0].calls) if program.body else []
    at = "features" if program.body else "x"
    declared = [f"float features[{features}];"] if program.body else []
    if program.memory is not None:
        calls += _remember(program.memory, at, features, book)
        features, at = program.memory.units, "state->h"
    outputs = out_size(program.actor, features)
    averaged = program.quantiles > 1
    target = "advantage" if averaged else "number"
    chains.append(chain(program.actor, at, features, target, book))
    calls += chains[-1].calls
    if averaged:
        declared.append(f"float advantage[{outputs}];")
    options = outputs // program.quantiles
    if program.state_value:
        declared.append(f"float value[{program.quantiles}];")
        chains.append(chain(program.state_value, at, features, "value", book))
        calls += chains[-1].calls
        calls.append(f"duel({target}, value, {options}, {program.quantiles});")
    if averaged:
        calls.append(f"average(advantage, {options}, {program.quantiles}, number);")
    state = f"{interface.prefix}_state *restrict state, " if program.memory else ""
    return function(
        f"static void decide(const float *restrict x, {state}float *restrict number)",
        [*declared, *_scratch(chains), *calls],
    )


def _remember(memory: Memory, at: str, features: int, book: WeightBook) -> list[str]:
    units = memory.units
    gates = len(memory.bias_in)
    weight_in = book.add("weight_in", memory.weight_in)
    bias_in = book.add("bias_in", memory.bias_in)
    weight_hidden = book.add("weight_hidden", memory.weight_hidden)
    bias_hidden = book.add("bias_hidden", memory.bias_hidden)
    state = ", ".join(f"state->{name}" for name in memory.arrays)
    return [
        f"float given[{gates}], hidden[{gates}];",
        f"dense({at}, {features}, {weight_in}, {bias_in}, {gates}, given);",
        f"dense(state->h, {units}, {weight_hidden}, {bias_hidden}, {gates}, hidden);",
        f"{memory.kind}({state}, {units}, given, hidden);",
    ]


def _scratch(chains: Sequence[Chain]) -> list[str]:
    """The arrays that calls take turns on, as many numbers as the greatest of them needs."""
    size = max(one.scratch for one in chains)
    names = sorted({name for one in chains for name in one.arrays})
    kept = max(one.kept for one in chains)
    lines: list[str] = []
    if names:
        lines.append(f"float {', '.join(f'{name}[{size}]' for name in names)};")
    if kept:
        lines.append(f"float kept[{kept}];")
    return lines


def function(head: str, lines: list[str]) -> str:
    """A function of C."""
    body = "\n".join(f"  {line}" for line in lines)
    return f"{head} {{\n{body}\n}}\n"
