"""One step: precision, clipping, and losses that are not finite."""

import pytest
import torch
from distributed_worker import together
from engine_toy import ToyDetector, toy_mapper, toy_records
from torch import nn
from vfnet_yolof.engine.failures import StepFailed
from vfnet_yolof.engine.step import GradientClipping, TrainStep
from vfnet_yolof.modeling.losses.normalizer import synced_mean


def make_step(**options):
    torch.manual_seed(0)
    model = ToyDetector(dropout=0.0)
    return TrainStep(model, torch.optim.SGD(model.parameters(), lr=0.1), **options)


def batch():
    return [toy_mapper(r) for r in toy_records(4)]


def weights(step):
    return [p.detach().clone() for p in step.model.parameters()]


def test_a_step_changes_the_weights_and_returns_the_losses():
    step, before = make_step(), None
    before = weights(step)
    result = step(batch(), 0)
    assert set(result.losses) == {"loss_cls", "loss_box"}
    assert not result.stop
    assert any(not torch.equal(a, b) for a, b in zip(before, weights(step), strict=True))
    assert make_step()(batch(), 0, stop=True).stop


def test_non_finite_loss_names_term_iteration_and_files(monkeypatch):
    monkeypatch.setenv("TOY_NAN_AT", "2")
    step = make_step()
    step(batch(), 16)
    before = weights(step)
    with pytest.raises(FloatingPointError) as error:
        step(batch(), 17)
    text = str(error.value)
    assert "iteration 17" in text
    assert "loss_box = nan" in text
    assert "loss_cls" not in text
    assert "toy_0.png, toy_1.png, toy_2.png, toy_3.png" in text
    assert all(torch.equal(a, b) for a, b in zip(before, weights(step), strict=True))


class SquareRoot(nn.Module):
    """``odd`` has a finite loss at 0, and an infinite slope."""

    def __init__(self, value=0.0):
        super().__init__()
        self.even = nn.Parameter(torch.ones(3))
        self.odd = nn.Parameter(torch.tensor([4.0, value]))

    def forward(self, batch):
        images = synced_mean(torch.tensor(float(len(batch))))  # what accumulation asks of a model
        roots = self.odd.sqrt().sum() * len(batch) / images
        return {"loss_even": self.even.square().sum() * len(batch) / images, "loss_odd": roots}


def root_step(value=0.0, **options):
    model = SquareRoot(value)
    return TrainStep(model, torch.optim.SGD(model.parameters(), lr=0.1), **options)


