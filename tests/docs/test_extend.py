"""The examples of "Extend" are written to files as the pages say, and trained a few steps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from docs_pages import code_blocks
from vfnet_yolof.data.shapes import generate_shapes

MAX_LINES = 40  # of an example, and of the file that is its class
STEPS = 4


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate_shapes(tmp_path_factory.mktemp("data") / "shapes", num_train=8, num_val=2)


@pytest.mark.parametrize("part", ["loss", "assigner", "head"])
def test_an_example_trains(part: str, shapes: Path, tmp_path: Path, repository: Path) -> None:
    files = [block for block in code_blocks(f"extend/{part}.md") if block.title]
    assert [block.title for block in files] == [f"my_{part}.py", f"my_{part}_config.py"]
    assert sum(len(block.code.splitlines()) for block in files) <= MAX_LINES
    for block in files:
        (tmp_path / block.title).write_text(block.code)

    command = [sys.executable, str(repository / "tools/train_net.py")]
    command += ["--config-file", f"my_{part}_config.py", "--seed", "0", "--num-gpus", "0"]
    for split in ("train", "val"):
        command += [f"--{split}-json", str(shapes / "annotations" / f"instances_{split}.json")]
        command += [f"--{split}-images", str(shapes / split)]
    command += [f"train.max_iter={STEPS}", "train.log_period=1", "train.eval_period=0"]
    command += ["dataloader.train.total_batch_size=2"]
    path = os.pathsep.join([str(tmp_path), str(repository / "projects")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]

    lines = (tmp_path / f"output/my_{part}/metrics.json").read_text().splitlines()
    losses = [record["loss_cls"] for record in map(json.loads, lines) if "loss_cls" in record]
    assert len(losses) == STEPS
    assert all(loss is not None and loss > 0 for loss in losses)
    assert f"my_{part}." in (tmp_path / f"output/my_{part}/config.yaml").read_text()
