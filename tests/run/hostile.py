"""Run directories as a stranger or a bad disk could leave them: each is harmless, and names what it stands for.

`python -m tests.run.hostile FOLDER` trains a small run there and makes all of them from it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import shoal
from shoal.deploy.stages.drift import Reference
from shoal.deploy.stages.weights import keep, packed, reference_of
from shoal.run.stage_file import STAGES, Criterion, Entry, Signature, Stages, write_stages
from shoal.run.tensors import buffers_of

if TYPE_CHECKING:
    from collections.abc import Callable

PLANTED = "planted_by_a_stranger"
NAMES = (PLANTED, "tensorboard", "sitecustomize")
"""Modules that a stranger has left in the current folder."""
ESCAPE = "\x1b[31m\x1b]0;owned\x07"
MARKUP = "[bold red]x[/] <script>alert(1)</script> $\\frac{1}{2}$ =1+1"
SOURCE = """
from pathlib import Path
Path(__file__).with_name("it-was-imported").touch()
import gymnasium as gym
def make(**kwargs):
    return gym.make("CartPole-v1")
def train(cfg, env, run): ...
"""
Make = "Callable[[Path], object]"
CASES: dict[str, Callable[[Path], object]] = {}


def train_base(folder: Path) -> Path:
    """A small run that all the others are made from."""
    settings: Any = {"num_envs": 2, "num_steps": 16, "num_minibatches": 1, "update_epochs": 1}
    done = shoal.train(
        "CartPole-v1", run_dir=folder, name="base", total_timesteps=320, stop_at=1.0, panel="none", **settings
    )
    climb(done.path)
    return done.path


def climb(run: Path) -> None:
    """Its policy has passed `simulate` and `replay`, and a shadow has left a log of it."""
    agent = shoal.load(run)
    policy, data = packed(agent.policy)
    keep(run, policy, data)
    seen = np.random.default_rng(0).normal(size=(100, 4))
    Reference.of([f"obs[{at}]" for at in range(4)], seen).write(reference_of(run, policy))
    first = Entry(
        STAGES[0],
        "then",
        policy,
        len(data),
        "simulator",
        criteria=(Criterion("a", 1, 0),),
        signed=Signature("A", "then"),
    )
    write_stages(run, Stages((first, replace(first, stage=STAGES[1], data="b" * 64))))
    shadow = agent.shadow(run / "stages" / "shadow-0.jsonl")
    for step in range(20):
        shadow.observe(np.zeros(4, np.float32), 0, 1.0, done=step % 2 == 1)
    shadow.close()


def plant(folder: Path) -> None:
    """What must not be imported from the current folder, whatever it is called."""
    for name in NAMES:
        (folder / f"{name}.py").write_text(SOURCE)
    (folder / "matplotlibrc").write_text(f"text.usetex: True\nbackend: module://{PLANTED}\n")


def make_all(base: Path, folder: Path, names: list[str] | None = None) -> dict[str, Path]:
    """The directories, by name."""
    made: dict[str, Path] = {}
    for name in names or list(CASES):
        path = folder / name
        shutil.copytree(base, path, symlinks=True)
        CASES[name](path)
        made[name] = path
    return made


def case(name: str, make: Callable[[Path], object]) -> None:
    assert name not in CASES
    CASES[name] = make


# config.toml


def put(run: Path, key: str, value: str) -> None:
    """Sets a setting at the top of the configuration, as TOML writes it."""
    path = run / "config.toml"
    text = re.sub(rf"^{key} = .*\n", "", path.read_text(), flags=re.MULTILINE)
    path.write_text(f"{key} = {value}\n{text}")


def edit(run: Path, old: str, new: str) -> None:
    path = run / "config.toml"
    assert re.search(old, path.read_text()), old
    path.write_text(re.sub(old, lambda _: new, path.read_text()))


def setting(key: str, value: str) -> Callable[[Path], None]:
    return lambda run: put(run, key, value)


def whole(name: str, data: bytes) -> Callable[[Path], None]:
    return lambda run: replace_by(run / name, lambda path: path.write_bytes(data))


def replace_by(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink() if path.is_symlink() or not path.is_dir() else shutil.rmtree(path)
    make(path)


def pipe(name: str) -> Callable[[Path], None]:
    return lambda run: replace_by(run / name, os.mkfifo)


def link(name: str, target: str) -> Callable[[Path], None]:
    return lambda run: replace_by(run / name, lambda path: path.symlink_to(target))


def folder_for(name: str) -> Callable[[Path], None]:
    return lambda run: replace_by(run / name, Path.mkdir)


def with_keywords(env: str) -> Callable[[Path], None]:
    def make(run: Path) -> None:
        put(run, "env", f'"{env}"')
        with (run / "config.toml").open("a") as file:
            file.write('\n[env_kwargs]\ncommand = "touch it-was-called"\nargs = "touch it-was-called"\nshell = true\n')

    return make


def forged_seal(run: Path) -> None:
    put(run, "env", f'"{PLANTED}:make"')
    edit(run, r"\[origin\]\n", f'[origin]\nseal = "{64 * "0"}"\nfolders = ["{run.parent}"]\n')


for number, env in enumerate((f"{PLANTED}:make", f"{PLANTED}:Env-v0", "os:system", "subprocess:call")):
    case(f"env-{number}", setting("env", f'"{env}"'))
    case(f"env-with-keywords-{number}", with_keywords(env))
case("vector-env", lambda run: (put(run, "env", f'"{PLANTED}:make"'), put(run, "backend", '"vector"')))
case("policy", setting("policy", f'"{PLANTED}:Net"'))
case("algo", setting("algo", f'"{PLANTED}"'))
case("algo-of-python", setting("algo", '"antigravity"'))
case("preset-elsewhere", setting("preset", '"../../../../etc/passwd"'))
case("tracker", setting("track", '"wandb"'))
case("forged-seal", forged_seal)
case("origin-is-text", lambda run: (edit(run, r"(?s)\[origin\].*", ""), put(run, "origin", '"x"')))
case("config-pipe", pipe("config.toml"))
case("config-folder", folder_for("config.toml"))
case("config-link", link("config.toml", "/etc/passwd"))
case("config-loop", link("config.toml", "config.toml"))
case("config-empty", whole("config.toml", b""))
case("config-binary", whole("config.toml", bytes(range(256))))
case("config-large", whole("config.toml", b"a = 1\n" * 10_000_000))
case("config-dotted", whole("config.toml", b".".join([b"a"] * 50_000) + b" = 1\n"))
case("config-dotted-quoted", whole("config.toml", b".".join([b'"a b"'] * 40_000) + b" = 1\n"))
case("config-headers", whole("config.toml", b"[" + b".".join([b"a"] * 50_000) + b"]\n"))
case("config-lists", whole("config.toml", b"env = " + b"[" * 50_000 + b"]" * 50_000))
case("config-tables", whole("config.toml", b"a = " + b"{a=" * 20_000 + b"1" + b"}" * 20_000))
case("config-number", setting("env", "3"))
case("config-list", setting("env", '["CartPole-v1"]'))
case("config-markup", setting("env", json.dumps(MARKUP)))
case("config-formula", setting("env", json.dumps('=HYPERLINK("http://x")')))
case("config-escapes", setting("env", json.dumps(ESCAPE)))
case("config-bidi", setting("algo", json.dumps("\u202eopp")))
case("config-names", setting(json.dumps(ESCAPE), "1"))
case("config-huge-number", setting("seed", "1" * 4000))
case("config-nan", lambda run: edit(run, r"learning_rate = .*", "learning_rate = nan"))
case("edited-gamma", lambda run: edit(run, r"gamma = .*", "gamma = 0.5"))
case("edited-seed", setting("seed", "99"))
for key, value in (
    ("num_envs", "1000000000"),
    ("act_block", "1000000000000"),
    ("grad_shards", "1000000000"),
    ("num_threads", "1000000"),
    ("eval_episodes", "1000000000000"),
    ("preprocessing", "{frame_stack = 1000000000}"),
):
    case(
        f"size-{key}",
        lambda run, key=key, value=value: (
            (edit(run, rf"(?s)\[{key}\].*?\n\n", ""), put(run, key, value))
            if key == "preprocessing"
            else put(run, key, value)
        ),
    )
case("size-workers", lambda run: (put(run, "num_workers", "1000000"), put(run, "backend", '"workers"')))
case("size-hidden", lambda run: edit(run, r"(?s)hidden = \[.*?\]", "hidden = [1000000, 1000000]"))
case("size-layers", lambda run: edit(run, r"(?s)hidden = \[.*?\]", f"hidden = [{'1,' * 100_000}]"))
case(
    "size-recurrent",
    lambda run: edit(run, r"recurrent = .*\nrecurrent_size = .*", 'recurrent = "gru"\nrecurrent_size = 1000000000'),
)
case("size-steps", lambda run: edit(run, r"num_steps = .*", "num_steps = 1000000000000"))

# run.json


def status(**changed: object) -> Callable[[Path], None]:
    def make(run: Path) -> None:
        path = run / "run.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changed))

    return make


TEXTS = ("state", "env", "algo", "stop_reason", "reason")
case("status-pipe", pipe("run.json"))
case("status-link", link("run.json", "/etc/passwd"))
case("status-deep", whole("run.json", b"[" * 100_000))
case("status-half", whole("run.json", b'{"state": "fin'))
case("status-large", whole("run.json", b" " * 50_000_000))
case("status-types", status(steps="many", seconds=[], versions=3))
case("status-huge", status(greedy_return=1e308, threshold=-1e308, seconds=1e300, steps=2**62))
case("status-pid", status(state="running", pid=2**62))
case("status-escapes", status(**dict.fromkeys(TEXTS, ESCAPE), versions={ESCAPE: ESCAPE}))
case("status-markup", status(**dict.fromkeys(TEXTS, MARKUP), versions={MARKUP: MARKUP}, other=MARKUP))

# metrics.jsonl


def lines(*data: bytes) -> Callable[[Path], None]:
    """Lines between those that are there."""

    def make(run: Path) -> None:
        path = run / "metrics.jsonl"
        first, *rest = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join([first, *data, *rest]))

    return make


def sparse(name: str, size: int) -> Callable[[Path], None]:
    def make(run: Path) -> None:
        (run / name).write_bytes(b"")
        os.truncate(run / name, size)

    return make


def line(**numbers: object) -> bytes:
    known = {"step": 100, "update": 3, "episode/return": 1.0, "episode/return_std": 0.0, "time/elapsed": 0.1}
    return json.dumps(known | numbers).encode() + b"\n"


case("metrics-pipe", pipe("metrics.jsonl"))
case("metrics-link", link("metrics.jsonl", "/etc/passwd"))
case("metrics-folder", folder_for("metrics.jsonl"))
case("metrics-sparse", sparse("metrics.jsonl", 6 << 30))
case("metrics-one-line", sparse("metrics.jsonl", 60 << 20))
case("metrics-many", whole("metrics.jsonl", line(**{"loss/a": 0.25}) * 300_000))
case("metrics-deep", lines(b"[" * 100_000 + b"\n", b'{"step":' * 10_000 + b"\n"))
case("metrics-bad", lines(b"\x00\xff\n", b"[1]\n", b'{"step": -1}\n', b'{"step": true}\n', b"1e999\n", b'{"st'))
case("metrics-types", lines(line(**{"episode/return": "high", "time/elapsed": []})))
case("metrics-huge", lines(line(**{"episode/return": 1e308, "loss/a": -1e308, "episode/return_std": 1e308})))
case("metrics-keys", lines(*[line(**{f"loss/{at}-{key}": 1.0 for key in range(900)}) for at in range(20)]))
case("metrics-markup", lines(line(**{f"loss/{MARKUP}": 1.0, f"info/{MARKUP}": 2.0})))
case("metrics-escapes", lines(line(**{f"loss/{ESCAPE}": 1.0})))


def crlf(run: Path) -> None:
    path = run / "metrics.jsonl"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))


case("metrics-crlf", crlf)

# checkpoints


def manifests(run: Path) -> list[Path]:
    return sorted((run / "checkpoints").glob("*.json"))


def reseal(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """Changes every manifest and seals it again, as an attacker could."""

    def make(run: Path) -> None:
        for path in manifests(run):
            manifest = json.loads(path.read_text())["manifest"]
            change(manifest)
            body = json.dumps(manifest)
            digest = hashlib.sha256(body.encode()).hexdigest()
            path.write_text(f'{{"sha256": "{digest}", "manifest": {body}}}')

    return make


def each_manifest(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def made(run: Path) -> None:
        for path in manifests(run):
            replace_by(path, make)

    return made


def each_tensors(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def made(run: Path) -> None:
        for path in (run / "checkpoints").glob("*.safetensors"):
            replace_by(path, make)

    return made


def other_tensors(run: Path) -> None:
    """The learner's arrays have other shapes, in files whose sha256 is right."""
    data = b"".join(map(bytes, buffers_of({"a": np.zeros(3, np.float32)})))
    digest = hashlib.sha256(data).hexdigest()
    name = f"learner-{digest}.safetensors"
    (run / "checkpoints" / name).write_bytes(data)
    reseal(lambda m: m["parts"]["learner"].update(tensors={"file": name, "bytes": len(data), "sha256": digest}))(run)


