"""What is mapped, left out and refused of annotations, and where the message says it is."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import data_formats as formats
import pytest
from data_formats import Box, Picture
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from vfnet_yolof.data import validate_coco
from vfnet_yolof.data.annotations import load_annotations
from vfnet_yolof.data.layouts import Split, open_data

OWN_DATA = Path(__file__).parents[1] / "data" / "own_data"
ONE = [Picture("a b.png", 40, 30, [Box("cat", 4.0, 3.0, 20.0, 15.0)])]


def opened(path: Path) -> Split:
    part = open_data(path).train
    assert part is not None
    return part


def rows(path: Path) -> dict[str, list[tuple[str, list[float], bool]]]:
    """Class, box and crowd flag of each box, by the image's name."""
    annotations = load_annotations(opened(path).json_file)
    names = list(annotations.categories.values())
    found: dict[str, list[tuple[str, list[float], bool]]] = {
        Path(x.file_name).name: [] for x in annotations.images
    }
    for image, category, box, _, crowd in annotations.rows():
        name = Path(annotations.images[image].file_name).name
        found[name].append((names[category], box, crowd))
    return found


class TestTrickySets:
    """Names with a space and in Chinese, no boxes, boxes at the border, outlines, difficult."""

    BOXES = {
        "two words.png": [("方块", [2, 3, 4, 6], False)],
        "图片.png": [("circle", [0, 0, 16, 12], False)],
        "empty.png": [],
        "border.png": [("方块", [12, 0, 4, 6], False), ("circle", [1, 7, 4, 4], False)],
    }

    def test_yolo(self, caplog: pytest.LogCaptureFixture) -> None:
        found = rows(OWN_DATA / "yolo" / "data.yaml")
        assert found.keys() == self.BOXES.keys()
        for name, expected in self.BOXES.items():
            assert [x[0] for x in found[name]] == [x[0] for x in expected]
            for (_, box, _), (_, wanted, _) in zip(found[name], expected, strict=True):
                assert box == pytest.approx(wanted, abs=1e-9)
        assert re.search("outlines or turned boxes.*border.txt, line 2", caplog.text)

    def test_a_line_with_too_few_numbers(self) -> None:
        with pytest.raises(ValueError, match=r"short\.txt, line 3: 3 numbers after the class"):
            open_data(OWN_DATA / "yolo" / "broken.yaml")

    def test_voc(self, caplog: pytest.LogCaptureFixture) -> None:
        found = rows(OWN_DATA / "voc")
        border = [*self.BOXES["border.png"][:1], ("circle", [1, 7, 4, 4], True)]
        assert found == self.BOXES | {"border.png": border}
        assert re.search("marked difficult, neither learnt.*border.xml, line 10", caplog.text)
        assert validate_coco(*opened(OWN_DATA / "voc"), images="decode").ok


def broken(write: Callable[[Path, list[Picture]], Path], file: str, old: str, new: str):
    """A data set of one image in which a text is replaced."""

    def make(root: Path) -> Path:
        write(root, ONE)
        text = (root / file).read_text(encoding="utf-8")
        assert old in text
        (root / file).write_text(text.replace(old, new), encoding="utf-8")
        return root

    return make


def yolo_line(line: str) -> Callable[[Path], Path]:
    def make(root: Path) -> Path:
        formats.write_yolo(root, ONE)
        (root / "labels" / "train" / "a b.txt").write_text(f"1 0.5 0.5 0.5 0.5\n{line}\n")
        return root

    return make


VOC, CVAT, CSV = "Annotations/a b.xml", "annotations.xml", "_annotations.csv"
ML, ME, LS = "_annotations.createml.json", "a b.json", "project-1.json"

# Twelve lists, each of nine times the one before.
BOMB = "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9) if i else 1}]\n" for i in range(12))

