"""``vfnet-yolof ranking``: table 1 of VFNet's paper for one's own detector."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..config.yaml_files import add_trust_arguments
from .arguments import (
    Command,
    add_data,
    add_device,
    add_model,
    add_other_test_settings,
    add_output,
    add_weights,
)
from .figure import add_images, command_line, open_subjects


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    add_weights(parser, "checkpoint; by default the run's best or last one")
    add_output(parser, "folder for ranking.md and ranking.json")
    add_images(parser)
    add_data(parser, ["val"])
    add_other_test_settings(parser)
    add_device(parser)
    add_trust_arguments(parser)


def _run(args: argparse.Namespace) -> int:
    from ..analysis.ranking import study_ranking, table, told, write_ranking
    from ..engine.ending import require_writable

    (subject,) = open_subjects(args, [args.model])
    if args.output is not None:
        require_writable(args.output)
    ranking = study_ranking(subject)
    facts = {
        "command": command_line(),
        "model": subject.name,
        "weights": subject.weights,
        "data": subject.dataset,
    }
    print("\n".join([table(ranking), *told(ranking)]))
    if args.output is not None:
        print(f"table: {write_ranking(ranking, Path(args.output), facts)}")
    return 0


RANKING = Command(
    "How far is a trained detector from its own oracle? Scores, boxes and centerness of its\n"
    "positive locations are replaced by the truth before the NMS, as in table 1 of VFNet's paper:\n"
    "  gt_ctr      centerness by that of the ground truth\n"
    "  gt_ctr_iou  centerness by the IoU of the predicted box\n"
    "  gt_bbox     the box by its ground truth\n"
    "  gt_cls      the score of the class by 1\n"
    "  gt_cls_iou  the score of the class by the IoU of the predicted box\n"
    "each with (w/ ctr) and without the factor of the centerness branch, if there is one. So\n"
    "`original` without w/ ctr is the model evaluated without its branch.",
    "  %(prog)s output/first --output output/first/ranking\n"
    "  %(prog)s output/first/model_best.pth --data datasets/birds --images 500 --output ranking",
    _add_arguments,
    _run,
)
