"""The same data in each format are the same data: classes, boxes and AP."""

from __future__ import annotations

import json
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import data_formats as formats
import numpy as np
import pytest
import torch
from data_formats import ALL, CLASSES, EXACT, Picture
from detectron2.structures import Boxes, Instances
from vfnet_yolof.data import register_user_datasets, validate_coco
from vfnet_yolof.data.annotations import Annotations, load_annotations
from vfnet_yolof.data.layouts import Split, open_data
from vfnet_yolof.evaluation import CocoEvaluator


def opened(path: Path, split: float | None = None) -> Split:
    part = open_data(path, split).train
    assert part is not None
    return part


def boxes_of(annotations: Annotations) -> dict[str, list[tuple[str, list[float]]]]:
    """Class name and box by the image's name."""
    names = list(annotations.categories.values())
    found: dict[str, list[tuple[str, list[float]]]] = {
        Path(image.file_name).name: [] for image in annotations.images
    }
    for image, category, box, _, _ in annotations.rows():
        found[Path(annotations.images[image].file_name).name].append((names[category], box))
    return found


def average_precision(part: Split, given: list[Picture]) -> dict[str, float]:
    """All figures of detections that follow from the images' names alone."""
    name = register_user_datasets(None, None, *part).val_name
    evaluator = CocoEvaluator(name, distributed=False)
    ids = {Path(x.file_name).name: x.id for x in load_annotations(part.json_file).images}
    for i, picture in enumerate(given):
        rng = np.random.default_rng(i)
        kept = [b for b in picture.boxes if rng.random() < 0.9]
        noise = rng.normal(0, 2, (len(kept), 4))
        corners = np.array([[b.x, b.y, b.x + b.w, b.y + b.h] for b in kept]).reshape(-1, 4) + noise
        found = Instances((picture.height, picture.width))
        found.pred_boxes = Boxes(torch.tensor(np.append(corners, [[1, 2, 30, 40]], axis=0)))
        found.scores = torch.tensor(rng.random(len(kept) + 1))
        classes = [CLASSES.index(b.label) for b in kept]
        found.pred_classes = torch.tensor([*classes, int(rng.integers(3))])
        evaluator.process([{"image_id": ids[picture.name]}], [{"instances": found}])
    return evaluator.evaluate()["bbox"]


class TestSameData:
    GIVEN = formats.pictures()

    @pytest.mark.parametrize("name", ALL)
    def test_valid_and_of_the_same_classes(self, name: str, tmp_path: Path) -> None:
        part = opened(ALL[name](tmp_path / "data", self.GIVEN))
        report = validate_coco(*part, images="decode")
        assert report.ok and not report.warnings, report.format()
        assert list(report.class_counts) == CLASSES
        assert report.num_images == 20

    @pytest.mark.parametrize("name", EXACT)
    def test_boxes_and_ap_of_formats_with_fractions(self, name: str, tmp_path: Path) -> None:
        part = opened(EXACT[name](tmp_path / "data", self.GIVEN))
        found = boxes_of(load_annotations(part.json_file))
        assert found.keys() == {picture.name for picture in self.GIVEN}
        for picture in self.GIVEN:
            assert [label for label, _ in found[picture.name]] == [b.label for b in picture.boxes]
            for (_, box), (_, *expected) in zip(found[picture.name], picture.boxes, strict=True):
                assert box == pytest.approx(expected, abs=1e-8)  # px
        coco = opened(formats.write_coco(tmp_path / "coco", self.GIVEN))
        expected_ap = average_precision(coco, self.GIVEN)
        assert 20 < expected_ap["AP"] < 80
        assert average_precision(part, self.GIVEN) == pytest.approx(
            expected_ap, abs=1e-4, nan_ok=True
        )

    def test_voc_is_the_coco_file_with_whole_pixels(self, tmp_path: Path) -> None:
        part = opened(formats.write_voc(tmp_path / "voc", self.GIVEN))
        whole = [p._replace(boxes=[formats.rounded(b) for b in p.boxes]) for p in self.GIVEN]
        found = boxes_of(load_annotations(part.json_file))
        for picture, exact in zip(whole, self.GIVEN, strict=True):
            assert [box for _, box in found[picture.name]] == [list(b[1:]) for b in picture.boxes]
            for (_, (x, y, w, h)), b in zip(found[picture.name], exact.boxes, strict=True):
                assert np.allclose([x, y, x + w, y + h], [b.x, b.y, b.x + b.w, b.y + b.h], atol=1)
        coco = opened(formats.write_coco(tmp_path / "coco", whole))
        assert average_precision(part, self.GIVEN) == pytest.approx(
            average_precision(coco, self.GIVEN), abs=1e-9, nan_ok=True
        )

    @pytest.mark.parametrize("name", ALL)
    def test_split_is_the_same_in_each_format(self, name: str, tmp_path: Path) -> None:
        splits = open_data(ALL[name](tmp_path / "data", self.GIVEN), 0.25)
        assert splits.train and splits.val and splits.is_named
        train, val = (load_annotations(part.json_file) for part in (splits.train, splits.val))
        assert len(train.images) == 15
        expected = [2, 4, 5, 10, 14]
        assert sorted(boxes_of(val)) == [f"image_{i:03}.png" for i in expected]
        assert list(val.categories.values()) == list(train.categories.values()) == CLASSES