def elsewhere(manifest: dict[str, Any]) -> None:
    manifest["parts"]["learner"]["tensors"]["file"] = "../../../../../../etc/passwd"


def six_gib(path: Path) -> None:
    path.write_bytes(b"")
    os.truncate(path, 6 << 30)


def garbage(part: str, tree: object) -> Callable[[Path], None]:
    return reseal(lambda manifest: manifest["parts"][part].update(tree=tree))


def checkpoints_elsewhere(run: Path) -> None:
    """The folder is a link to one of somebody else's, whose files must stay."""
    other = run.parent.parent / f"{run.name}-elsewhere"
    shutil.move(run / "checkpoints", other)
    (other / ".hidden.file").write_text("mine")
    (run / "checkpoints").symlink_to(other)


case("checkpoints-gone", lambda run: [path.unlink() for path in (run / "checkpoints").iterdir()])
case("checkpoints-link", checkpoints_elsewhere)
case("manifests-pipe", each_manifest(os.mkfifo))
case("manifests-link", each_manifest(lambda path: path.symlink_to("/etc/passwd")))
case("manifests-deep", each_manifest(lambda path: path.write_bytes(b"[" * 1_000_000)))
case("manifests-wide", each_manifest(lambda path: path.write_bytes(b"[" + b"[]," * 8_000_000 + b"1]")))
case("manifests-elsewhere", reseal(elsewhere))
case("manifests-types", reseal(lambda m: m.update(updates="x", parts={"learner": 3})))
case("manifests-list", reseal(lambda m: m.update(kind=[ESCAPE])))
case("manifests-format", reseal(lambda m: m.update(format=ESCAPE)))
case("manifests-other-run", reseal(lambda m: m.update(run="another")))
case("tensors-pipe", each_tensors(os.mkfifo))
case("tensors-link", each_tensors(lambda path: path.symlink_to("/etc/passwd")))
case("tensors-sparse", each_tensors(six_gib))
case("tensors-other", other_tensors)
for part in ("learner", "stream", "run", "other"):
    case(f"tree-{part}", garbage(part, {"policy": [1, {"__array__": "nowhere"}]}))
    case(f"tree-{part}-pairs", garbage(part, {"__pairs__": [[1, 2], [3]]}))
case("tree-learner-empty", garbage("learner", {}))
case("tensorboard-link", link("tensorboard", "/tmp"))


if __name__ == "__main__":
    from tests.run import hostile_stages

    CASES.update(hostile_stages.CASES)
    root = Path(sys.argv[1]).resolve()
    plant(root)
    base = train_base(root / "base")
    for name, path in make_all(base, root / "runs").items():
        print(f"{name:<24} {path}")
