"""The predictor: any kind of image in, Instances in that image's pixels out."""

import copy
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import vfnet_yolof
from detectron2.config import instantiate
from detectron2.data import MetadataCatalog
from detectron2.structures import Instances
from golden_recipe import make_images, reference_state_dict
from PIL import Image
from vfnet_yolof import Predictor
from vfnet_yolof.checkpoint import CheckpointMismatchError
from vfnet_yolof.config.packaged import load_config
from vfnet_yolof.inference.inputs import InputError, class_thresholds
from vfnet_yolof.modeling.yacs import get_cfg_with_keys
from vfnet_yolof.utils.image_arrays import to_array

NAMES = ["ant", "bee", "cat", "dog", "eel", "fox"]
CONFIG = "vfnet/vfnet_small_shapes.py"


@pytest.fixture(scope="module")
def config():
    cfg = load_config(CONFIG)
    cfg.model.postprocessor.score_thresh = 0.01
    cfg.model.postprocessor.max_detections = 20
    return cfg


@pytest.fixture(scope="module")
def state(config) -> dict[str, torch.Tensor]:
    """Weights whose scores are spread out, so that their order is certain."""
    torch.manual_seed(0)
    model = instantiate(config.model)
    torch.nn.init.normal_(model.head.cls_logits.weight, std=0.3)
    torch.nn.init.normal_(model.head.reg_init.weight, std=0.05)
    torch.nn.init.normal_(model.head.reg_refine.weight, std=0.05)
    return model.state_dict()


