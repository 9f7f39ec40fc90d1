"""Multi-scale testing against plain inference, and on a detector whose answers are known."""

import json
from typing import Any

import numpy as np
import pytest
import reference
import torch
from detectron2.config import instantiate
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Instances
from PIL import Image
from tiny import picture, tiny_model
from torch import Tensor, nn
from vfnet_yolof.cli.training import command_line
from vfnet_yolof.config.packaged import load_config
from vfnet_yolof.engine.build import build_tta
from vfnet_yolof.inference.tta import DenseTTA
from vfnet_yolof.layers.nms import HardNMS
from vfnet_yolof.layers.soft_nms import SoftNMS
from vfnet_yolof.modeling.postprocess import PostProcessor


class PatchDetector(nn.Module):
    """Finds the bright patch of each channel, class = channel; scores grow with the picture."""

    def __init__(self) -> None:
        super().__init__()
        self.postprocessor = PostProcessor(nms=HardNMS(0.5))
        self.seen: list[tuple[int, ...]] = []

    def forward(self, batched_inputs: list[dict[str, Any]]) -> list[dict[str, Instances]]:
        return [{"instances": self.detect(x)} for x in batched_inputs]

    def detect(self, inputs: dict[str, Any]) -> Instances:
        image = inputs["image"]
        size = tuple(image.shape[1:])
        self.seen.append(size)
        boxes, classes = [], []
        for channel in range(3):
            y, x = (image[channel] > 127).nonzero(as_tuple=True)
            if len(x):
                boxes.append([x.min(), y.min(), x.max() + 1, y.max() + 1])
                classes.append(channel)
        logits = torch.full((len(boxes), 3), -99.0)
        logits[range(len(boxes)), classes] = size[1] / 100 - 0.001 * torch.tensor(classes)
        corners = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
        found = self.postprocessor([logits], lambda level, index: corners[index], size)
        return detector_postprocess(found.instances, inputs["height"], inputs["width"])


def patches(*boxes: tuple[int, int, int, int], size: tuple[int, int] = (60, 100)) -> dict[str, Any]:
    """A black picture with one bright patch in each channel."""
    image = torch.zeros((3, *size), dtype=torch.uint8)
    for channel, (x1, y1, x2, y2) in enumerate(boxes):
        image[channel, y1:y2, x1:x2] = 255
    return {"image": image, "height": size[0], "width": size[1]}


def detect(model: nn.Module, *inputs: dict[str, Any]) -> list[Instances]:
    with torch.no_grad():
        return [x["instances"] for x in model(list(inputs))]


def assert_equal(found: Instances, expected: Instances, box_atol: float = 1e-3) -> None:
    assert found.image_size == expected.image_size
    assert found.pred_classes.tolist() == expected.pred_classes.tolist()
    assert torch.allclose(found.scores, expected.scores, atol=1e-5)
    boxes = found.pred_boxes.tensor
    assert torch.allclose(boxes, expected.pred_boxes.tensor, atol=box_atol)


def busy_model(name: str) -> nn.Module:
    """With random weights and thresholds that let many boxes pass."""
    torch.manual_seed(0)
    model = instantiate(load_config(name).model) if "yolof" in name else tiny_model(name)
    postprocessor = model.postprocessor
    postprocessor.score_thresh, postprocessor.topk_candidates = 0.0, 60
    # as the merging does, which knows the picture's borders from the start
    postprocessor.clip = "before_nms"
    postprocessor.nms = HardNMS(0.9)
    return model.eval()


@pytest.mark.parametrize(
    "name",
    [
        "vfnet/vfnet_small_shapes.py",
        "gfl/gfl_small_shapes.py",
        "ablations/vfnet_t3_fcos_atss.py",
        "yolof/yolof_small_shapes.py",
    ],
)
def test_one_size_without_flip_is_plain_inference(name: str) -> None:
    model = busy_model(name)
    inputs = picture(size=(128, 192)) | {"height": 64, "width": 96}
    plain = detect(model, inputs)[0]
    assert len(plain) > 10
    assert_equal(detect(DenseTTA(model, sizes=[(192, 128)], flip=False), inputs)[0], plain)
    assert_equal(detect(model, inputs)[0], plain)  # the model itself is left as it was


def test_with_flips_a_mirrored_picture_has_mirrored_boxes() -> None:
    tta = DenseTTA(busy_model("vfnet/vfnet_small_shapes.py"), sizes=[(192, 128), (144, 96)])
    inputs = picture(size=(128, 192))
    found = detect(tta, inputs)[0]
    mirrored = detect(tta, inputs | {"image": inputs["image"].flip(2)})[0]
    assert torch.allclose(found.scores, mirrored.scores, atol=1e-5)
    sides = {tuple(x) for x in found.pred_boxes.tensor.round().tolist()}
    for x1, y1, x2, y2 in mirrored.pred_boxes.tensor.tolist():
        back = [192 - x2, y1, 192 - x1, y2]
        assert min(np.abs(np.subtract(side, back)).max() for side in sides) < 0.6
    assert len(found) > 10


