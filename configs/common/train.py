"""Options of a training run; what each of them means is in docs/training.md."""

train = dict(
    output_dir="./output",
    init_checkpoint="",
    max_iter=87960,
    device="cuda",
    seed=-1,  # drawn at the start of the run
    amp=dict(enabled=False, dtype="float16"),
    ddp=dict(broadcast_buffers=False, find_unused_parameters=False, fp16_compression=False),
    checkpointer=dict(period=5000, max_to_keep=3),
    eval_period=5000,
    log_period=20,
    clip_grad=dict(enabled=False, max_norm=35.0, norm_type=2.0),
    best_checkpoint=dict(metric="bbox/AP", mode="max"),
    ema=dict(enabled=False, decay=0.9998),
    swa=dict(
        enabled=False,
        start=0.0,
        cycles=18,
        fresh_optimizer=False,
        from_best=False,
        keep_parts=False,
        bn_batches=0,
    ),
    early_stopping=dict(patience=0),
    val_loss=dict(enabled=False),
    accumulate=1,
    channels_last=False,
    activation_checkpointing=False,
    reference_batch_size=16,
    auto_scale=False,
)