def test_again_gives_the_same_files_and_the_log_says_what_they_are(
    tmp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = formats.write_yolo(tmp_path / "my data", formats.pictures(3))
    first = opened(root)
    assert Path(first.json_file).is_relative_to(cache / "data")
    assert Path(first.json_file).parent.name.startswith("my-data-")
    content = Path(first.json_file).read_bytes()
    with caplog.at_level(logging.INFO):
        assert opened(root) == first
    assert Path(first.json_file).read_bytes() == content
    assert f"{root}: YOLO, 3 images with" in caplog.text
    assert "3 classes: 'bird', 'cat', 'dog'" in caplog.text
    assert json.loads(content)["images"][0]["file_name"] == "images/train/image_000.png"
    assert first.images == str(root)


def test_processes_may_open_at_once(tmp_path: Path) -> None:
    root = formats.write_yolo(tmp_path / "data", formats.pictures(5))
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: open_data(root, 0.4), range(16)))
    assert len(found) == 1
    (splits,) = found
    assert splits.val and len(load_annotations(splits.val.json_file).images) == 2
    assert len(list(Path(splits.val.json_file).parent.iterdir())) == 2


class TestOwnOrder:
    """Classes come in the format's order, and of all that are listed, used or not."""

    ORDER = ["dog", "bird", "unused", "cat"]

    @pytest.mark.parametrize("name", ["COCO", "YOLO", "CVAT"])
    def test_listed_classes(self, name: str, tmp_path: Path) -> None:
        root = ALL[name](tmp_path, formats.pictures(), self.ORDER)  # type: ignore[call-arg]
        categories = load_annotations(opened(root).json_file).categories
        assert list(categories.items()) == list(enumerate(self.ORDER, 1))

    @pytest.mark.parametrize("name", ["YOLO", "CVAT"])
    def test_a_class_that_is_not_listed(self, name: str, tmp_path: Path) -> None:
        root = ALL[name](tmp_path, formats.pictures())
        for path in (tmp_path / "data.yaml", tmp_path / "annotations.xml"):
            if path.is_file():
                text = path.read_text()
                path.write_text(text.replace("<label><name>dog</name></label>", ""))
                path.write_text(path.read_text().replace("  2: dog\n", ""))
        with pytest.raises(ValueError, match="class '?(2|dog)'? ?.*(0 to 1|listed)"):
            open_data(root)