def test_boxes_of_all_versions_come_back_to_the_same_place() -> None:
    box = [(10, 6, 40, 30), (60, 20, 96, 56)]
    plain = PatchDetector().eval()
    expected = detect(plain, patches(*box))[0]
    assert expected.pred_boxes.tensor.tolist() == [list(map(float, b)) for b in box]
    model = PatchDetector().eval()
    found = detect(DenseTTA(model, sizes=[(100, 60), (200, 120), (150, 200)]), patches(*box))[0]
    # a size is filled as far as the picture's shape allows; each is seen plain and flipped
    assert model.seen == [(60, 100)] * 2 + [(120, 200)] * 2 + [(90, 150)] * 2
    assert found.pred_classes.tolist() == [0, 1]
    assert torch.allclose(found.pred_boxes.tensor, expected.pred_boxes.tensor, atol=1.0)
    # an object has one box, with the score of its best version
    assert found.scores.tolist() == pytest.approx([1 / (1 + np.exp(-2.0))] * 2, abs=1e-3)


def test_flipped_versions_are_flipped_back() -> None:
    class HalfBlind(PatchDetector):
        """Does not see the right half."""

        def detect(self, inputs: dict[str, Any]) -> Instances:
            image = inputs["image"].clone()
            image[..., image.shape[2] // 2 :] = 0
            return super().detect(inputs | {"image": image})

    inputs = patches((10, 6, 40, 30), (60, 20, 96, 56))
    blind = HalfBlind().eval()
    assert len(detect(DenseTTA(blind, sizes=[(100, 60)], flip=False), inputs)[0]) == 1
    found = detect(DenseTTA(blind, sizes=[(100, 60)]), inputs)[0]
    order = found.pred_classes.argsort()
    assert found.pred_boxes.tensor[order].tolist() == [[10, 6, 40, 30], [60, 20, 96, 56]]


def test_sizes_give_boxes_of_their_range_only() -> None:
    inputs = patches((10, 6, 20, 16), (50, 10, 90, 50))  # sides 10 and 40
    ranges = [None, [0, 20]]
    tta = DenseTTA(PatchDetector().eval(), sizes=[(100, 60), (200, 120)], box_ranges=ranges)
    found = detect(tta, inputs)[0]
    best = dict(zip(found.pred_classes.tolist(), found.scores.tolist(), strict=True))
    assert best == pytest.approx({0: 1 / (1 + np.exp(-2.0)), 1: 1 / (1 + np.exp(-1.0))}, abs=1e-3)
    none = DenseTTA(PatchDetector().eval(), sizes=[(100, 60)], box_ranges=[[100, 200]])
    assert len(detect(none, inputs)[0]) == 0


def test_another_nms_can_merge() -> None:
    inputs = patches((10, 6, 40, 30))
    soft = DenseTTA(PatchDetector().eval(), sizes=[(100, 60), (200, 120)], nms=SoftNMS("gaussian"))
    assert len(detect(soft, inputs)[0]) > 1  # lowers duplicates instead of removing them
    seen: list[int] = []

    def counting(boxes: Tensor, scores: Tensor, classes: Tensor, most: int) -> Any:
        seen.append(len(boxes))
        return HardNMS(0.5)(boxes, scores, classes, most)

    detect(DenseTTA(PatchDetector().eval(), sizes=[(100, 60)], nms=counting), inputs, patches())
    assert seen == [2, 0]


def test_many_classes_in_a_large_picture_stay_apart() -> None:
    """All boxes of all versions, class after class, against the definition in float64."""
    size, num_classes, count = (12_000, 16_000), 1203, 200
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(count // 4, 2, generator=generator) * 11_000
    corners = corners.repeat(4, 1) + torch.randn(count, 2, generator=generator)
    boxes = torch.cat([corners, corners + torch.rand(count, 2, generator=generator) * 8 + 6], 1)
    logits = torch.full((count, num_classes), -99.0)
    classes = num_classes - 1 - torch.randint(2, (count,), generator=generator)
    logits[range(count), classes] = torch.randperm(count, generator=generator) / 100

    class Known(PatchDetector):
        """Finds the same boxes in every version."""

        def detect(self, inputs: dict[str, Any]) -> Instances:
            height, width = inputs["image"].shape[1:]
            shown = boxes * (width / size[1])
            found = self.postprocessor([logits], lambda level, i: shown[i], (height, width))
            return detector_postprocess(found.instances, inputs["height"], inputs["width"])

    inputs = {"image": torch.zeros(3, 60, 80, dtype=torch.uint8)}
    inputs |= {"height": size[0], "width": size[1]}
    model = Known().eval()
    model.postprocessor = PostProcessor(nms=HardNMS(0.5), max_detections=1000)
    sizes = [(16_000 // n, 12_000 // n) for n in (200, 100)]
    found = detect(DenseTTA(model, sizes=sizes, flip=False), inputs)[0]
    kept = reference.greedy_nms(
        boxes.tolist(), logits.amax(1).tolist(), classes.tolist(), threshold=0.5
    )
    assert found.pred_classes.tolist() == classes[kept].tolist()
    assert torch.allclose(found.pred_boxes.tensor, boxes[kept], atol=0.1)
    assert 50 < len(kept) < 150


def test_pictures_are_resized_as_asked() -> None:
    image = torch.randint(0, 256, (3, 60, 100), dtype=torch.uint8)
    given: dict[str, Tensor] = {}

    class Keep(PatchDetector):
        def detect(self, inputs: dict[str, Any]) -> Instances:
            given[self.name] = inputs["image"]
            return super().detect(inputs)

    for name in ("pil", "opencv"):
        model = Keep().eval()
        model.name = name
        tta = DenseTTA(model, sizes=[(50, 30)], flip=False, interpolation=name)
        detect(tta, {"image": image, "height": 60, "width": 100})
    assert given["pil"].shape == given["opencv"].shape == (3, 30, 50)
    assert (given["pil"] != given["opencv"]).any()


def test_bad_arguments() -> None:
    model = PatchDetector()
    for arguments, message in (
        ({"sizes": []}, "sizes is empty"),
        ({"sizes": [(800,)]}, "sizes must hold pairs"),
        ({"sizes": [(800, 0)]}, "sizes must hold pairs"),
        ({"sizes": [(8, 8)], "box_ranges": []}, "0 box_ranges for 1 sizes"),
        ({"sizes": [(8, 8)], "box_ranges": [(9, 3)]}, "least, greatest"),
        ({"sizes": [(8, 8)], "interpolation": "cubic"}, "'cubic'.*pil, opencv"),
    ):
        with pytest.raises(ValueError, match=message):
            DenseTTA(model, **arguments)
    with pytest.raises(TypeError, match="Linear has no postprocessor"):
        DenseTTA(nn.Linear(1, 1), sizes=[(8, 8)])
    with pytest.raises(RuntimeError, match="evaluation mode"):
        DenseTTA(model.train(), sizes=[(8, 8)])([patches()])


def test_recipes_name_their_sizes() -> None:
    htc = [[900, 600], [1200, 800], [1500, 1000], [1800, 1200], [2100, 1400]]
    authors = [[1200, 800], [1300, 900], [1500, 1000], [1600, 1200]]
    for name, sizes, interpolation in (
        ("vfnet/vfnet_r50_fpn_1x.py", authors, "opencv"),
        ("gfl/gfl_r50_fpn_ms_2x.py", authors, "opencv"),
        ("yolof/yolof_r50_c5_1x.py", htc, "pil"),
    ):
        tta = load_config(name).dataloader.tta
        assert (tta.sizes, tta.flip, tta.interpolation) == (sizes, True, interpolation)


def test_from_the_command_line(tmp_path, capsys) -> None:
    images = [{"id": i, "file_name": f"{i}.png", "width": 100, "height": 60} for i in range(2)]
    for image in images:
        pixels = patches((10, 6, 40, 30))["image"].permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(tmp_path / image["file_name"])
    content = {
        "images": images,
        "categories": [{"id": 1, "name": "patch"}],
        "annotations": [{"id": 1, "image_id": 0, "category_id": 1, "bbox": [10, 6, 30, 24]}],
    }
    annotations = tmp_path / "val.json"
    annotations.write_text(json.dumps(content))
    config = "vfnet/vfnet_small.py"
    cfg = load_config(config)
    cfg.model.num_classes = 1
    weights = tmp_path / "model.pth"
    torch.save({"model": instantiate(cfg.model).state_dict()}, weights)
    run = [
        *("--config-file", config, "--num-gpus", "0", "--tta"),
        *("--val-json", str(annotations), "--val-images", str(tmp_path)),
        f"train.output_dir={tmp_path / 'out'}",
        f"train.init_checkpoint={weights}",
    ]
    assert command_line(run) == 2
    assert "add --eval-only" in capsys.readouterr().err
    assert command_line([*run, "--eval-only", "dataloader.tta=null"]) == 2
    assert "no dataloader.tta" in capsys.readouterr().err
    assert command_line([*run, "--eval-only", "dataloader.tta.sizes=[[64,64]]"]) == 0
    line = json.loads((tmp_path / "out" / "metrics.json").read_text().splitlines()[-1])
    assert line["tta"] is True
    assert "bbox/AP" in line


def test_evaluation_wraps_the_model() -> None:
    config = load_config("vfnet/vfnet_small.py")
    config.dataloader.tta.sizes = [[64, 64], [96, 96]]
    model = PatchDetector().eval()
    around = build_tta(config, model)
    assert around.model is model
    assert around.sizes == [(64, 64), (96, 96)]
    assert config.dataloader.test.mapper.augmentations == []
    assert "model" not in config.dataloader.tta  # the config can still be saved
