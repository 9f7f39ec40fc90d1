"""LazyConfig of the toy detector."""

import torch
from detectron2.config import LazyCall as L
from detectron2.solver import WarmupParamScheduler
from engine_toy import ToyDetector, ToyEvaluator, toy_mapper, toy_records
from fvcore.common.param_scheduler import MultiStepParamScheduler
from vfnet_yolof.data import build_test_loader, build_train_loader
from vfnet_yolof.solver import get_optimizer_params

train = dict(
    output_dir="./output/toy",
    max_iter=12,
    device="cuda",
    checkpointer=dict(period=4, max_to_keep=2),
    eval_period=4,
    log_period=2,
    best_checkpoint=dict(metric="toy/score", mode="max"),
    reference_batch_size=4,
)
model = L(ToyDetector)(num_classes=3)
optimizer = L(torch.optim.SGD)(
    params=L(get_optimizer_params)(base_lr="${..lr}", weight_decay="${..weight_decay}"),
    lr=0.1,
    momentum=0.9,
    weight_decay=1e-4,
)
lr_multiplier = L(WarmupParamScheduler)(
    scheduler=L(MultiStepParamScheduler)(values=[1, 0.1], milestones=[9], num_updates=12),
    warmup_factor=0.1,
    warmup_length=0.25,
)
dataloader = dict(
    train=L(build_train_loader)(
        dataset=L(toy_records)(), mapper=toy_mapper, total_batch_size=4, num_workers=0
    ),
    test=L(build_test_loader)(dataset=L(toy_records)(size=6), mapper=toy_mapper, num_workers=0),
    evaluator=L(ToyEvaluator)(),
)
