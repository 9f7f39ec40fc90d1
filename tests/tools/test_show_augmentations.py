"""tools/show_augmentations.py: what it draws is what the training would see."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import show_augmentations
from PIL import Image
from vfnet_yolof.data import register_coco_json
from vfnet_yolof.drawing.canvas import class_color

CONFIG = "vfnet/vfnet_small.py"
PLAIN = [
    "dataloader.train.mapper.augmentations=[]",
    "dataloader.train.total_batch_size=2",
]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("pictures")
    for name in ("a", "b"):
        Image.new("RGB", (80, 60), (200, 30, 30)).save(folder / f"{name}.png")
    content = {
        "images": [
            {"id": i, "file_name": f"{n}.png", "width": 80, "height": 60}
            for i, n in enumerate("ab")
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [
            {"id": i + 1, "image_id": i, "category_id": 2, "bbox": [20, 20, 30, 30]}
            for i in range(2)
        ],
    }
    (folder / "annotations.json").write_text(json.dumps(content))
    register_coco_json("to_be_shown", folder / "annotations.json", folder)
    return "dataloader.train.dataset.names=to_be_shown"


def test_boxes_are_drawn_in_red_green_blue(dataset: str, tmp_path: Path, capsys) -> None:
    for order in ("RGB", "BGR"):
        options = [*PLAIN, dataset, f"dataloader.train.mapper.image_format={order}"]
        assert show_augmentations.main([CONFIG, "-o", str(tmp_path), "-n", "3", *options]) == 0
        assert "3 images" in capsys.readouterr().out
        files = sorted(tmp_path.iterdir())
        assert [f.name[:5] for f in files] == ["0000_", "0001_", "0002_"]
        drawn = np.asarray(Image.open(files[0]))
        assert drawn.shape == (8 * 60, 8 * 80, 3)  # enlarged, for people to look at
        assert tuple(drawn[8 * 40, 8 * 20]) == class_color(1)
        assert tuple(drawn[8 * 40, 8 * 35]) == (200, 30, 30)


def test_the_seed_tells_the_pictures(dataset: str, tmp_path: Path) -> None:
    augmented = [
        "dataloader.train.mapper.augmentations="
        "[{_target_:vfnet_yolof.data.RandomShift,max_shift:20,prob:1.0}]",
        *(PLAIN[1], dataset),
    ]

    def pictures(seed: int, folder: str) -> list[bytes]:
        options = [CONFIG, "-o", str(tmp_path / folder), "-n", "4", "--seed", str(seed)]
        assert show_augmentations.main([*options, *augmented]) == 0
        return [f.read_bytes() for f in sorted((tmp_path / folder).iterdir())]

    assert pictures(1, "a") == pictures(1, "b") != pictures(2, "c")


def test_mistakes_end_with_one_line(dataset: str, tmp_path: Path, capsys, monkeypatch) -> None:
    # Handlers that other tests left behind write to streams that are closed by now.
    monkeypatch.setattr(logging, "raiseExceptions", False)
    for arguments, message in (
        (["nowhere.py"], "nowhere"),
        ([CONFIG, "dataloader.train.mapper.interpolation=cubic", dataset], "pil, opencv"),
        ([CONFIG, "dataloader.train.dataset.names=nothing"], "nothing"),
        ([CONFIG, "-n", "0", dataset], "count must be at least 1"),
    ):
        assert show_augmentations.main([*arguments, "-o", str(tmp_path / "out")]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert message in error
        assert error.count("\n") == 1
