"""VFNet's table 1: what is replaced by hand, perfect boxes, and the command on every detector."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from studied import BOXES, write_data, write_studied
from tiny import (
    empty_picture,
    picture,
    tiny_atss,
    tiny_foveabox,
    tiny_gfl,
    tiny_reppoints,
    tiny_retinanet,
    tiny_vfnet,
    tiny_yolof,
)
from torch import Tensor
from vfnet_yolof.analysis.positives import Positives, see
from vfnet_yolof.analysis.ranking import COLUMNS, Column, study_ranking, substituted, told
from vfnet_yolof.analysis.subject import Subject, open_subject
from vfnet_yolof.cli.main import main
from vfnet_yolof.config.read import RunFlags
from vfnet_yolof.engine.evaluation import Evaluation
from vfnet_yolof.modeling.meta_arch.outputs import ImageOutputs

Output = pytest.CaptureFixture[str]


def column(name: str, factor: str = "") -> Column:
    (found,) = [x for x in COLUMNS if (x.name, x.factor) == (name, factor)]
    return found


class TestSubstituted:
    """Two levels of 3 and 2 locations, 2 classes; rows 1 and 4 are positive."""

    LOGITS = (torch.tensor([[0.0, 1], [2, -1], [0, 0]]), torch.tensor([[1.0, 1], [-2, 3]]))
    FACTORS = (torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.4, 0.5]))
    TRUE = torch.tensor([[0.0, 0, 10, 10], [5, 5, 15, 25]])
    IOU = torch.tensor([0.75, 0.25])
    CENTERNESS = torch.tensor([0.9, 0.6])

    def replaced(self, what: Column) -> ImageOutputs:
        def decode(level: int, index: Tensor) -> Tensor:
            return torch.full((len(index), 4), float(level))

        outputs = ImageOutputs(list(self.LOGITS), decode, (30, 30), list(self.FACTORS))
        positives = Positives(
            rows=torch.tensor([1, 4]),
            classes=torch.tensor([1, 0]),
            boxes=self.TRUE,
            pred_boxes=self.TRUE,
            scores=torch.zeros(2),
            quality=torch.zeros(2),
            iou=self.IOU,
            points=torch.zeros(2, 2),
            centerness=self.CENTERNESS,
            distances=None,
        )
        return substituted(outputs, positives, what)

    @pytest.mark.parametrize("what", COLUMNS, ids=lambda x: f"{x.name}-{x.factor}")
    def test_by_hand(self, what: Column) -> None:
        got = self.replaced(what)
        scores = [x.sigmoid() for x in self.LOGITS]
        if what.name.startswith("gt_cls"):
            values = self.IOU if what.name == "gt_cls_iou" else torch.ones(2)
            scores[0][1, 1], scores[1][1, 0] = values
        for a, b in zip(got.logits, scores, strict=True):
            torch.testing.assert_close(a.sigmoid(), b)
        boxes = [got.decode(level, torch.arange(n)) for level, n in enumerate((3, 2))]
        expected = [torch.zeros(3, 4), torch.ones(2, 4)]
        if what.name == "gt_bbox":
            expected[0][1], expected[1][1] = self.TRUE
        assert [x.tolist() for x in boxes] == [x.tolist() for x in expected]
        factors = {
            "": None,
            "predicted": [[0.1, 0.2, 0.3], [0.4, 0.5]],
            "centerness": [[0.1, 0.9, 0.3], [0.4, 0.6]],
            "iou": [[0.1, 0.75, 0.3], [0.4, 0.25]],
        }[what.factor]
        if factors is None:
            assert got.factors is None
        else:
            for a, row in zip(got.factors, factors, strict=True):
                torch.testing.assert_close(a, torch.tensor(row))

    def test_what_was_predicted_stays(self) -> None:
        before = [x.clone() for x in (*self.LOGITS, *self.FACTORS)]
        for what in COLUMNS:
            self.replaced(what)
        assert all(
            torch.equal(a, b) for a, b in zip(before, (*self.LOGITS, *self.FACTORS), strict=True)
        )


MAKERS = (
    *(tiny_atss, tiny_vfnet, tiny_gfl, tiny_yolof),
    *(tiny_retinanet, tiny_foveabox, tiny_reppoints),
)


@pytest.mark.parametrize("make", MAKERS)
def test_positives_of_every_detector(make: Callable[[], torch.nn.Module]) -> None:
    model = make().eval()
    seen = see(model, picture())
    found = seen.positives
    assert len(found.rows) > 0
    assert (found.rows.diff() > 0).all()
    assert ((found.iou >= 0) & (found.iou <= 1)).all()
    truth = picture()["instances"]
    of_boxes = (found.boxes[:, None] - truth.gt_boxes.tensor).abs().amax(2)
    distance, nearest = of_boxes.min(1)
    assert (distance <= 1).all()  # FoveaBox's end at the last pixel
    assert found.classes.tolist() == truth.gt_classes[nearest].tolist()
    logits = torch.cat(seen.outputs.logits)
    torch.testing.assert_close(found.scores, logits.sigmoid()[found.rows, found.classes])
    assert (found.distances is None) == (make in (tiny_yolof, tiny_retinanet))

    # What is chosen of the outputs as they are is what the detector finds.
    (detections,) = model.detect([picture()])
    chosen = model.postprocessor(*seen.outputs).instances
    torch.testing.assert_close(chosen.scores, detections["instances"].scores)

    empty = see(model, empty_picture())
    assert len(empty.positives.rows) == 0
    for what in COLUMNS:
        if empty.outputs.factors is not None or not what.factor:
            got = substituted(empty.outputs, empty.positives, what)
            model.postprocessor(*got)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranking")


def subject_of(folder: Path, name: str, images: int | None = None) -> Subject:
    model, _, json_file, _, image_folder, *_ = write_studied(folder / name, name)
    flags = RunFlags(val_json=json_file, val_images=image_folder, eval_only=True)
    return open_subject(model, None, [], flags, device="cpu", images=images)


def perfect(subject: Subject) -> None:
    """Make the detector predict, wherever it is to learn a box, just that box."""
    model = subject.model
    predicted = model.image_outputs
    assigned: list = []
    rows_of = model.positive_rows

    def positive_rows(targets):
        assigned[:] = [rows_of(targets)]
        return assigned[0]

    def image_outputs(images, features, predictions):
        for outputs in predicted(images, features, predictions):
            starts = torch.tensor([0, *(len(x) for x in outputs.logits)]).cumsum(0)

            def decode(level, index, outputs=outputs, starts=starts):
                boxes, (found,) = outputs.decode(level, index), assigned
                for row, box in zip(found.rows.tolist(), found.boxes, strict=True):
                    boxes[index + starts[level] == row] = box
                return boxes

            yield outputs._replace(decode=decode)

    model.image_outputs, model.positive_rows = image_outputs, positive_rows


class TestPerfectBoxes:
    def test_the_iou_as_score_is_ap_100(self, folders: Path) -> None:
        subject = subject_of(folders, "vfnet")
        perfect(subject)
        ranking = study_ranking(subject)
        assert ranking.mean_iou == pytest.approx(1.0)
        assert ranking.of("gt_cls_iou").ap == pytest.approx(100.0)
        assert ranking.of("gt_cls").ap == pytest.approx(100.0)
        # The truth in place of boxes that are true already changes nothing.
        assert ranking.of("gt_bbox").ap == pytest.approx(ranking.of("original").ap)
        assert ranking.of("original").ap < 100

    def test_true_boxes_are_put_in_whatever_was_predicted(self, folders: Path) -> None:
        subject = subject_of(folders, "atss")
        ranking = study_ranking(subject)
        assert ranking.mean_iou < 0.9
        assert ranking.of("gt_bbox").ap > ranking.of("original").ap
        assert ranking.of("gt_cls_iou").ap > ranking.of("original").ap


@pytest.mark.parametrize("name", ["atss", "yolof"])
def test_original_is_what_evaluation_measures(folders: Path, name: str) -> None:
    subject = subject_of(folders, name)
    measured = Evaluation(subject.cfg, subject.classes)(subject.model)["bbox"]
    factor = "predicted" if name == "atss" else ""
    row = study_ranking(subject).of("original", factor)
    assert (row.ap, row.ap50) == pytest.approx((measured["AP"], measured["AP50"]))


def test_only_some_images(folders: Path) -> None:
    ranking = study_ranking(subject_of(folders, "vfnet", images=2))
    assert (ranking.images, ranking.boxes) == (2, 3)
    assert ranking.positives > 0


class TestCommand:
    @pytest.mark.parametrize("name", ["atss", "vfnet", "gfl", "yolof"])
    def test_every_detector(self, name: str, tmp_path: Path, capsys: Output) -> None:
        model, *data = write_studied(tmp_path, name)
        folder = tmp_path / "out"
        assert main(["ranking", model, *data, "--output", str(folder)]) == 0
        said = capsys.readouterr().out
        content = json.loads((folder / "ranking.json").read_text())
        names = [(x["name"], bool(x["factor"])) for x in content["columns"]]
        has_branch = name == "atss"
        assert len(names) == (10 if has_branch else 4)
        assert (content["images"], content["boxes"]) == (4, len(BOXES))
        assert content["left_out"] == [] or not has_branch
        assert ("Left out" in said) == (not has_branch)
        assert ("Without its quality branch" in said) == has_branch
        page = (folder / "ranking.md").read_text()
        assert page.splitlines()[0] in said
        assert "| 74.7" in page and content["weights"].endswith("tiny.pth")

    def test_without_output_it_only_prints(self, tmp_path: Path, capsys: Output) -> None:
        model, *data = write_studied(tmp_path, "yolof")
        before = sorted(tmp_path.rglob("*"))
        assert main(["study", "ranking", model, *data]) == 0
        assert "| gt_cls_iou |" in capsys.readouterr().out
        assert sorted(tmp_path.rglob("*")) == before

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            (["--images", "0"], "--images 0: give 1 or more"),
            (["model.num_clases=3"], "Did you mean model.num_classes"),
            (["--weights", "none.pth"], "none.pth"),
            (["--device", "cuda:9"], "cuda:9"),
        ],
    )
    def test_refused(self, arguments: list[str], says: str, tmp_path: Path, capsys: Output) -> None:
        model, *data = write_studied(tmp_path, "gfl")
        output = tmp_path / "out"
        assert main(["ranking", model, *data, "--output", str(output), *arguments]) == 2
        error = capsys.readouterr().err
        assert says in error and len(error.splitlines()) == 1
        assert not output.exists()

    def test_data_that_do_not_fit(self, tmp_path: Path, capsys: Output) -> None:
        model, *data = write_studied(tmp_path, "gfl")
        command = ["ranking", model, *data, "--output", str(tmp_path / "out")]
        assert main([*command[:2], "--output", str(tmp_path / "out"), "--device", "cpu"]) == 2
        assert "classes" in capsys.readouterr().err  # of the config's own test set
        write_data(tmp_path, boxes=BOXES[3:])
        assert main([*command, "--images", "2"]) == 2
        assert "the 2 images that were looked at have no boxes" in capsys.readouterr().err
        (tmp_path / "model.onnx").touch()
        assert main(["ranking", str(tmp_path / "model.onnx"), *command[2:]]) == 2
        assert "exported detector" in capsys.readouterr().err
        assert main(["ranking", "vfnet/vfnet_small_shapes.py", *command[2:]]) == 2
        assert "has no weights: name a checkpoint with --weights" in capsys.readouterr().err


def test_sentences_say_how_far_from_the_oracle(folders: Path) -> None:
    ranking = study_ranking(subject_of(folders, "gfl", images=2))
    best, plain = ranking.of("gt_cls_iou").ap, ranking.of("original").ap
    assert any(f"{best:.1f} instead of {plain:.1f}" in sentence for sentence in told(ranking))