@pytest.fixture(scope="module")
def weights(state, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "vfnet.pth"
    torch.save({"model": state, "class_names": NAMES}, path)
    return path


@pytest.fixture(scope="module")
def predictor(config, weights) -> Predictor:
    return Predictor(config, weights, device="cpu", score_thresh=0.0)


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """(H, W, 3) uint8 noise in patches, B, G, R."""
    rng = np.random.default_rng(seed)
    patches = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    return patches.repeat(8, 0).repeat(8, 1)[:height, :width]


def assert_same(first: Instances, second: Instances, atol: float = 1e-4) -> None:
    assert len(first) == len(second) > 0
    assert first.image_size == second.image_size
    assert first.pred_classes.tolist() == second.pred_classes.tolist()
    assert torch.allclose(first.scores, second.scores, atol=atol)
    assert torch.allclose(first.pred_boxes.tensor, second.pred_boxes.tensor, atol=100 * atol)


def test_one_image_gives_what_the_model_gives(predictor: Predictor, config, state):
    image = picture(64, 96)
    model = instantiate(config.model).eval()
    model.load_state_dict(state)
    rgb = torch.as_tensor(image[:, :, ::-1].transpose(2, 0, 1).copy())
    with torch.no_grad():
        expected = model([{"image": rgb, "height": 64, "width": 96}])[0]["instances"]
    result = predictor(image)
    assert isinstance(result, Instances)
    assert_same(result, expected)
    result.pred_boxes.clip((10, 10))  # in place: the results are the caller's


@pytest.mark.golden
def test_reference_checkpoint_gives_the_reference_detections(golden: Path, tmp_path: Path):
    """A checkpoint as MMDetection writes it, used as it is."""
    path = tmp_path / "vfnet_r50_fpn_1x.pth"
    source = reference_state_dict(golden, "vfnet_r50_fpn", "mmdet_models")
    names = tuple(f"thing {i}" for i in range(80))
    torch.save({"state_dict": source, "meta": {"CLASSES": names}}, path)
    as_is = ["dataloader.test.mapper.augmentations=[]"]
    predictor = Predictor(
        "vfnet/vfnet_r50_fpn_1x.py", path, device="cpu", score_thresh=0.05, overrides=as_is
    )
    images = make_images(golden).transpose(0, 2, 3, 1)
    reference = np.load(golden / "vfnet_r50_fpn.npz")
    for i, found in enumerate(predictor(images)):
        expected = {k: reference[f"main/det/{i}/{k}"] for k in ("boxes", "scores", "labels")}
        assert found.pred_classes.tolist() == expected["labels"].tolist()
        np.testing.assert_allclose(found.scores, expected["scores"], atol=1e-5)
        np.testing.assert_allclose(found.pred_boxes.tensor, expected["boxes"], atol=0.01)
    assert tuple(predictor.class_names) == names


def test_all_kinds_of_images_agree(predictor: Predictor, tmp_path: Path):
    image = picture(64, 96)
    path = tmp_path / "picture.png"
    pil = Image.fromarray(image[:, :, ::-1].copy())
    pil.save(path)
    expected = predictor(image)
    for other in (path, str(path), pil):
        assert_same(predictor(other), expected)
    assert_same(predictor(image[:, :, ::-1], input_format="RGB"), expected)
    assert_same(predictor([path, pil])[1], expected)
    assert_same(predictor(np.stack([image, image]))[1], expected)


def test_the_models_channel_order_is_the_configs(config, weights):
    other = copy.deepcopy(config)
    other.dataloader.train.mapper.image_format = "BGR"
    image = picture(64, 96)
    expected = Predictor(config, weights, device="cpu", score_thresh=0.0)(image)
    swapped = Predictor(other, weights, device="cpu", score_thresh=0.0)(image[:, :, ::-1])
    assert_same(swapped, expected)


def test_a_batch_of_different_sizes_equals_single_images(predictor: Predictor, monkeypatch):
    sizes = [(64, 96), (128, 64), (50, 90), (64, 96)]
    images = [picture(*size, seed) for seed, size in enumerate(sizes)]
    singles = [predictor(image) for image in images]

    batches = []
    forward = predictor.model.forward
    monkeypatch.setattr(
        predictor.model, "forward", lambda inputs: batches.append(len(inputs)) or forward(inputs)
    )
    results = predictor(images)

    assert batches == [3, 1]  # three are 64 x 96 when padded to multiples of 32
    for image, result, single in zip(images, results, singles, strict=True):
        assert result.image_size == image.shape[:2]
        assert_same(result, single)


def test_boxes_are_in_pixels_of_the_given_image(config, weights):
    resized = copy.deepcopy(config)
    overrides = [
        "dataloader.test.mapper.augmentations="
        "[{_target_:detectron2.data.transforms.ResizeShortestEdge,"
        "short_edge_length:128,max_size:256}]",
        "dataloader.test.mapper.interpolation=pil",
    ]
    image = picture(64, 96)
    large = Predictor(resized, weights, device="cpu", score_thresh=0.0, overrides=overrides)(image)
    assert large.image_size == (64, 96)
    same = Predictor(config, weights, device="cpu", score_thresh=0.0)
    from_pil_resize = same(Image.fromarray(image[:, :, ::-1].copy()).resize((192, 128), 2))
    boxes = from_pil_resize.pred_boxes.tensor / 2
    assert torch.allclose(large.pred_boxes.tensor, boxes, atol=0.05)


def test_pictures_are_resized_as_the_configuration_says(config, weights):
    overrides = [
        "dataloader.test.mapper.augmentations=[{_target_:"
        "detectron2.data.transforms.ResizeShortestEdge,short_edge_length:32}]"
    ]
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    inputs = {}
    for name in ("pil", "opencv"):
        chosen = [*overrides, f"dataloader.test.mapper.interpolation={name}"]
        made = Predictor(config, weights, device="cpu", overrides=chosen)
        inputs[name] = made._to_input(image, "BGR")["image"].permute(1, 2, 0).numpy()[..., ::-1]
    assert (inputs["opencv"] == cv2.resize(image, (48, 32))).all()
    assert (inputs["pil"] != inputs["opencv"]).any()


def test_a_stream_takes_images_as_results_are_taken(predictor: Predictor, monkeypatch):
    monkeypatch.setattr(predictor, "batch_size", 2)
    taken, closed = [], []

    def images():
        try:
            for number in range(10):
                taken.append(number)
                yield picture(64, 64, number)
        finally:
            closed.append(len(taken))

    stream = predictor.stream(images())
    assert not taken
    first = next(stream)
    assert taken == [0, 1]
    stream.close()
    assert closed == [2]
    assert_same(first, predictor(picture(64, 64, 0)))
    assert list(stream) == list(predictor.stream([])) == predictor([]) == []


def test_a_stream_is_of_several_images(predictor: Predictor):
    """A path is not a list of characters, nor an array one of grey rows."""
    for image in (picture(64, 96), "street.jpg", Path("street.jpg"), Image.new("RGB", (8, 8))):
        with pytest.raises(TypeError, match="stream takes several images"):
            predictor.stream(image)
    with pytest.raises(ValueError, match="input_format"):
        predictor.stream([picture(64, 96)], input_format="HSV")


def test_score_threshold(predictor: Predictor, config, weights):
    image = picture(64, 96)
    everything = predictor(image).scores
    threshold = float(everything.median())
    strict = Predictor(config, weights, device="cpu", score_thresh=threshold)
    assert torch.equal(strict(image).scores, everything[everything >= threshold])


def test_a_threshold_for_each_class(predictor: Predictor, config, weights, tmp_path: Path):
    """By name, from a dict or the report's file; classes without one have the predictor's."""
    image = picture(64, 96)
    low = Predictor(config, weights, score_thresh=0.01)(image)
    common, rare = low.pred_classes.bincount().argsort(descending=True)[:2].tolist()
    names = predictor.class_names
    own = {names[common]: 0.99, names[rare]: 0.02}
    found = Predictor(config, weights, score_thresh=0.01, thresholds=own)(image)
    assert common not in found.pred_classes and len(found) < len(low)
    assert (found.pred_classes == rare).sum() == (low.pred_classes == rare)[
        low.scores >= 0.02
    ].sum()
    file = tmp_path / "thresholds.json"
    file.write_text(json.dumps({"iou": 0.5, "thresholds": own}))
    # 0.5 would have the model hold back what the file lets through
    again = Predictor(config, weights, score_thresh=0.5, thresholds=file)(image)
    assert (again.pred_classes == rare).sum() == (found.pred_classes == rare).sum()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"thresholds": {"no such class": 0.3}}, "no class 'no such class'; it has"),
        ({"class": 1.5}, "from 0 to 1, not 1.5"),
        ({"class": "0.3"}, "from 0 to 1, not '0.3'"),
        ({"thresholds": {}}, "no thresholds"),
    ],
)
def test_thresholds_that_cannot_be_meant(content, message, tmp_path: Path):
    file = tmp_path / "thresholds.json"
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        class_thresholds(file, ["class", "other"])
    with pytest.raises(InputError, match="there is no file"):
        class_thresholds(tmp_path / "none.json", ["class"])