@pytest.mark.parametrize("clip", [None, "model", "parameter", "value"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_non_finite_gradients_name_parameters_and_files(clip, accumulate):
    """Clipping would spread them to all parameters, and the next batch would be blamed."""
    clip = None if clip is None else GradientClipping(1.0, kind=clip)
    step = root_step(clip=clip, accumulate=accumulate)
    before = weights(step)
    with pytest.raises(FloatingPointError) as error:
        step(batch(), 17)
    text = str(error.value)
    assert "gradients at iteration 17" in text
    assert "odd (1 of 2 values)" in text
    assert "even" not in text
    assert "toy_0.png, toy_1.png, toy_2.png, toy_3.png" in text
    assert all(torch.equal(a, b) for a, b in zip(before, weights(step), strict=True))


def test_large_gradients_are_not_taken_for_infinite_ones():
    """1e30 is finite in float32, its square is not."""
    step = root_step(value=1.0)
    step.model.even.data.fill_(1e15)
    step.model.even.register_hook(lambda grad: grad * 1e15)
    step(batch(), 0)
    assert step.model.even.grad.abs().min() > 1e29


def test_overflow_of_scaled_gradients_is_left_to_the_scaler():
    """In float16 it is normal: the step is left out and the scale lowered, as long as it helps."""
    step = root_step(value=1.0)
    step.grad_scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    step.model.even.register_hook(lambda grad: torch.full_like(grad, float("inf")))
    before = weights(step)
    for scale in (2.0, 1.0):
        step(batch(), 0)
        assert step.grad_scaler.get_scale() == scale
        assert all(torch.equal(a, b) for a, b in zip(before, weights(step), strict=True))
    with pytest.raises(FloatingPointError, match=r"even \(3 of 3 values\)"):
        step(batch(), 0)


def train_one_of_two(rank, folder):
    """Only the first process's loss has the infinite slope."""
    with together(folder, rank, 2):
        model = SquareRoot(value=float(rank))
        ddp = nn.parallel.DistributedDataParallel(model)
        with torch.no_grad():
            model.odd[1] = float(rank)
        step = TrainStep(ddp, torch.optim.SGD(model.parameters(), lr=0.1))
        with pytest.raises(FloatingPointError) as error:
            step([{"file_name": f"of_process_{rank}.png"}], 5)
        (folder / f"{rank}.txt").write_text(str(error.value))


@pytest.mark.slow
def test_all_processes_stop_and_name_the_images_of_all(tmp_path):
    torch.multiprocessing.spawn(train_one_of_two, (tmp_path,), nprocs=2)
    for rank in range(2):
        text = (tmp_path / f"{rank}.txt").read_text()
        assert "of 1 parameters: odd (1 of 2 values)" in text
        assert "of_process_0.png, of_process_1.png" in text


def test_bfloat16_on_the_cpu_trains_float32_weights():
    step, plain = make_step(amp_dtype="bfloat16"), make_step()
    data = batch()
    seen = []
    step.model.box.register_forward_hook(lambda module, args, out: seen.append(out.dtype))
    low, full = step(data, 0).losses, plain(data, 0).losses
    assert seen == [torch.bfloat16]
    assert step.grad_scaler is None
    assert all(p.dtype == torch.float32 for p in step.model.parameters())
    assert low != full
    assert low == pytest.approx(full, rel=0.05)


class Strided(nn.Module):
    """A convolution with a stride, as of the coarser levels of a feature pyramid."""

    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.width = width

    def forward(self, batch):
        return {"loss": self.conv(torch.ones(len(batch), 8, 2, self.width)).square().mean()}


def step_of(model, **options):
    return TrainStep(model, torch.optim.SGD(model.parameters(), lr=0.1), **options)


def test_bfloat16_on_the_cpu_refuses_maps_that_pytorch_differentiates_wrongly():
    """Its weight gradients are wrong there, and mostly finite: nobody would notice."""
    with pytest.raises(StepFailed, match=r"map one cell wide.*images of the batch: .*toy_0\.png"):
        step_of(Strided(1), amp_dtype="bfloat16")(batch(), 0)
    step_of(Strided(2), amp_dtype="bfloat16")(batch(), 0)
    step_of(Strided(1))(batch(), 0)  # float32 is right
    assert not nn.modules.module._global_forward_pre_hooks  # nothing stays behind
    frozen = Strided(1)
    frozen.conv.requires_grad_(False)
    frozen.scale = nn.Parameter(torch.ones(()))
    hook = frozen.conv.register_forward_hook(lambda module, inputs, out: out * frozen.scale)
    step_of(frozen, amp_dtype="bfloat16")(batch(), 0)  # no weight gradient is computed
    hook.remove()


def test_float16_on_the_cpu_is_refused():
    with pytest.raises(ValueError, match="bfloat16"):
        make_step(amp_dtype="float16")


@pytest.mark.parametrize("kind", ["model", "parameter", "value"])
def test_kinds_of_clipping(kind):
    params = [nn.Parameter(torch.zeros(2)) for _ in range(2)]
    params[0].grad, params[1].grad = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 4.0])
    GradientClipping(max_norm=1.0, kind=kind)(params)
    got = torch.stack([params[0].grad, params[1].grad])
    want = {"model": [[0.6, 0.0], [0.0, 0.8]]}.get(kind, [[1.0, 0.0], [0.0, 1.0]])
    assert torch.allclose(got, torch.tensor(want), atol=1e-5), got


def test_clipping_bounds_the_step():
    step = make_step(clip=GradientClipping(max_norm=1e-3))
    before = weights(step)
    step(batch(), 0)
    moved = sum((a - b).square().sum() for a, b in zip(before, weights(step), strict=True))
    assert moved.sqrt().item() == pytest.approx(0.1 * 1e-3, rel=1e-3)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [None, "float16", "bfloat16"])
def test_on_a_gpu(dtype, monkeypatch):
    monkeypatch.setenv("TOY_NAN_AT", "3")
    model = ToyDetector(dropout=0.0).cuda()
    step = TrainStep(
        model,
        torch.optim.SGD(model.parameters(), lr=0.1),
        device="cuda",
        amp_dtype=dtype,
        clip=GradientClipping(1.0),
    )
    first = step(batch(), 0).losses
    second = step(batch(), 1).losses
    assert second != first
    before = weights(step)
    with pytest.raises(FloatingPointError, match="loss_box = nan"):
        step(batch(), 2)
    assert all(torch.equal(a, b) for a, b in zip(before, weights(step), strict=True))