class TestLayouts:
    """Where files lie, as their programs leave them."""

    def test_roboflow_coco_without_valid(self, tmp_path: Path) -> None:
        formats.write_coco(tmp_path / "a", formats.pictures(4))
        formats.write_coco(tmp_path / "b", formats.pictures(3))
        (tmp_path / "b" / "train").rename(tmp_path / "a" / "test")
        splits = open_data(tmp_path / "a")
        assert splits.train and splits.val is None and splits.is_named
        assert len(load_annotations(splits.train.json_file).images) == 4
        splits = open_data(tmp_path / "a" / "test")
        assert splits.train and not splits.is_named
        (tmp_path / "a" / "train").rename(tmp_path / "train")
        with pytest.raises(ValueError, match="a test set only"):
            open_data(tmp_path / "a")

    @pytest.mark.parametrize("valid", ["valid", "val"])
    def test_roboflow_yolo(self, tmp_path: Path, valid: str) -> None:
        for folder in ("train", valid, "test"):
            formats.draw(tmp_path / folder / "images", formats.pictures(2))
            formats.write_labels(tmp_path / folder / "labels", formats.pictures(2))
        sets = f"train: ../train/images\nval: ../{valid}/images\ntest: ../test/images\n"
        (tmp_path / "data.yaml").write_text(f"{sets}nc: 3\nnames: ['bird', 'cat', 'dog']\n")
        for path in (tmp_path, tmp_path / "data.yaml"):
            splits = open_data(path)
            assert splits.train and splits.val
            images = load_annotations(splits.val.json_file).images
            assert [image.file_name for image in images] == [
                f"{valid}/images/image_{i:03}.png" for i in range(2)
            ]

    def test_roboflow_yolo_without_valid(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        root = formats.write_yolo(tmp_path, formats.pictures(4))
        with (root / "data.yaml").open("a") as file:
            file.write("val: ../valid/images\n")
        splits = open_data(root)
        assert splits.train and splits.val is None
        assert "not there, left out; the first: ../valid/images of" in caplog.text
        assert open_data(root, 0.5).val

    @pytest.mark.parametrize("place", [".", "labels"])
    def test_yolo_without_yaml(self, tmp_path: Path, place: str) -> None:
        formats.draw(tmp_path / "images", formats.pictures(3))
        formats.write_labels(tmp_path / "labels", formats.pictures(3))
        with pytest.raises(ValueError, match="without class names"):
            open_data(tmp_path)
        (tmp_path / place / "classes.txt").write_text("bird\ncat\ndog\n")
        splits = open_data(tmp_path)
        assert splits.train and not splits.is_named
        assert len(load_annotations(splits.train.json_file).images) == 3

    def test_labelimg_writes_yolo_beside_the_images(self, tmp_path: Path) -> None:
        formats.draw(tmp_path, formats.pictures(3))
        formats.write_labels(tmp_path, formats.pictures(3))
        (tmp_path / "classes.txt").write_text("bird\ncat\ndog\n")
        assert len(load_annotations(opened(tmp_path).json_file).images) == 3

    def test_darknet_files_of_cvat(self, tmp_path: Path) -> None:
        formats.draw(tmp_path / "obj_train_data", formats.pictures(3))
        formats.write_labels(tmp_path / "obj_train_data", formats.pictures(3))
        (tmp_path / "obj.names").write_text("bird\ncat\ndog\n")
        assert len(load_annotations(opened(tmp_path).json_file).images) == 3

    def test_yolo_lists_of_images(self, tmp_path: Path) -> None:
        formats.write_yolo(tmp_path / "data", formats.pictures(4))
        root = tmp_path / "data"
        for name, numbers in (("train", (0, 1, 2)), ("val", (3,))):
            prefix = "./" if name == "train" else "data/"
            lines = [f"{prefix}images/train/image_{i:03}.png\n" for i in numbers]
            (root / f"{name}.txt").write_text("".join(lines))
        yaml = "path: /not/here\ntrain: train.txt\nval: val.txt\nnames: [bird, cat, dog]\n"
        (root / "data.yaml").write_text(yaml)
        splits = open_data(root / "data.yaml")
        assert splits.train and len(load_annotations(splits.train.json_file).images) == 3

    def test_image_sets_of_voc(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        formats.write_voc(tmp_path, formats.pictures(5))
        sets = tmp_path / "ImageSets" / "Main"
        sets.mkdir(parents=True)
        (sets / "train.txt").write_text("image_000\nimage_001\n")
        (sets / "val.txt").write_text("image_002 -1\nimage_003  1\n")
        (sets / "cat_train.txt").write_text("image_000 1\n")
        splits = open_data(tmp_path)
        assert splits.train and splits.val
        images = load_annotations(splits.val.json_file).images
        assert [image.file_name[-7:] for image in images] == ["002.png", "003.png"]
        assert "neither train.txt nor val.txt, left out" in caplog.text
        assert "that no annotation names" not in caplog.text
        (sets / "val.txt").write_text("image_002\nimage_009\n")
        with pytest.raises(ValueError, match=r"val.txt, line 2: there is no image_009.xml"):
            open_data(tmp_path)

    @pytest.mark.parametrize("suffix", [".json", ".csv", ".xml", ".yaml"])
    def test_other_files_do_not_matter(self, tmp_path: Path, suffix: str) -> None:
        for folder in ("train", "valid"):
            formats.write_createml(tmp_path / folder, formats.pictures(3))
        for folder in (tmp_path, tmp_path / "train"):
            content = "<other/>" if suffix == ".xml" else '{"other": 1}'
            (folder / f"a{suffix}").write_text(content)
        splits = open_data(tmp_path)
        assert splits.train and splits.val

    def test_voc_beside_the_images(self, tmp_path: Path) -> None:
        for folder in ("train", "valid"):
            formats.draw(tmp_path / folder, formats.pictures(3))
            for picture in formats.pictures(3):
                formats.write_voc_file(tmp_path / folder, picture)
        splits = open_data(tmp_path)
        assert splits.train and splits.val
        assert not open_data(tmp_path / "valid").is_named

    @pytest.mark.parametrize("names", [("train.csv", "val.csv"), ("a_train.csv", "a_valid.csv")])
    def test_tables_by_name(self, tmp_path: Path, names: tuple[str, str]) -> None:
        formats.write_csv(tmp_path, formats.pictures(4))
        rows = (tmp_path / "_annotations.csv").read_text().splitlines(keepends=True)
        (tmp_path / "_annotations.csv").unlink()
        of_last = [row for row in rows if row.startswith("image_003")]
        (tmp_path / names[0]).write_text("".join(row for row in rows if row not in of_last))
        (tmp_path / names[1]).write_text("".join([rows[0], *of_last]))
        splits = open_data(tmp_path)
        assert splits.train and len(load_annotations(splits.train.json_file).images) == 3
        assert splits.val and len(load_annotations(splits.val.json_file).images) == 1

    @pytest.mark.parametrize(
        ("header", "row"),
        [
            ("image;label;x;y;width;height", "a b.png;cat;4.5;3;20;15"),
            ("Image Path,Class Name,X,Y,W,H,width,height", "else/a b.png,cat,4.5,3,20,15,40,30"),
            (
                "label_name,bbox_x,bbox_y,bbox_width,bbox_height,image_name",
                "cat,4.5,3,20,15,a b.png",
            ),
            ("path, class, x1, y1, x2, y2", "/a/a b.png, cat, 4.5, 3, 24.5, 18"),
            ("\ufefffile,category,left,top,right,bottom,score", "a b.png,cat,4.5,3,24.5,18,"),
        ],
    )
    def test_columns_of_tables(self, header: str, row: str, tmp_path: Path) -> None:
        formats.draw(tmp_path, [Picture("a b.png", 40, 30, [])])
        (tmp_path / "boxes.csv").write_text(f"{header}\r\n{row}\r\n", encoding="utf-8")
        found = load_annotations(opened(tmp_path).json_file)
        assert boxes_of(found) == {"a b.png": [("cat", [4.5, 3, 20, 15])]}

    def test_createml_of_labelimg(self, tmp_path: Path) -> None:
        formats.write_createml(tmp_path, formats.pictures(3))
        file = tmp_path / "_annotations.createml.json"
        for entry in json.loads(file.read_text()):
            path = (tmp_path / entry["image"]).with_suffix(".json")
            path.write_text(json.dumps([entry | {"verified": False}]))
        file.unlink()
        assert len(load_annotations(opened(tmp_path).json_file).images) == 3

    def test_subsets_of_a_cvat_project(self, tmp_path: Path) -> None:
        formats.write_cvat(tmp_path, formats.pictures(4))
        path = tmp_path / "annotations.xml"
        text = path.read_text()
        for i, subset in enumerate(("Train", "Train", "Validation", "Test")):
            text = text.replace(f'<image id="{i}" ', f'<image id="{i}" subset="{subset}" ')
        path.write_text(text)
        splits = open_data(tmp_path)
        assert splits.train and len(load_annotations(splits.train.json_file).images) == 2
        assert splits.val and len(load_annotations(splits.val.json_file).images) == 1

    def test_cvat_and_label_studio_write_coco_so(self, tmp_path: Path) -> None:
        formats.write_coco(tmp_path, formats.pictures(3))
        (tmp_path / "annotations").mkdir()
        (tmp_path / "train").rename(tmp_path / "images")
        file = tmp_path / "images" / "_annotations.coco.json"
        for name in ("annotations/instances_default.json", "result.json"):
            file = file.rename(tmp_path / name)
            for path in (tmp_path, file):
                part = opened(path)
                assert part == (str(file), str(tmp_path / "images"))

    def test_images_found_by_name(self, tmp_path: Path) -> None:
        """Paths of another machine, uploads of Label Studio, Windows' separators."""
        root = formats.write_csv(tmp_path / "csv", formats.pictures(3))
        table = root / "_annotations.csv"
        table.write_text(table.read_text().replace("image_", "C:\\me\\pictures\\image_"))
        assert len(load_annotations(opened(root).json_file).images) == 3
        (root / "data").mkdir()
        table = table.rename(root / "data" / "labels.csv")
        (root / "images").mkdir()
        for path in root.glob("*.png"):
            path.rename(root / "images" / path.name)
        assert len(load_annotations(opened(table).json_file).images) == 3
        root = formats.write_label_studio(tmp_path / "studio", formats.pictures(3))
        file = root / "project-1.json"
        uploaded = "/data/upload/3/0a1b2c3d-image_"
        file.write_text(file.read_text().replace("/data/local-files/?d=images/image_", uploaded))
        assert len(load_annotations(opened(root).json_file).images) == 3

    def test_two_images_of_one_name(self, tmp_path: Path) -> None:
        given = formats.pictures(3)
        root = formats.write_label_studio(tmp_path, given)
        file = root / "project-1.json"
        file.write_text(file.read_text().replace("?d=images/", "?d="))
        formats.draw(root / "more", given[:1])
        with pytest.raises(ValueError, match=r"task 0: .*may be .*images.image_000.*more.image"):
            open_data(root)
        file.write_text(file.read_text().replace("?d=", "?d=far/more/"))
        assert opened(root)

    def test_what_is_none_or_several(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="no such file or folder"):
            open_data(tmp_path / "absent")
        formats.draw(tmp_path / "masks", formats.pictures(2))
        with pytest.raises(ValueError, match=r"known layouts \(.*YOLO: data.yaml.*It has images"):
            open_data(tmp_path / "masks")
        root = formats.write_coco(tmp_path / "coco", formats.pictures(2)) / "train"
        content = (root / "_annotations.coco.json").read_text()
        (root / "_annotations.coco.json").rename(root / "a.json")
        (root / "b_train.json").write_text(content)
        with pytest.raises(ValueError, match="annotations of train, and others of no set"):
            open_data(root)
        root = formats.write_voc(tmp_path / "both", formats.pictures(2))
        formats.write_csv(root, formats.pictures(2))
        with pytest.raises(ValueError, match="several layouts .*Pascal VOC, by .*; CSV, by"):
            open_data(root)
        assert len(load_annotations(opened(root / "_annotations.csv").json_file).images) == 2
