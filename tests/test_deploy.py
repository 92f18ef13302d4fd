"""deploy/: what can be known of it without the platforms."""

import json
import os
import re
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import time
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from sweeps.beta_ablation import BetaAblation, spec
from sweeps.cli import command
from trainables.journal import read

DEPLOY = Path(__file__).parents[1] / "deploy"
ROOT = DEPLOY.parent

# from KubeRay's rayjob_types.go and raycluster_types.go (ray.io/v1), those that a file of ours may want
RAY_JOB = {
    "backoffLimit", "rayClusterSpec", "submitterPodTemplate", "entrypoint", "runtimeEnvYAML", "submissionMode",
    "entrypointNumCpus", "ttlSecondsAfterFinished", "shutdownAfterJobFinishes", "activeDeadlineSeconds",
}  # fmt: skip
RAY_CLUSTER = {"authOptions", "headGroupSpec", "rayVersion", "workerGroupSpecs", "enableInTreeAutoscaling"}
WORKERS = {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"}


def plan(words: list[str]) -> int:
    """The exit code of a command of deploy/, as a plan, on this machine and its data."""
    assert words[:3] == ["python", "-m", "sweeps.beta_ablation"]
    flags = dict(zip(words[3::2], words[4::2], strict=True)) | {"--address": "inline", "--data": "cifar10-mini"}
    here = [word for flag, value in flags.items() if flag not in ("--storage", "--out") for word in (flag, value)]
    return command("beta_ablation", ("sweeps.beta_ablation",), BetaAblation, spec, [*here, "--plan"])


@pytest.mark.slow
def test_the_launcher_takes_its_file_and_our_command_line_the_commands() -> None:
    text = (DEPLOY / "ray-cluster.yaml").read_text()
    cluster = yaml.safe_load(text)
    jsonschema.validate(cluster, json.loads((files("ray.autoscaler") / "ray-schema.json").read_text()))
    (line,) = re.findall(r"python -m sweeps.*", text)
    assert plan(shlex.split(line)) == 0
    starts = [*cluster["head_start_ray_commands"], *cluster["worker_start_ray_commands"]]
    assert all("RAY_AUTH_MODE=token" in start for start in starts if "ray start" in start)


@pytest.mark.slow
def test_the_ray_job_has_the_fields_of_kuberay_and_a_command_of_ours() -> None:
    job = yaml.safe_load((DEPLOY / "kuberay-rayjob.yaml").read_text())
    ray = job["spec"]["rayClusterSpec"]
    groups = [ray["headGroupSpec"], *ray["workerGroupSpecs"]]
    assert (job["apiVersion"], job["kind"], ray["authOptions"]) == ("ray.io/v1", "RayJob", {"mode": "token"})
    assert job["spec"].keys() <= RAY_JOB
    assert ray.keys() <= RAY_CLUSTER
    assert all(group.keys() <= WORKERS for group in groups)
    for pod in (group["template"]["spec"] for group in groups):
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
            resources = container["resources"]
            assert resources["limits"] == resources["requests"], "guaranteed: the last to be evicted"
    shell, option, script = shlex.split(job["spec"]["entrypoint"])
    assert (shell, option) == ("bash", "-c")
    assert subprocess.run(["bash", "-n", "-c", script], check=False).returncode == 0
    assert plan(shlex.split(script.partition("exec ")[2].replace("$which", "--name kube"))) == 0


def test_the_slurm_script_is_sound() -> None:
    script = DEPLOY / "slurm.sbatch"
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0
    if shellcheck := shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}"):
        told = subprocess.run([shellcheck, script], capture_output=True, text=True, check=False)
        assert told.returncode == 0, told.stdout


STUBS = {
    # a node of the job is this machine: the command is run here
    "srun": 'while [[ $1 == --* ]]; do shift; done; exec "$@"\n',
    "scontrol": 'if [[ $1 == show ]]; then printf "one\\ntwo\\n"; else echo "$@" >>"$VQSWEEP_HOME/requeued"; fi\n',
}
JOB = str(os.getpid())