REFUSED = {
    "yolo class beyond": (yolo_line("3 0.5 0.5 0.1 0.1"), r"a b.txt, line 2: class 3 .* 0 to 2"),
    "yolo class text": (yolo_line("cat 0.5 0.5 0.1 0.1"), "a b.txt, line 2: the class .*'cat'"),
    "yolo text": (yolo_line("1 0.5 O.5 0.1 0.1"), "a b.txt, line 2: a coordinate .*'O.5'"),
    "yolo nan": (yolo_line("1 0.5 nan 0.1 0.1"), "a b.txt, line 2: a coordinate .*'nan'"),
    "yolo pixels": (yolo_line("1 12 15 4 4"), "a b.txt, line 2: .*shares of the image.* not 12"),
    "yolo scores": (yolo_line("1 0.5 0.5 0.1 0.1 0.9"), "a b.txt, line 2: 5 numbers"),
    "yolo negative": (yolo_line("1 0.5 0.5 -0.001 0.1"), "a b.txt, line 2: .*negative"),
    "yolo no class": (yolo_line("1"), "a b.txt, line 2: 0 numbers after the class"),
    "yolo yaml": (broken(formats.write_yolo, "data.yaml", "names:", "names: ["), "not valid YAML"),
    "yolo names": (
        broken(formats.write_yolo, "data.yaml", "  1: cat", "  3: cat"),
        r"data.yaml: names should be numbered 0, 1, .*\[0, 3, 2\]",
    ),
    "yolo boolean": (broken(formats.write_yolo, "data.yaml", ": cat", ": no"), "name 1 is False"),
    "yolo same": (
        broken(formats.write_yolo, "data.yaml", ": cat", ": dog"),
        "'dog' is listed twice",
    ),
    "yolo bomb": (
        broken(formats.write_yolo, "data.yaml", "names:", f"{BOMB}names: [*a11]\nother:"),
        "name 0 is a list; write a name",
    ),
    "yolo nc": (broken(formats.write_yolo, "data.yaml", "names", "nc: 4\nnames"), "nc is 4, but"),
    "yolo folder": (
        broken(formats.write_yolo, "data.yaml", "images/train", "images/other"),
        "data.yaml: train is images/other, which is not below",
    ),
    "voc text": (
        broken(formats.write_voc, VOC, "<xmin>5<", "<xmin>five<"),
        "line 6: <xmin> .*five",
    ),
    "voc no box": (broken(formats.write_voc, VOC, "bndbox", "robndbox"), "line 5: .*no <bndbox>"),
    "voc no name": (broken(formats.write_voc, VOC, "cat", " "), "line 5: <name> should be"),
    "voc reversed": (
        broken(formats.write_voc, VOC, "<xmax>24<", "<xmax>2<"),
        "line 6: the box ends before it begins: 5 4 2 18",
    ),
    "voc no xml": (
        broken(formats.write_voc, VOC, "</bndbox>", ""),
        "a b.xml, line 12: not valid XML: mismatched tag",
    ),
    "voc doctype": (
        broken(formats.write_voc, VOC, "<annotation>", "<!DOCTYPE a><annotation>"),
        "a b.xml, line 1: a DOCTYPE",
    ),
    "voc size": (broken(formats.write_voc, VOC, ">40<", ">40.5<"), "a b.xml: the image's size"),
    "cvat text": (broken(formats.write_cvat, CVAT, '"4.0"', '"4,0"'), "line 5: xtl .*'4,0'"),
    "cvat video": (
        broken(formats.write_cvat, CVAT, "<version>", "<track/><version>"),
        "tracks of a video",
    ),
    "createml text": (
        broken(formats.write_createml, ML, '"x": 14.0', '"x": "?"'),
        r"entry 0 \(a b.png\), annotation 0: x should be a number",
    ),
    "createml lacks": (
        broken(formats.write_createml, ML, '"width"', '"breadth"'),
        "annotation 0: width should be a number, not 'None'",
    ),
    "createml no json": (broken(formats.write_createml, ML, "[", "[,"), "not valid JSON: .*line 1"),
    "labelme point": (
        broken(formats.write_labelme, ME, "[24.0, 3.0], ", ""),
        "a b.json, shape 0: a rectangle of 1 points",
    ),
    "labelme text": (
        broken(formats.write_labelme, ME, "24.0", "null"),
        "shape 0: x should be",
    ),
    "label studio text": (
        broken(formats.write_label_studio, LS, '"x": 10.0', '"x": "left"'),
        "task 0, result 0: x should be a number, not 'left'",
    ),
    "label studio classes": (
        broken(formats.write_label_studio, LS, '["cat"]', '["cat", "dog"]'),
        "task 0, result 0: rectanglelabels should be a list of one class",
    ),
    "label studio size": (
        broken(formats.write_label_studio, LS, '"original_width": 40, ', ""),
        "task 0, result 0: original_width and original_height should be there",
    ),
    "label studio no class": (
        broken(formats.write_label_studio, LS, '"rectanglelabels", ', '"rectangle", '),
        "task 0, result 0: a rectangle without a class",
    ),
    "label studio twice": (
        broken(formats.write_label_studio, LS, '"annotations": [', '"annotations": [{}, '),
        "task 0: has 2 annotations; mark one of them as ground truth",
    ),
    "csv text": (broken(formats.write_csv, CSV, ",4.0", ",4 px"), "line 2: xmin .* not '4 px'"),
    "csv short": (broken(formats.write_csv, CSV, ",4.0", ""), "line 2: has 7 cells, the header 8"),
    "csv no class": (broken(formats.write_csv, CSV, "cat", ""), "line 2: the class in column"),
    "csv half empty": (broken(formats.write_csv, CSV, "cat,4.0", ","), "line 2: the class in"),
    "csv shares": (
        broken(formats.write_csv, CSV, "4.0,3.0,24.0,18.0", "0.1,0.1,0.6,0.6"),
        "boxes are shares of the image, but should be pixels",
    ),
    "csv header": (broken(formats.write_csv, CSV, "class", "kind"), "none of the known layouts"),
    "csv twice": (broken(formats.write_csv, CSV, "height", "width"), "line 1: column .* twice"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_one_line(case: str, tmp_path: Path) -> None:
    make, message = REFUSED[case]
    with pytest.raises(ValueError, match=message) as error:
        open_data(make(tmp_path))
    assert len(str(error.value).splitlines()) == 1
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize("write", [formats.write_cvat, formats.write_createml, formats.write_csv])
def test_images_that_are_not_there(
    write: Callable[[Path, list[Picture]], Path],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    root = write(tmp_path, formats.pictures(3))
    for path in tmp_path.rglob("image_000.png"):
        path.unlink()
        Image.new("RGB", (4, 4)).save(path.with_name("new.png"))
    assert len(load_annotations(opened(root).json_file).images) == 2
    assert re.search(r"image is not there, left out; the first: .*\(image_000.png\)", caplog.text)
    assert re.search(r"that no annotation names, left out; the first: .*new.png", caplog.text)
    for path in tmp_path.rglob("*.png"):
        path.unlink()
    with pytest.raises(ValueError, match=r"image was found. Not there: .*image_000.png"):
        open_data(root)


def test_another_sets_image_is_not_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for folder in ("train", "valid"):
        formats.write_csv(tmp_path / folder, formats.pictures(3))
    (tmp_path / "train" / "image_000.png").unlink()
    assert rows(tmp_path).keys() == {"image_001.png", "image_002.png"}
    assert "1 annotations whose image is not there" in caplog.text


def test_yolo_images_without_labels(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = formats.write_yolo(tmp_path, formats.pictures(3))
    labels = root / "labels" / "train"
    (labels / "image_000.txt").rename(labels / "gone.txt")
    assert rows(root)["image_000.png"] == []
    assert re.search(r"without a label file, used as .*image_000.png", caplog.text)
    assert re.search(r"1 label files whose image is not there.* first: .*gone.txt", caplog.text)
    for path in labels.iterdir():
        path.unlink()
    with pytest.raises(ValueError, match=r"neither this nor any .*labels.train.image_000.txt"):
        open_data(root)


def test_yolo_rounding_at_the_border(tmp_path: Path) -> None:
    root = yolo_line("1.0 0.5 0.5 1.004 1")(tmp_path)
    assert rows(root)["a b.png"][1] == ("cat", pytest.approx([-0.08, 0, 40.16, 30]), False)
    assert not validate_coco(*opened(root)).errors


def test_keypoints_are_not_an_outline(tmp_path: Path) -> None:
    root = yolo_line("1 0.5 0.5 0.2 0.2 0.1 0.1 2 0.9 0.9 1")(tmp_path)
    with pytest.raises(ValueError, match="line 2: .*not 2"):
        open_data(root)
    with (root / "data.yaml").open("a") as file:
        file.write("kpt_shape: [2, 3]\n")
    assert rows(root)["a b.png"][1][1] == pytest.approx([16, 12, 8, 6])


@pytest.mark.parametrize("corner", ["<xmin>0<", "<xmin>0.5<"])
def test_voc_counted_from_0(corner: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Boxes of all files are read as they are where one shows that pixels are counted from 0."""
    given = [*ONE, Picture("b.png", 40, 30, [Box("dog", 0.0, 3.0, 20.0, 15.0)])]
    root = formats.write_voc(tmp_path, given)
    assert rows(root)["a b.png"] == [("cat", [4, 3, 20, 15], False)]
    assert "corner below 1" not in caplog.text
    path = root / "Annotations" / "b.xml"
    path.write_text(path.read_text().replace("<xmin>1<", corner))
    assert rows(root)["a b.png"] == [("cat", [5, 4, 19, 14], False)]
    assert "1 boxes with a corner below 1" in caplog.text


def test_outlines_and_turned_boxes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = formats.write_cvat(tmp_path / "cvat", ONE)
    path = root / "annotations.xml"
    turned = 'ybr="18.0" rotation="90" z_order="0"'
    shapes = '<polygon label="dog" points="1.5,2;7,2.5;4,9"/><polyline points="1,2;3,4"/><tag/>'
    text = path.read_text().replace('ybr="18.0" z_order="0"', turned)
    path.write_text(text.replace("</image>", f"{shapes}</image>"))
    assert rows(root)["a b.png"] == [
        ("cat", pytest.approx([6.5, 0.5, 15, 20]), False),
        ("dog", [1.5, 2, 5.5, 7], False),
    ]
    assert re.search("2 outlines or turned boxes.*line 5", caplog.text)
    assert re.search("1 points, lines, masks and the like, .* first: .*line 6", caplog.text)

    root = formats.write_labelme(tmp_path / "labelme", ONE)
    path = root / "a b.json"
    content = json.loads(path.read_text())
    content["shapes"] += [
        {"label": "dog", "shape_type": "polygon", "points": [[1.5, 2], [7, 2.5], [4, 9]]},
        {"label": "dog", "shape_type": "circle", "points": [[10, 10], [13, 14]]},
        {"label": "dog", "shape_type": "point", "points": [[10, 10]]},
        {"label": "__ignore__", "shape_type": "rectangle", "points": [[1, 1], [9, 9]]},
    ]
    path.write_text(json.dumps(content))
    assert "labelled __ignore__" not in caplog.text
    assert [box for _, box, _ in rows(root)["a b.png"][1:]] == [[1.5, 2, 5.5, 7], [5, 5, 10, 10]]

    root = formats.write_label_studio(tmp_path / "studio", ONE)
    path = root / "project-1.json"
    path.write_text(path.read_text().replace('"rotation": 0', '"rotation": 90'))
    assert rows(root)["a b.png"] == [("cat", pytest.approx([-11, 3, 15, 20]), False)]


@pytest.mark.parametrize("name", ["YOLO", "CreateML", "Pascal VOC"])
def test_turned_photographs(name: str, tmp_path: Path) -> None:
    """Sizes are those of the image as it is seen, also where a file says no size."""
    root = formats.ALL[name](tmp_path, ONE)
    exif = Image.Exif()
    exif[0x0112] = 6
    for path in tmp_path.rglob("*.png"):
        Image.new("RGB", (30, 40)).save(path, exif=exif)
    for path in tmp_path.rglob("*.xml"):
        path.write_text(path.read_text().replace(">40<", ">0<"))
    assert rows(root)["a b.png"][0][1] == pytest.approx([4, 3, 20, 15])
    assert validate_coco(*opened(root)).ok


MUTABLE = {
    "YOLO": ["labels/train/a b.txt", "data.yaml"],
    "Pascal VOC": [VOC],
    "CVAT": [CVAT],
    "CreateML": [ML],
    "LabelMe": [ME],
    "Label Studio": [LS],
    "CSV": [CSV],
}


@pytest.mark.parametrize("name", MUTABLE)
def test_damaged_files_are_refused_in_one_line(name: str, tmp_path: Path) -> None:
    """Whatever bytes stand there, the data are read or a ValueError says where it is wrong."""
    root = formats.ALL[name](tmp_path / "data", ONE)
    for file in MUTABLE[name]:
        path = root / file
        intact = path.read_bytes()

        @settings(max_examples=40, deadline=None, derandomize=True)
        @given(
            st.integers(0, len(intact)),
            st.integers(0, 12),
            st.one_of(
                st.sampled_from([b"null", b"-1", b"[]", b"{}", b"\xff", b"1e999"]),
                st.binary(max_size=4),
            ),
        )
        def damage(start: int, length: int, new: bytes) -> None:
            path.write_bytes(intact[:start] + new + intact[start + length :])  # noqa: B023
            message = str(tmp_path)
            try:
                open_data(root)
            except ValueError as error:
                message = str(error)
            assert str(tmp_path) in message and len(message.splitlines()) == 1

        damage()
        path.write_bytes(intact)


def test_masks_alone_are_no_boxes(tmp_path: Path) -> None:
    root = broken(formats.write_cvat, CVAT, "<box", "<mask")(tmp_path)
    (root / CVAT).write_text((root / CVAT).read_text().replace("</box", "</mask"))
    with pytest.raises(ValueError, match="no image has a box. 1 points, lines, masks"):
        open_data(root)
