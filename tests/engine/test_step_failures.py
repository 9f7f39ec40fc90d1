"""A model that raises in a training step: the images are named, and one sentence is printed."""

from pathlib import Path

import pytest
import torch
from engine_toy import ToyDetector, toy_mapper, toy_records
from failing_toy import Failing
from tiny import picture, tiny_yolof
from vfnet_yolof.config.options import ConfigError
from vfnet_yolof.engine.failures import StepFailed
from vfnet_yolof.engine.step import TrainStep


def make_step(model, **options):
    return TrainStep(model, torch.optim.SGD(model.parameters(), lr=0.1), **options)


def small(side):
    return {**picture([[1.0, 1.0, 9.0, 9.0]], size=(side, 2 * side)), "file_name": "small.png"}


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_map_of_one_cell_is_refused_with_image_and_remedy(accumulate):
    """Batch norm has a single value for each channel; it cannot be trained on that."""
    step = make_step(tiny_yolof(), accumulate=accumulate)
    with pytest.raises(StepFailed) as error:
        step([small(8)] * accumulate, 7)
    text = str(error.value)
    assert text.startswith("Iteration 7 failed with ValueError: Expected more than 1 value per")
    assert "images of the batch: small.png (16 x 8 px)" in text
    assert "use larger images" in text
    assert "train.accumulate" in text
    assert "\n" not in text


def test_maps_of_one_cell_are_trained_on_together():
    losses = make_step(tiny_yolof())([small(8)] * 2, 0).losses
    assert all(torch.isfinite(torch.tensor(x)) for x in losses.values())


def test_any_exception_names_iteration_and_images():
    model = Failing(dropout=0.0)
    step, batch = make_step(model), [toy_mapper(r) for r in toy_records(2)]
    for iteration in range(2):
        step(batch, iteration)
    with pytest.raises(StepFailed) as error:
        step(batch, 2)
    assert str(error.value) == (
        "Iteration 2 failed with TypeError: unsupported operand type(s) for +: 'dict' and 'int'; "
        "images of the batch: toy_0.png (6 x 6 px), toy_1.png (6 x 6 px)."
    )
    assert isinstance(error.value.__cause__, TypeError)


@pytest.mark.parametrize(
    ("raised", "named"),
    [
        (AssertionError(), "failed with AssertionError; images"),
        (RuntimeError("a\n  b\n"), "failed with RuntimeError: a b; images"),
        (RuntimeError("x " * 5000), "x x ...; images"),
        (FloatingPointError("a score is NaN"), "FloatingPointError: a score is NaN; images"),
        (torch.cuda.OutOfMemoryError("CUDA out of memory."), "out of memory; images"),
    ],
)
def test_messages_of_others_become_one_sentence(monkeypatch, raised, named):
    step = make_step(ToyDetector())
    monkeypatch.setattr(step.model, "_scale", lambda: (_ for _ in ()).throw(raised))
    with pytest.raises(StepFailed) as error:
        step([toy_mapper(r) for r in toy_records(2)], 0)
    assert named in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 600


@pytest.mark.parametrize("kind", [ConfigError, torch.distributed.DistError, KeyboardInterrupt])
def test_what_has_its_own_message_stays_as_it_is(monkeypatch, kind):
    step = make_step(ToyDetector())
    monkeypatch.setattr(step.model, "_scale", lambda: (_ for _ in ()).throw(kind("as it is")))
    with pytest.raises(kind, match="^as it is$"):
        step([toy_mapper(r) for r in toy_records(2)], 0)


SENTENCE = "error: Iteration 2 failed with TypeError: unsupported operand"


@pytest.fixture
def failing(toy):
    toy.config = str(Path(__file__).with_name("toy_failing_config.py"))
    return toy


def test_the_command_line_ends_in_one_sentence(failing, capsys):
    assert failing.run() == 1
    out, err = capsys.readouterr()
    log = failing.output_dir / "log.txt"
    assert err.startswith(SENTENCE)
    assert err.count("\n") == 1
    assert "toy_" in err
    assert err.endswith(f"The traceback is in {log}.\n")
    assert "Traceback" not in out
    assert "Training failed at iteration 2" in out
    assert "Traceback" in log.read_text()
    assert "losses + 1" in log.read_text()


@pytest.mark.slow
def test_so_does_each_process_of_several(failing):
    done = failing.start("--num-gpus", "0", "--num-processes", "2")
    assert done.returncode == 1
    assert SENTENCE in done.stderr
    assert "log.txt" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