def program(folder: Path, name: str, body: str) -> None:
    """A program that the script finds before any other of its name."""
    (folder / "bin").mkdir(exist_ok=True)
    (folder / "bin" / name).write_text(f"#!/bin/bash\n{body}")
    (folder / "bin" / name).chmod(0o755)


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, Any]:
    """Arguments of ``Popen`` that make this machine two nodes of a Slurm job."""
    for name, body in STUBS.items():
        program(tmp_path, name, body)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    environment |= {"SLURM_JOB_ID": JOB, "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_CPUS_ON_NODE": "1"}
    environment |= {"SLURM_SUBMIT_DIR": str(ROOT), "VQSWEEP_HOME": str(tmp_path)}
    environment["PATH"] = f"{tmp_path / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {"env": environment, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}


HEADS = {
    "that does not come": 'touch "$VQSWEEP_HOME/begun"; exec sleep 60\n',
    "whose driver takes no signals yet": (
        '[[ $2 == --head ]] || exec sleep 60\nexec python -m http.server --bind 127.0.0.1 "${4#*=}"\n'
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("head", HEADS)
def test_a_slurm_job_that_is_preempted_before_it_is_at_work_queues_itself(
    slurm: dict[str, Any], tmp_path: Path, head: str
) -> None:
    program(tmp_path, "hostname", "echo 127.0.0.1\n")
    program(tmp_path, "ray", HEADS[head])
    (tmp_path / "late.py").write_text("import pathlib, time\npathlib.Path('begun').touch()\ntime.sleep(60)\n")
    slurm["env"]["SLURM_SUBMIT_DIR"] = str(tmp_path)  # where no environment puts its own ray first
    with subprocess.Popen(["bash", DEPLOY / "slurm.sbatch", "late"], **slurm) as waiting:
        while not (tmp_path / "begun").exists():
            assert waiting.poll() is None, waiting.communicate()[0]
            time.sleep(0.05)
        waiting.send_signal(signal.SIGTERM)
        said = waiting.communicate(timeout=30)[0]
    assert waiting.returncode == 0, said
    assert (tmp_path / "requeued").read_text().split() == ["requeue", JOB]
    assert not (tmp_path / "runs" / f".token-{JOB}").exists()


@pytest.mark.service
@pytest.mark.timeout(600)  # two clusters, on a machine with much else to do
def test_a_slurm_job_that_is_preempted_queues_itself_and_goes_on(slurm: dict[str, Any], tmp_path: Path) -> None:
    small = "--set channels=16 hidden_channels=32 --codebook-size 16 --batch-size 256 --betas 0.1 1 --seeds 1"
    small += " --epochs 6 --image-size 16"
    words = ["bash", DEPLOY / "slurm.sbatch", "sweeps.beta_ablation", *small.split()]
    journal = tmp_path / "runs" / "beta_ablation" / f"slurm-{JOB}" / "journal.jsonl"
    token = tmp_path / "runs" / f".token-{JOB}"
    try:
        with subprocess.Popen(words, **slurm) as first:
            while sum(len(trial.epochs) for trial in read(journal).trials.values()) < 2:
                assert first.poll() is None, first.communicate()[0]
                time.sleep(0.1)
            assert stat.S_IMODE(token.stat().st_mode) == 0o600
            secret = token.read_text()
            first.send_signal(signal.SIGTERM)
            said = first.communicate(timeout=120)[0]
        assert (first.returncode, (tmp_path / "requeued").read_text().split()) == (0, ["requeue", JOB]), said
        assert not token.exists()
        assert any(trial.status == "running" for trial in read(journal).trials.values()), "too late to show anything"
        with subprocess.Popen(words, **slurm) as second:
            said += second.communicate(timeout=280)[0]
        assert second.returncode == 0, said
    finally:
        shutil.rmtree(f"/tmp/ray-{JOB}", ignore_errors=True)
    run = read(journal)
    assert [(trial.status, len(trial.epochs)) for trial in run.trials.values()] == [("completed", 6)] * 2
    assert len((tmp_path / "requeued").read_text().splitlines()) == 1
    assert secret not in said
