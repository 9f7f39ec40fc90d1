"""``vfnet-yolof study``: the papers' ablations on one's own data, at full size or small."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..config.options import ConfigError
from ..config.yaml_files import add_trust_arguments
from .arguments import Command, add_data, add_device, add_output
from .train import training_options


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("study", metavar="STUDY", nargs="?", help="such as vfnet-table3")
    parser.add_argument(
        "operands", nargs="*", default=[], metavar="key=value", help="changes to all rows' configs"
    )
    add = parser.add_argument
    add("--list", action="store_true", help="all studies, or the rows of STUDY")
    add("--small", action="store_true", help="a small backbone and a short schedule, for a CPU")
    add("--iterations", type=int, metavar="N", help="of a small run (600)")
    add("--rows", nargs="+", metavar="NAME", help="only rows whose configs have that in their name")
    add("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="N", help="0 1 2 by default")
    add("--shard", default="1/1", metavar="I/N", help="train the I-th of N shares of the runs")
    add_output(parser, "folder of all runs and of the table")
    add_data(parser)
    add_device(parser)
    add_trust_arguments(parser)


def _run(args: argparse.Namespace) -> int:
    from ..analysis.study import FAMILIES, ITERATIONS, Study, chosen_rows, family_of, shard_of

    if args.study is None:
        if not args.list:
            raise ConfigError(f"Name a study: {', '.join(FAMILIES)}.")
        print("\n".join(FAMILIES))
        return 0
    family = family_of(args.study)
    configs = chosen_rows(family, args.rows)
    if args.list:
        for row in (row for row in family.rows if row.config in configs):
            print(f"{row.config}: {row.label}, {'' if row.ap is None else row.ap}")
        return 0
    if args.output is None:
        raise ConfigError("--output is missing, the folder of all runs and of the table.")
    if args.iterations is not None and not args.small:
        raise ConfigError("--iterations goes with --small; elsewhere say train.max_iter=N.")
    if args.iterations is not None and args.iterations < 1:
        raise ConfigError(f"--iterations {args.iterations}: give 1 or more.")
    if (least := min(args.seeds)) < 0:
        raise ConfigError(f"--seeds {least}: give 0 or more; a run below 0 is seeded by chance.")
    if args.small and not family.is_small:
        raise ConfigError(
            f"{args.study} has no small form: small images have no levels of strides 32 to 128."
        )
    study = Study(
        args.study,
        Path(args.output),
        configs,
        list(dict.fromkeys(args.seeds)),  # none twice: a share of its own would train it again
        training_options(args),
        training_options(argparse.Namespace(**{**vars(args), "device": None})),
        (args.iterations or ITERATIONS) if args.small else None,
        args.data is not None or args.train_json is not None,
    )
    status = study.train(shard_of(args.shard))
    print(study.write_table())
    return status


STUDY = Command(
    "Train the rows of a paper's ablation table with several seeds, and tabulate AP beside the\n"
    "paper's. What is finished is not repeated, an interrupted run goes on where it stopped.",
    "  %(prog)s --list\n"
    "  %(prog)s vfnet-table3 --small --output output/table3\n"
    "  %(prog)s gfl-table1a --small --data datasets/birds --output output/birds --seeds 0\n"
    "  %(prog)s vfnet-table5 --rows atss retinanet --small --shard 1/2 --output /shared/table5\n"
    "  %(prog)s ranking output/first     VFNet's table 1: another command, of a trained detector",
    _add_arguments,
    _run,
)