def test_the_models_own_threshold_does_not_hold_up_a_lower_one(config, weights):
    image = picture(64, 96)
    own = ["model.postprocessor.score_thresh=0.12", "model.postprocessor.max_detections=1000"]
    at = {
        score: Predictor(config, weights, device="cpu", score_thresh=score, overrides=own)(image)
        for score in (0.02, 0.12, 0.2)
    }
    lowest = at[0.02].scores
    assert 0.02 <= lowest.min() < 0.12
    for score in (0.12, 0.2):
        assert torch.equal(at[score].scores, lowest[lowest >= score])


def test_exif_orientation(predictor: Predictor, tmp_path: Path):
    path = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    Image.fromarray(picture(64, 96)).save(path, exif=exif)
    assert predictor(path).image_size == (96, 64)
    assert predictor(Image.open(path)).image_size == (96, 64)


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (np.zeros((8, 8, 3), np.float32), ValueError, "uint8.*got float32"),
        (np.zeros((8, 8, 4), np.uint8), ValueError, r"shape \(8, 8, 4\)"),
        (np.zeros((0, 8, 3), np.uint8), ValueError, r"shape \(0, 8, 3\)"),
        ([torch.zeros(3, 8, 8)], TypeError, "array, a path or a PIL image"),
        (None, TypeError, "not NoneType; several of them go in a list"),
        (3, TypeError, "not int; several"),
        (b"a.png", TypeError, "not bytes; several"),
        ("absent.png", FileNotFoundError, "absent.png"),
    ],
)
def test_what_is_not_an_image(predictor: Predictor, image, error, message):
    with pytest.raises(error, match=message):
        predictor(image)
    with pytest.raises(ValueError, match="input_format"):
        predictor(picture(8, 8), input_format="HSV")


