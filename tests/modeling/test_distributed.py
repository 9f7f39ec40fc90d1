"""Two processes that share a batch learn what one process learns from all of it.

Every divisor of a loss is a mean over the workers, for example of the number of positives
``(P1 + P2) / 2``. So the mean of the two workers' losses, which is what averaging their gradients
descends on, is ``(S1 / ((P1 + P2) / 2) + S2 / ((P1 + P2) / 2)) / 2 = (S1 + S2) / (P1 + P2)``:
the loss of the joined batch, even where one of them has no positives.
"""

import pytest
import torch
import torch.multiprocessing as mp
from distributed_worker import MODELS, run_rank, step
from tiny import empty_picture, picture

BATCHES = {
    "boxes on both": [
        [picture(seed=1), picture([[2, 2, 30, 30]], seed=2)],
        [picture([[20, 8, 60, 60], [0, 0, 12, 12]], seed=3), empty_picture(seed=4)],
    ],
    "a rank without boxes": [
        [picture(seed=1), picture(seed=2)],
        [empty_picture(seed=3), empty_picture(seed=4)],
    ],
}


# A backbone alone knows no boxes.
CASES = [
    (name, case)
    for name in MODELS
    for case in BATCHES
    if not (name.startswith("cspdarknet") and case == "a rank without boxes")
]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], list[dict]]:
    """What each of two processes got in each case."""
    folder = tmp_path_factory.mktemp("ranks")
    torch.save(BATCHES, folder / "batches.pt")
    mp.spawn(run_rank, args=(2, str(folder), CASES), nprocs=2)
    results = [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]
    return {case: list(pair) for case, *pair in zip(CASES, *results, strict=True)}


@pytest.mark.timeout(180)
@pytest.mark.parametrize(("name", "case"), CASES)
def test_two_processes_equal_one(ranks, name: str, case: str) -> None:
    first, second = ranks[name, case]
    batches = BATCHES[case]
    one = step(MODELS[name](), batches[0] + batches[1])

    assert first["losses"] != second["losses"]
    for key, want in one["losses"].items():
        mean = (first["losses"][key] + second["losses"][key]) / 2
        assert mean == pytest.approx(want, rel=1e-5), key
    for key, want in one["grads"].items():
        assert torch.equal(first["grads"][key], second["grads"][key]), key
        difference = (first["grads"][key] - want).norm()
        # Of biases in front of the batch's statistics the gradient is rounding alone.
        rounding = 1e-6 if name == "yolof, synchronised" else 1e-8
        assert difference <= 1e-5 * want.norm() + rounding, (key, difference, want.norm())
    if case == "a rank without boxes":
        assert second["losses"]["loss_box"] == 0
        assert second["losses"]["loss_cls"] > 0
