"""Starting weights: each row of the class layer goes where the model has the class of its name."""

import pytest
import torch
from engine_toy import ToyDetector
from hypothesis import given
from hypothesis import strategies as st
from tiny import picture, tiny_atss, tiny_gfl, tiny_vfnet, tiny_yolof
from torch import nn
from vfnet_yolof.config.options import ConfigError
from vfnet_yolof.engine.classes import follow_names
from vfnet_yolof.engine.fine_tune import load_for_fine_tuning, load_initial_weights
from vfnet_yolof.utils.class_names import Classes

NAMES = ["ant", "bee", "cat"]  # three, as the tiny models have


class Head(nn.Module):
    """A class layer for ``anchors`` * ``classes`` channels, with a number of its own in each."""

    def __init__(self, anchors: int, classes: int, first: float) -> None:
        super().__init__()
        self.cls_logits = nn.Conv2d(2, anchors * classes, 1)
        numbers = torch.arange(anchors * classes, dtype=torch.float32) + first
        self.cls_logits.weight.data.copy_(numbers[:, None, None, None].expand(-1, 2, 1, 1))
        self.cls_logits.bias.data.copy_(numbers)


@given(
    anchors=st.integers(1, 4),
    source=st.lists(st.sampled_from("abcdef"), min_size=1, unique=True),
    target=st.lists(st.sampled_from("abcdef"), min_size=1, unique=True),
)
def test_rows_follow_names_for_all_anchors(anchors, source, target):
    saved, model = Head(anchors, len(source), 0.0), Head(anchors, len(target), 1000.0)
    weights = follow_names(
        model, saved.state_dict(), Classes(source, "old.pth"), Classes(target, "new data")
    )
    for anchor in range(anchors):
        for place, name in enumerate(target):
            row = anchor * len(target) + place
            want = row + 1000.0
            if name in source:
                want = float(anchor * len(source) + source.index(name))
            assert (weights["cls_logits.weight"][row] == want).all()
            assert weights["cls_logits.bias"][row] == want
    assert model.cls_logits.bias[0] == 1000.0  # the model is not changed here


@pytest.mark.parametrize("anchors", [1, 4])
def test_background_follows_the_classes(anchors: int) -> None:
    """The last of each anchor, as in SSD."""
    saved, model = nn.Module(), nn.Module()
    saved.head, model.head = Head(anchors, 2 + 1, 0.0), Head(anchors, 3 + 1, 1000.0)
    model.head.has_background = True
    weights = follow_names(
        model, saved.state_dict(), Classes(["a", "b"], "old.pth"), Classes(["b", "c", "a"], "new")
    )
    for anchor in range(anchors):
        of_old = 3 * anchor
        got = weights["head.cls_logits.bias"][4 * anchor : 4 * anchor + 4].tolist()
        assert got == [of_old + 1, 1000.0 + 4 * anchor + 1, of_old, of_old + 2]


@pytest.mark.parametrize("build", [tiny_vfnet, tiny_atss, tiny_gfl, tiny_yolof])
def test_a_detector_finds_the_same_names_in_another_order(build, tmp_path, caplog):
    old, new = build(seed=1).eval(), build(seed=2).eval()
    nn.init.normal_(old.head.cls_logits.weight, std=0.3)
    nn.init.zeros_(old.head.cls_logits.bias)  # so that there are detections
    path = str(tmp_path / "old.pth")
    torch.save({"model": old.state_dict(), "class_names": NAMES}, path)
    names = ["cat", "ant", "bee"]
    load_initial_weights(new, path, Classes(names, "data set 'new'"))
    with torch.no_grad():
        want, got = (model([picture()])[0]["instances"] for model in (old, new))
    assert len(set(want.pred_classes.tolist())) > 1
    torch.testing.assert_close(got.scores, want.scores)
    assert [names[k] for k in got.pred_classes] == [NAMES[k] for k in want.pred_classes]
    assert "taken over 'cat', 'ant', 'bee'; fresh none; left behind none" in caplog.text


def saved(tmp_path, names, model=None):
    path = str(tmp_path / "old.pth")
    model = ToyDetector(num_classes=len(names)) if model is None else model
    torch.save({"model": model.state_dict(), "class_names": names}, path)
    return path, model.state_dict()


def test_fine_tuning_keeps_the_classes_that_both_have(tmp_path, caplog):
    path, old = saved(tmp_path, ["ant", "bee", "cat", "dog"])
    model = ToyDetector(num_classes=3)
    fresh = {k: v.clone() for k, v in model.state_dict().items()}
    report = load_for_fine_tuning(model, path, Classes(["dog", "eel", "ant"], "data set 'new'"))
    assert not report.mismatched
    for name in ("cls_score.weight", "cls_score.bias"):
        rows = model.state_dict()[name]
        assert torch.equal(rows, torch.stack([old[name][3], fresh[name][1], old[name][0]]))
    assert "taken over 'dog', 'ant'; fresh 'eel'; left behind 'bee', 'cat'" in caplog.text


def test_other_classes_of_the_same_number_start_afresh(tmp_path, caplog):
    path, _ = saved(tmp_path, NAMES)
    model = ToyDetector()
    fresh = model.cls_score.weight.detach().clone()
    load_for_fine_tuning(model, path, Classes(["red", "blue", "green"], "data set 'new'"))
    assert torch.equal(model.cls_score.weight, fresh)
    assert "taken over none; fresh 'red', 'blue', 'green'" in caplog.text


@pytest.mark.parametrize(("source", "target"), [([], NAMES), (NAMES, [])], ids=["old file", "data"])
def test_without_names_shapes_decide_and_that_is_said(tmp_path, caplog, source, target):
    path, old = saved(tmp_path, source, ToyDetector())
    model = ToyDetector()
    load_for_fine_tuning(model, path, Classes(target, "data set 'new'"))
    assert torch.equal(model.cls_score.weight, old["cls_score.weight"])
    unnamed = "data set 'new'" if source else path
    assert f"{unnamed} has no class names: the class layer of {path} is taken over" in caplog.text


def test_other_anchors_are_not_taken_for_other_classes(tmp_path, caplog):
    """Two classes at three anchors and three classes at two have the same shape."""
    model = Head(2, 3, 1000.0)
    weights = follow_names(
        model,
        Head(3, 2, 0.0).state_dict(),
        Classes(["ant", "bee"], "old.pth"),
        Classes(NAMES, "data set 'new'"),
    )
    assert not weights
    assert "old.pth: cls_logits.weight is built otherwise and starts afresh" in caplog.text


@pytest.mark.parametrize(
    "target", [["ant", "bee", "Cat"], ["ant", "bee"], ["ant", "bee", "cat", "dog"]]
)
def test_init_checkpoint_must_have_the_same_classes(tmp_path, target):
    path, _ = saved(tmp_path, NAMES)
    with pytest.raises(ConfigError, match=r"init_checkpoint=.*other classes.*only .*--weights"):
        load_initial_weights(ToyDetector(len(target)), path, Classes(target, "data set 'new'"))


def test_weights_without_a_class_layer_have_nothing_to_follow(tmp_path, caplog):
    path = str(tmp_path / "old.pth")
    weights = {k: v for k, v in ToyDetector().state_dict().items() if k.startswith("conv")}
    torch.save({"model": weights, "class_names": list("xyz")}, path)
    load_initial_weights(ToyDetector(), path, Classes(NAMES, "data set 'new'"))
    assert "no class layer (cls_logits, cls_score) whose rows could follow" in caplog.text
