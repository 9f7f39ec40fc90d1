"""The module that Detectron2 loads for its own tools; each test in a process, as they do."""

import os
import re
import subprocess
import sys
from pathlib import Path

import detectron2
import pytest
import vfnet_yolof
from vfnet_yolof.config.packaged import find_config
from vfnet_yolof.data.shapes import GENERATOR_VERSION, generate_shapes

MODULE = "vfnet_yolof.detectron2_setup"
YAMLS = ("vfnet/vfnet_r50_fpn_1x.yaml", "gfl/gfl_r50_fpn_1x.yaml", "yolof/yolof_r50_c5_1x.yaml")
READS_ALL = """
import sys
{first}
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog
from detectron2.modeling import META_ARCH_REGISTRY
for path in sys.argv[1:]:
    cfg = get_cfg()
    cfg.merge_from_file(path)
    assert cfg.MODEL.META_ARCHITECTURE in META_ARCH_REGISTRY
assert "shapes_train" in DatasetCatalog
"""
# Detectron2's checkout, where it was built in one; the package alone does not have the tools.
TOOLS = Path(detectron2.__file__).parents[1] / "tools"


def start(repository: Path, *command: str, **environment: str) -> str:
    """What a Python process printed that Detectron2's hook has set up."""
    paths = [str(repository / "projects"), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *command],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "DETECTRON2_ENV_MODULE": MODULE,
            "OMP_NUM_THREADS": "1",
            **environment,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.parametrize(
    ("first", "by_path"),
    [
        ("import detectron2", True),
        ("import vfnet_yolof", False),
        ("import vfnet_yolof.modeling.heads", False),
    ],
    ids=["as a path", "after ours", "in the middle of our import"],
)
def test_other_programs_read_our_files(repository: Path, first: str, by_path: bool) -> None:
    path = Path(vfnet_yolof.__file__).parent / f"{MODULE.rpartition('.')[2]}.py"
    named = {"DETECTRON2_ENV_MODULE": str(path)} if by_path else {}
    start(repository, "-c", READS_ALL.format(first=first), *map(find_config, YAMLS), **named)


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for DETECTRON2_DATASETS with six shapes for training and two for validation."""
    root = tmp_path_factory.mktemp("datasets")
    generate_shapes(root / "shapes" / f"v{GENERATOR_VERSION}", num_train=6, num_val=2)
    return root


needs_tools = pytest.mark.skipif(
    not (TOOLS / "train_net.py").is_file(), reason="needs Detectron2 built in its own checkout"
)


def small(output: Path) -> list[str]:
    """Options of Detectron2's yacs tools for a VFNet that trains in seconds."""
    return [
        *("--config-file", find_config(YAMLS[0]), "MODEL.DEVICE", "cpu", "OUTPUT_DIR", str(output)),
        *("MODEL.RESNETS.DEPTH", "18", "MODEL.RESNETS.STEM_OUT_CHANNELS", "16"),
        *("MODEL.RESNETS.RES2_OUT_CHANNELS", "16", "MODEL.FPN.OUT_CHANNELS", "64"),
        *("MODEL.VFNET.CONV_CHANNELS", "64", "MODEL.VFNET.NUM_CONVS", "1"),
        *("MODEL.VFNET.NUM_CLASSES", "6", "DATALOADER.NUM_WORKERS", "0"),
        *("INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.MIN_SIZE_TEST", "64"),
        *("DATASETS.TRAIN", "('shapes_train',)", "DATASETS.TEST", "('shapes_val',)"),
        *("SOLVER.IMS_PER_BATCH", "2", "SOLVER.MAX_ITER", "2", "SOLVER.STEPS", "(1,)"),
    ]


@needs_tools
@pytest.mark.parametrize("tool", ["train_net.py", "plain_train_net.py"])
def test_their_training_tools(repository: Path, datasets: Path, tmp_path: Path, tool: str) -> None:
    command = [str(TOOLS / tool), "--num-gpus", "0", *small(tmp_path)]
    said = start(repository, *command, DETECTRON2_DATASETS=str(datasets))
    assert (tmp_path / "model_final.pth").is_file()
    assert re.search(r"copypaste: AP,AP50", said)
    found = list((tmp_path / "inference").rglob("coco_instances_results.json"))
    assert len(found) == 1


@needs_tools
def test_their_counter_and_their_pictures(repository: Path, datasets: Path, tmp_path: Path) -> None:
    environment = {"DETECTRON2_DATASETS": str(datasets)}
    tasks = ["--tasks", "parameter", "activation", "flop", "-n", "2"]
    command = [str(TOOLS / "analyze_model.py"), *tasks, *small(tmp_path)]
    said = start(repository, *command, **environment)
    assert re.search(r"Total GFlops: 0\.\d", said)

    pictures = ["--source", "annotation", "--output-dir", str(tmp_path / "pictures")]
    start(repository, str(TOOLS / "visualize_data.py"), *pictures, *small(tmp_path), **environment)
    assert len(list((tmp_path / "pictures").iterdir())) == 6
