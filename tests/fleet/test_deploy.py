"""The files of `deploy/`: as far as a machine without Kubernetes, Slurm and a second host can check them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from shoal.fleet.cluster import LOCAL_SETTINGS
from shoal.fleet.settings import Placement, check_where

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
RAY = re.search(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
FAKES = {
    "scontrol": "printf 'n1\\nn2\\n'",
    "srun": 'echo "srun $*" >> "$CALLS"\n'
    'for part in "$@"; do case "$part" in hostname) echo 10.0.0.1;; esac; done\n'
    'case "$*" in *"ray start"*) exec sleep 30;; *shoal*)\n'
    'for _ in $(seq 100); do grep -q nodelist=n2 "$CALLS" && break; sleep 0.1; done; exit 7;; esac',
    "ray": 'echo "ray $*" >> "$CALLS"',
}
"""What the Slurm script calls: each says how it was called."""


def documents(name: str) -> list[Any]:
    return list(yaml.safe_load_all((DEPLOY / name).read_text()))


def test_compose_has_a_head_and_nodes() -> None:
    [whole] = documents("compose.yaml")
    services = whole["services"]
    assert {name: service["profiles"] for name, service in services.items()} == {"head": ["head"], "node": ["node"]}
    for service in services.values():
        assert service["environment"]["RAY_AUTH_MODE"] == "token"
        assert service["secrets"] == ["ray-token"]
        assert service["command"][:2] == ["ray", "start"]
        assert service["network_mode"] == "host"
        for name, value in LOCAL_SETTINGS.items():
            assert service["environment"][f"RAY_{name}"] == str(value)
    assert "--include-dashboard=false" in services["head"]["command"]
    [resources] = [part for part in services["node"]["command"] if part.startswith("--resources=")]
    assert json.loads(resources.partition("=")[2]) == {"envs": 8}
    assert not (DEPLOY / "ray-token").exists()
    if shutil.which("docker-compose"):
        subprocess.run(["docker-compose", "-f", "compose.yaml", "config", "-q"], cwd=DEPLOY, check=True)


def test_kuberay_asks_for_what_its_nodes_offer() -> None:
    volume, cluster, job = documents("kuberay.yaml")
    assert [part["kind"] for part in (volume, cluster, job)] == ["PersistentVolumeClaim", "RayCluster", "Job"]
    assert volume["spec"]["accessModes"] == ["ReadWriteMany"]
    assert RAY is not None
    assert cluster["spec"]["rayVersion"] == RAY[1]
    head, [nodes] = cluster["spec"]["headGroupSpec"], cluster["spec"]["workerGroupSpecs"]
    assert head["rayStartParams"]["include-dashboard"] == "false"
    assert nodes["minReplicas"] <= nodes["replicas"] <= nodes["maxReplicas"]
    pods = [head["template"]["spec"], nodes["template"]["spec"], job["spec"]["template"]["spec"]]
    claim = volume["metadata"]["name"]
    for pod in pods:
        assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == claim
        for container in pod["containers"]:
            told = {variable["name"]: variable for variable in container["env"]}
            assert told["RAY_AUTH_MODE"]["value"] == "token"
            assert "secretKeyRef" in told["RAY_AUTH_TOKEN"]["valueFrom"]
            assert container["resources"]["requests"] == container["resources"]["limits"]
    asked = job["spec"]["template"]["spec"]["containers"][0]["args"][0].split()
    given = {name: asked[number + 1] for number, name in enumerate(asked) if name.startswith("--")}
    check_where(given["--fleet"])
    assert given["--fleet"] == f"ray://{cluster['metadata']['name']}-head-svc:10001"
    placement = Placement(int(given["--placement.servers"]), float(given["--placement.cpus"]))
    offered = json.loads(json.loads(nodes["rayStartParams"]["resources"]))
    cpus = float(nodes["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"])
    assert given["--placement.resource"] in offered
    assert placement.servers * placement.cpus <= nodes["replicas"] * cpus
    assert placement.servers <= nodes["replicas"] * offered["envs"]


def test_image_installs_the_extra() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    assert "[fleet]" in text
    assert "USER shoal" in text


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_slurm_script(tmp_path: Path) -> None:
    """Its syntax, and a job of two nodes with commands that only say how they were called."""
    script = DEPLOY / "slurm.sh"
    subprocess.run(["bash", "-n", str(script)], check=True)
    calls = tmp_path / "calls"
    for name, body in FAKES.items():
        fake = tmp_path / name
        fake.write_text(f"#!/usr/bin/env bash\n{body}\n")
        fake.chmod(0o755)
    job = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "CALLS": str(calls),
        "SLURM_JOB_ID": "12345",
        "SLURM_JOB_NODELIST": "n[1-2]",
        "SLURM_CPUS_PER_TASK": "8",
        "SLURM_SUBMIT_DIR": str(tmp_path),
    }
    command = ["bash", str(script), "shoal", "train", "CartPole-v1", "--fleet", "auto"]
    done = subprocess.run(command, env=job, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 7, done.stderr  # the learner's own
    said = calls.read_text()
    assert "--nodelist=n1 ray start --head --block --node-ip-address 10.0.0.1 --port 22345 --num-cpus 4" in said
    assert "--nodelist=n2 ray start --block --address 10.0.0.1:22345 --num-cpus 8" in said
    assert "RAY_ADDRESS=10.0.0.1:22345 shoal train CartPole-v1 --fleet auto" in said
    assert not list(tmp_path.glob(".shoal-fleet-*"))
