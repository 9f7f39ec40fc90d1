"""A detector-shaped model that trains in milliseconds, its data and its evaluator."""

import os
import signal

import numpy as np
import torch
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from torch import nn

CLASSES = 3
SIGNALS = {
    "TOY_KILL_AT": signal.SIGKILL,
    "TOY_CTRL_C_AT": signal.SIGINT,
    "TOY_TERM_AT": signal.SIGTERM,
    "TOY_HUP_AT": signal.SIGHUP,
    "TOY_USR1_AT": signal.SIGUSR1,
}


class ToyDetector(nn.Module):
    """Batch norm and dropout make it depend on buffers and on the random state."""

    def __init__(self, num_classes=CLASSES, dropout=0.5, norm=True):
        super().__init__()
        self.calls = 0
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4) if norm else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.cls_score = nn.Linear(4, num_classes)
        self.box = nn.Linear(4, 1)

    def forward(self, batch):
        images = torch.stack([x["image"] for x in batch]).to(self.box.weight)
        features = self.dropout(self.norm(self.conv(images)).relu().mean((2, 3)))
        labels = torch.tensor([x["label"] for x in batch]).to(images.device)
        loss_cls = nn.functional.cross_entropy(self.cls_score(features).float(), labels)
        if not self.training:
            return [{"loss": loss_cls.item()}]
        if torch.is_grad_enabled():  # not the validation loss
            self._misbehave()
        target = self.box(features).float() - labels[:, None]
        return {"loss_cls": loss_cls, "loss_box": target.square().mean() * self._scale()}

    def _scale(self):
        return float("nan") if self.calls == int(os.environ.get("TOY_NAN_AT", -1)) else 0.1

    def _misbehave(self):
        """At the call that a variable names; on one of several processes with TOY_RANK."""
        self.calls += 1
        if int(os.environ.get("TOY_RANK", comm.get_rank())) != comm.get_rank():
            return
        for variable, signum in SIGNALS.items():
            if self.calls == int(os.environ.get(variable, -1)):
                os.kill(os.getpid(), signum)
        first_attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
        if first_attempt and self.calls == int(os.environ.get("TOY_KILL_ONCE_AT", -1)):
            os.kill(os.getpid(), signal.SIGKILL)
        if self.calls == int(os.environ.get("TOY_RAISE_AT", -1)):
            raise RuntimeError("no such luck")


def toy_records(size=12):
    return [
        {"file_name": f"toy_{i}.png", "image_id": i, "width": 8 + i % 2, "height": 8, "number": i}
        for i in range(size)
    ]


def toy_mapper(record):
    """Noise is the augmentation; it comes from numpy's global generator."""
    number = record["number"]
    if record["file_name"] == os.environ.get("TOY_BROKEN"):
        raise OSError("image file is truncated")
    image = np.full((3, 6, 6), number / 6, dtype=np.float32)
    image += np.random.normal(size=(3, 6, 6)).astype(np.float32) * 0.1
    return {**record, "image": torch.from_numpy(image), "label": number % CLASSES}


def still_mapper(record):
    """Without noise: the same in every evaluation."""
    image = torch.full((3, 6, 6), record["number"] / 6)
    return {**record, "image": image, "label": record["number"] % CLASSES}


class ToyEvaluator(DatasetEvaluator):
    def reset(self):
        self.losses = []

    def process(self, inputs, outputs):
        if os.environ.get("TOY_EVALUATION_FAILS") == str(comm.get_rank()):
            raise TypeError("a field that nobody expected")
        self.losses += [x["loss"] for x in outputs]

    def evaluate(self):
        return {"toy": {"score": -float(np.mean(self.losses))}}


def report_ranks(folder):
    """Leave a file that tells this process's place; end with a status."""
    place = f"{comm.get_rank()} of {comm.get_world_size()}"
    local = f"{comm.get_local_rank()} of {comm.get_local_size()}"
    open(os.path.join(folder, f"{place}, {local}"), "w").close()
    return 130