def test_grey_arrays_have_three_equal_channels():
    grey = np.arange(6, dtype=np.uint8).reshape(2, 3)
    array = to_array(grey, "RGB")
    assert array.shape == (2, 3, 3)
    assert all((array[:, :, i] == grey).all() for i in range(3))


def test_results_are_taken_by_other_libraries(predictor: Predictor):
    """What ``supervision.Detections.from_detectron2`` reads."""
    output = {"instances": predictor(picture(64, 96))}
    assert output["instances"].pred_boxes.tensor.cpu().numpy().shape[1] == 4
    assert output["instances"].scores.cpu().numpy().ndim == 1
    assert output["instances"].pred_classes.cpu().numpy().astype(int).max() < len(NAMES)
    supervision = pytest.importorskip("supervision")
    assert len(supervision.Detections.from_detectron2(output)) == len(output["instances"])


def test_star(predictor: Predictor):
    image = picture(64, 96)
    plain = predictor(image)
    star = predictor.predict_star(image)
    assert_same(star, plain)
    assert len(star.init_boxes) == len(plain)
    assert star.star_points.shape == (len(plain), 9, 2)
    # Eight of the nine points span the initial box (VarifocalNet, section 4.3).
    corners = torch.cat([star.star_points.amin(1), star.star_points.amax(1)], dim=1)
    assert torch.allclose(corners, star.init_boxes.tensor, atol=1e-3)
    assert not predictor(image).has("star_points")


def test_star_needs_vfnet(predictor: Predictor, monkeypatch):
    monkeypatch.setattr(type(predictor.model), "extra_fields", {})
    with pytest.raises(TypeError, match="no star points"):
        predictor.predict_star(picture(64, 96))


def test_star_is_for_the_thread_that_asks(predictor: Predictor):
    """Two threads in the network at the same time; one of them asked for star points."""
    image, barrier = picture(64, 96), threading.Barrier(2, timeout=60)
    plain, star = predictor(image), predictor.predict_star(image)

    def meet(*_: object) -> None:
        barrier.wait()

    meeting = predictor.model.backbone.register_forward_pre_hook(meet)
    try:
        with ThreadPoolExecutor(2) as pool:
            for _ in range(3):
                asked = pool.submit(predictor.predict_star, image)
                other = pool.submit(predictor, image)
                assert asked.result().get_fields().keys() == star.get_fields().keys()
                assert other.result().get_fields().keys() == plain.get_fields().keys()
    finally:
        meeting.remove()


def test_class_names(config, weights, state, tmp_path: Path, caplog):
    assert Predictor(config, weights, device="cpu").class_names == NAMES
    assert Predictor(config, weights, device="cpu").metadata.thing_classes == NAMES

    unnamed = tmp_path / "unnamed.pth"
    torch.save({"model": state}, unnamed)
    dataset = copy.deepcopy(config)
    dataset.dataloader.test.dataset.names = "predictor_test_set"
    assert Predictor(dataset, unnamed, device="cpu").class_names[5] == "class 5"
    assert "no class names" in caplog.text
    MetadataCatalog.get("predictor_test_set").thing_classes = list("uvwxyz")
    try:
        assert Predictor(dataset, unnamed, device="cpu").class_names == list("uvwxyz")
        assert "unnamed.pth has no class names: its classes are taken to be those of" in caplog.text
        caplog.clear()
        assert Predictor(dataset, weights, device="cpu").class_names == NAMES
        assert "no class names" not in caplog.text
    finally:
        MetadataCatalog.remove("predictor_test_set")

    wrong = tmp_path / "wrong.pth"
    torch.save({"model": state, "class_names": ["only one"]}, wrong)
    with pytest.raises(CheckpointMismatchError, match="wrong.pth: names 1 classes.*builds 6"):
        Predictor(config, wrong, device="cpu")


