"""Export: a trained policy as a folder of files that run without this library."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import shoal
from shoal.deploy.c.files import FLAGS, c_files
from shoal.deploy.c.names import check_prefix
from shoal.deploy.description import Provenance, document, limits_inside, sha256_of
from shoal.deploy.greedy import Greedy
from shoal.deploy.lowering import program_of
from shoal.envs.masks import masks_beside
from shoal.types import ConfigError
from shoal.types.arguments import flag_of, path_of, string_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from shoal.deploy.greedy import Port
    from shoal.envs.action_guard.limits import Limits
    from shoal.types import Spec

    Contents: TypeAlias = Mapping[str, bytes]

Kind: TypeAlias = Literal["c", "onnx", "torchscript", "torch-export"]
KINDS: tuple[Kind, ...] = ("c", "onnx", "torchscript", "torch-export")
SUFFIXES = {"onnx": ".onnx", "torchscript": ".ts", "torch-export": ".pt2"}
SPEC_FILE = "spec.json"


@dataclass(frozen=True, slots=True)
class Exported:
    """What `export` wrote."""

    folder: Path
    kind: str
    files: tuple[str, ...]
    spec_sha256: str


def export(
    policy: nn.Module,
    spec: Spec,
    folder: str | Path,
    *,
    to: Kind,
    provenance: Provenance | None = None,
    name: str = "policy",
    masks: bool | None = None,
) -> Exported:
    """Writes a policy as files, and spec.json beside them; the folder appears when all of it is there.

    Args:
        policy: in the signature of policies.
        spec: of the environment it was trained in.
        folder: which must not be there yet.
        to: `c` for C99 source without dependencies, `onnx`, `torchscript`, or `torch-export`.
        provenance: which run it is of.
        name: begins the names of files, and in C of functions and types.
        masks: whether a graph reads an action mask beside the observation; None: where the environment has one there.
            C takes it in any case. Masks in the observation hold everywhere.

    Raises:
        ConfigError: the folder is there, the kind is unknown, a package is missing, or C source of a module that is not
            shoal's own.
    """
    if to not in KINDS:
        raise ConfigError(f"to must be one of {', '.join(KINDS)}, got {to!r}")
    target = path_of("folder", folder)
    name = string_of("name", name)
    if masks is not None:
        masks = flag_of("masks", masks)
    if target.exists() or target.is_symlink():
        raise ConfigError(f"{target} is there already; name another folder")
    check_prefix(name)
    provenance = provenance or Provenance()
    limits = limits_inside(spec, provenance.action_guard)
    if to == "c":
        if masks is not None:
            raise ConfigError(
                "masks is of graphs; functions in C take a mask or NULL: leave masks out"
            )
        contents, calls = _source(policy, spec, name, limits)
    else:
        own = masks_beside(spec)
        reads = own if masks is None else masks
        shown = Greedy(policy, spec, masks=reads, limits=limits)
        contents, calls = _graph(shown, spec, to, name)
    hashes = {file: hashlib.sha256(data).hexdigest() for file, data in contents.items()}
    said = document(
        spec,
        kind=to,
        version=shoal.__version__,
        provenance=provenance,
        calls=calls,
        files=hashes,
    )
    _write(target, {**contents, SPEC_FILE: said.encode()})
    return Exported(target, to, (*contents, SPEC_FILE), sha256_of(spec))


def _graph(
    greedy: Greedy, spec: Spec, to: Kind, name: str
) -> tuple[Contents, Mapping[str, object]]:
    """The one file of a graph, and its inputs and outputs."""
    from shoal.deploy import graphs

    make = {
        "onnx": graphs.onnx_file,
        "torchscript": graphs.torchscript_file,
        "torch-export": graphs.torch_export_file,
    }[to]
    data = make(greedy, spec)
    calls: dict[str, object] = {
        "inputs": [_port(port) for port in greedy.inputs],
        "outputs": [_port(port) for port in greedy.outputs],
        "rows": "any number, along a new first axis",
        "state": "zeros where an episode begins; then what the step before gave as next_NAME",
    }
    return {f"{name}{SUFFIXES[to]}": data}, calls


def _port(port: Port) -> dict[str, object]:
    return {"name": port.name, "dtype": str(port.dtype), "shape": list(port.shape)}


def _source(
    policy: nn.Module, spec: Spec, name: str, limits: Limits | None
) -> tuple[Contents, Mapping[str, object]]:
    """The files of C source, and how what they hold is called."""
    program = program_of(policy, spec, limits)
    texts = c_files(program, spec, prefix=name, sha256=sha256_of(spec))
    calls: dict[str, object] = {
        "compile": f"cc {FLAGS} -c {name}.c",
        "header": f"{name}.h",
        "options": program.options,
        "noise": {"uniform": program.uniforms, "normal": program.normals},
    }
    state: dict[str, list[object]] = {}
    if program.memory is not None:
        units = program.memory.units
        state |= {array: ["float", units] for array in program.memory.arrays}
    if program.changes_slowly:
        state |= {"previous": ["double", program.numbers], "begun": ["int32_t", 1]}
    calls["state"] = state
    return {file: text.encode() for file, text in texts.items()}, calls


def _write(target: Path, contents: Contents) -> None:
    """Writes a folder under another name, and gives it its own when it is whole."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    except OSError as error:
        raise ConfigError(
            f"{target} cannot be made: {error.strerror}; name a folder where you may write"
        ) from error
    try:
        for file, data in contents.items():
            (draft / file).write_bytes(data)
        draft.chmod(0o755)
        draft.rename(target)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