def test_weights_must_fill_the_model(config, state, tmp_path: Path):
    with pytest.raises(ValueError, match="names no weights"):
        Predictor(config)
    backbone = {k: v for k, v in state.items() if k.startswith("backbone.")}
    path = tmp_path / "backbone.pth"
    torch.save({"model": backbone | {"head.x": torch.zeros(1)}}, path)
    with pytest.raises(CheckpointMismatchError, match="backbone.pth.*(?s:.*)head.cls_tower"):
        Predictor(config, path, device="cpu")


def test_averaged_weights_come_first(config, state, tmp_path: Path):
    path = tmp_path / "ema.pth"
    averaged = {key: value + 1 for key, value in state.items()}
    torch.save({"model": state, "ema": averaged, "class_names": NAMES}, path)
    key = "head.cls_star.weight"
    with_ema = Predictor(config, path, device="cpu").model.state_dict()
    without = Predictor(config, path, device="cpu", use_ema=False).model.state_dict()
    assert torch.equal(with_ema[key], averaged[key])
    assert torch.equal(without[key], state[key])


def test_yacs(tmp_path: Path):
    cfg = get_cfg_with_keys()
    cfg.MODEL.META_ARCHITECTURE = "VFNet"
    cfg.MODEL.BACKBONE.NAME = "build_vfnet_yolof_resnet_fpn_backbone"
    cfg.MODEL.RESNETS.DEPTH = 18
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 32
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res3", "res4", "res5"]
    cfg.MODEL.FPN.IN_FEATURES = ["res3", "res4", "res5"]
    cfg.MODEL.FPN.OUT_CHANNELS = 64
    cfg.MODEL.VFNET.CONV_CHANNELS = 64
    cfg.MODEL.VFNET.NUM_CONVS = 1
    cfg.MODEL.VFNET.NUM_CLASSES = 2
    cfg.MODEL.VFNET.SCORE_THRESH_TEST = 0.001
    cfg.INPUT.MIN_SIZE_TEST = 64
    cfg.DATASETS.TEST = ()
    file = tmp_path / "vfnet.yaml"
    file.write_text(cfg.dump())

    from vfnet_yolof.config.inference import read_inference_config

    path = tmp_path / "vfnet.pth"
    model = read_inference_config(file).build_model()
    torch.save({"model": model.state_dict(), "class_names": ["a", "b"]}, path)
    image = picture(64, 64)
    from_file = Predictor(file, device="cpu", score_thresh=0.0, overrides=[f"MODEL.WEIGHTS={path}"])
    from_object = Predictor(cfg, path, device="cpu", score_thresh=0.0)
    assert from_file.cfg.image_format == cfg.INPUT.FORMAT == "BGR"
    assert from_file.class_names == ["a", "b"]
    assert_same(from_file(image), from_object(image))


def test_saved_lazy_config(config, weights, tmp_path: Path):
    from detectron2.config import LazyConfig

    file = tmp_path / "config.yaml"
    LazyConfig.save(config, str(file))
    image = picture(64, 96)
    expected = Predictor(config, weights, device="cpu", score_thresh=0.0)(image)
    assert_same(Predictor(file, weights, device="cpu", score_thresh=0.0)(image), expected)


def test_the_package_offers_it():
    assert vfnet_yolof.Predictor is Predictor
