"""The ablation tables of the papers, trained anew: on any data, at full size or small.

A study is the rows of one table, each trained with some seeds into a folder of its own; what is
finished is not repeated, and several machines share a study by shards. Its table has the paper's
AP beside ours, and says where the order of the rows is the paper's.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig

from ..config.options import ConfigError
from ..config.packaged import import_from, load_config
from ..config.saved import config_text
from ..model_zoo.published import PublishedRow, rows
from .compare import DONE, run, run_folder, write_text

ITERATIONS, IMAGES = 600, 4  # of a small run
TABLE, FIGURES, SETTINGS = "table.md", "table.json", "study.json"


class Family(NamedTuple):
    """A table of a paper.

    Attributes:
        paper, table: as :mod:`..model_zoo.published` names them.
        baselines: configs that other rows are compared with: each row with the last one that
            stands above it, rows above all of them with the first.
        is_small: whether a small form of its rows means the same.
    """

    paper: str
    table: str
    baselines: tuple[str, ...]
    is_small: bool = True

    @property
    def rows(self) -> tuple[PublishedRow, ...]:
        """The table's rows that have a config, once each."""
        found = {row.config: row for row in rows(self.paper, self.table) if row.config}
        return tuple(found.values())

    def baseline(self, config: str) -> str:
        """The config that a row is compared with; may be itself."""
        found = self.baselines[0]
        for row in self.rows:
            if row.config in self.baselines:
                found = str(row.config)
            if row.config == config:
                break
        return found


def _family(paper: str, table: str, *baselines: str, is_small: bool = True) -> Family:
    return Family(paper, table, tuple(f"ablations/{name}" for name in baselines), is_small)


_LOSSES = tuple(f"vfnet_t5_{x}_fl" for x in ("retinanet", "foveabox", "reppoints", "atss", "vfnet"))
FAMILIES: dict[str, Family] = {
    "vfnet-table2": _family("vfnet", "2", "vfnet_t2_a075_g20"),
    "vfnet-table3": _family("vfnet", "3", "vfnet_t3_fl"),
    "vfnet-table5": _family("vfnet", "5", *_LOSSES),
    "gfl-table1a": _family("gfl", "1a", "gfl_t1a_fcos_none", "gfl_t1a_none"),
    "gfl-table1b": _family("gfl", "1b", "gfl_t1b_foveabox", "gfl_t1b_retinanet", "gfl_t1b_ssd512"),
    "gfl-table1c": _family("gfl", "1c", "gfl_t1c_beta20"),
    "gfl-table2a": _family("gfl", "2a", "gfl_t2a_fcos_dirac", "gfl_t2a_dirac"),
    "gfl-table2b": _family("gfl", "2b", "gfl_t2b_n16"),
    "gfl-table2c": _family("gfl", "2c", "gfl_t2c_interval1"),
    "gfl-table3": _family("gfl", "3", "gfl_t3_none"),
    "yolof-figure1": _family("yolof", "figure1", "yolof_fig1_mimo", is_small=False),
    "yolof-table4": _family("yolof", "4", "yolof_t4_none"),
    "yolof-table5a": _family("yolof", "5a", "yolof_t5a_n0"),
    "yolof-table5b": _family("yolof", "5b", "yolof_t5b_1_1_1_1"),
    "yolof-table5c": _family("yolof", "5c", "yolof_t5c_2_4_6_8_shortcut"),
    "yolof-table5d": _family("yolof", "5d", "yolof_t5d_top4"),
    "yolof-table5e": _family("yolof", "5e", "yolof_t5e_max_iou"),
    "yolof-table7": _family("yolof", "7", "yolof_t7_sizes1_ratios1"),
    "yolof-table8": _family("yolof", "8", "yolof_t8_k9"),
}


def family_of(name: str) -> Family:
    """The family of that name.

    Raises:
        ConfigError: there is none.
    """
    if name not in FAMILIES:
        raise ConfigError(f"There is no study {name!r}; there are {', '.join(FAMILIES)}.")
    return FAMILIES[name]


def chosen_rows(family: Family, names: Sequence[str] | None) -> list[str]:
    """Configs of the rows named, by the last part of their configs' names or parts of these.

    Raises:
        ConfigError: a name fits no row.
    """
    configs = [str(row.config) for row in family.rows]
    if not names:
        return configs
    for name in names:
        if not any(name in config for config in configs):
            raise ConfigError(f"--rows {name}: no row has that in its name: {', '.join(configs)}.")
    return [config for config in configs if any(name in config for name in names)]


def shard_of(text: str) -> tuple[int, int]:
    """``"2/3"`` is the second of three.

    Raises:
        ConfigError: it is no such thing.
    """
    first, slash, second = text.partition("/")
    if slash and first.isdecimal() and second.isdecimal() and 1 <= int(first) <= int(second):
        return int(first), int(second)
    raise ConfigError(f"--shard {text}: give i/n with i from 1 to n, such as 2/3.")


def small_config(name: str, own_data: bool, iterations: int = ITERATIONS) -> DictConfig:
    """A row with a half-width ResNet-18 and 64 channels, trained from scratch on a CPU.

    Args:
        name: a packaged config. own_data: images of about 320 px are expected, not drawn shapes.

    Raises:
        ConfigError: this detector has no small form.
    """
    cfg = load_config(f"{name}.py")
    if not {"top_block", "in_feature"} & set(cfg.model.backbone):  # neither FPN nor one level
        raise ConfigError(
            f"{name} has no small form, as its backbone is no ResNet: leave --small out, or the "
            "row, with --rows."
        )
    import_from("common/models/small.py", "shrink_row")(cfg.model)
    cfg.optimizer, cfg.train = import_from("common/small_run.py", "optimizer", "train")
    schedule = import_from("common/schedule.py", "step_schedule")
    data = "common/data/small.py" if own_data else "common/data/shapes.py"
    augmentations = cfg.dataloader.train.mapper.augmentations
    shifts = [one for one in augmentations if "RandomShift" in str(one["_target_"])]
    cfg.dataloader = import_from(data, "dataloader")
    for shift in shifts:
        shift.max_shift = 8
        cfg.dataloader.train.mapper.augmentations.append(shift)
    if not own_data:
        cfg.model.num_classes = 6
    cfg.dataloader.train.total_batch_size = cfg.train.reference_batch_size = IMAGES
    warmup = min(100, iterations // 4)
    cfg.lr_multiplier = schedule([70, 90], 100, iterations, warmup_iters=warmup)
    cfg.train.max_iter = iterations
    cfg.train.eval_period = 0  # at the end alone
    cfg.train.checkpointer.period = iterations
    return cfg


class Study(NamedTuple):
    """What is trained, and where.

    Attributes:
        name: of the family. output: folder of all runs and of the table.
        configs: rows that are trained. seeds: of each of them.
        common: arguments of ``tools/train_net.py`` that all runs get.
        settings: those of them that change results: all but the device.
        iterations: of a small run; None trains the rows as they are.
        own_data: whether ``common`` names data.
    """

    name: str
    output: Path
    configs: Sequence[str]
    seeds: Sequence[int]
    common: Sequence[str]
    settings: Sequence[str]
    iterations: int | None
    own_data: bool

    def train(self, shard: tuple[int, int]) -> int:
        """Train this shard's runs, one after the other; the first exit status that is not 0.

        The table is written anew after each run, from all runs that are finished by then.

        Raises:
            ConfigError: the folder's runs were trained with other settings.
        """
        self._check_settings()
        files = {config: self._file(config) for config in self.configs}
        pairs = [(config, seed) for seed in self.seeds for config in self.configs]
        self.write_table()
        for config, seed in pairs[shard[0] - 1 :: shard[1]]:
            folder = run_folder(str(self.output), config, seed)
            if status := run(files[config], seed, folder, self.common):
                return status
            self.write_table()
        return 0

    def _check_settings(self) -> None:
        """Keep what the folder's runs have in common, or refuse to add runs that differ in it."""
        settings = {
            "study": self.name,
            "small iterations": self.iterations,
            "options": list(self.settings),
        }
        path = self.output / SETTINGS
        if path.exists():
            for name, kept in json.loads(path.read_text(encoding="utf-8")).items():
                if kept != settings[name]:
                    old, new = json.dumps(kept), json.dumps(settings[name])
                    raise ConfigError(
                        f"{path}: {name} is {old} there, {new} now: give another --output, or the "
                        "same settings."
                    )
        elif found := self.results():
            raise ConfigError(
                f"{self.output} has finished runs of {next(iter(found))} and no {SETTINGS} that "
                "says how they were trained: give another --output."
            )
        write_text(path, json.dumps(settings, indent=1))

    def _file(self, config: str) -> str:
        """The config as it is trained: the packaged one, or its small form's file."""
        if self.iterations is None:
            return f"{config}.py"
        path = self.output / "configs" / f"{Path(config).name}.yaml"
        text = config_text(small_config(config, self.own_data, self.iterations))
        if path.exists() and path.read_text(encoding="utf-8") != text:
            raise ConfigError(
                f"{path} is another small form of this row, from a study by another version: give "
                "another --output."
            )
        write_text(path, text)
        return str(path)

    def results(self) -> dict[str, dict[int, dict[str, Any]]]:
        """The finished runs' figures, by config and seed, of all rows of the table."""
        found: dict[str, dict[int, dict[str, Any]]] = {}
        for row in family_of(self.name).rows:
            config = str(row.config)
            start = f"{Path(config).name}_seed"
            for file in sorted(self.output.glob(f"{start}*/{DONE}")):
                seed = file.parent.name.removeprefix(start)
                if seed.isdecimal():
                    figures = json.loads(file.read_text(encoding="utf-8"))
                    found.setdefault(config, {})[int(seed)] = figures
        return found

    def write_table(self) -> str:
        """Write the table as Markdown and JSON; returns the former."""
        results = self.results()
        lines = compared_rows(family_of(self.name), results)
        text = markdown(lines)
        content = {"study": self.name, "rows": [line._asdict() for line in lines]}
        write_text(self.output / FIGURES, json.dumps(content, indent=1))
        write_text(self.output / TABLE, f"{text}\n")
        return text


class Line(NamedTuple):
    """A row of the result.

    Attributes:
        published: AP in the paper. measured: AP of each seed here; empty: not run.
        published_gain, gain: differences of means to the baseline row.
        order: "yes", "no", "not told apart", or "" where nothing can be said.
        cpu_minutes: of a run, mean, on whatever number of threads.
    """

    label: str
    config: str
    published: float | None
    measured: dict[int, float]
    published_gain: float | None
    gain: float | None
    order: str
    cpu_minutes: float | None


def compared_rows(
    family: Family, results: Mapping[str, Mapping[int, Mapping[str, Any]]]
) -> list[Line]:
    """Each row beside its baseline, in the paper and here.

    Only seeds that both rows have count for a difference. The order agrees if the mean difference
    has the sign that it has in the paper; it is not told apart within one standard deviation of the
    seeds' differences, and with one seed nothing says how far it could be chance.
    """
    published = {str(row.config): row.ap for row in family.rows}
    measured = {
        config: {seed: _ap(figures) for seed, figures in runs.items()}
        for config, runs in results.items()
    }
    lines = []
    for row in family.rows:
        config = str(row.config)
        base = family.baseline(config)
        ours, theirs = measured.get(config, {}), measured.get(base, {})
        gains = [ours[seed] - theirs[seed] for seed in ours if seed in theirs]
        paper = _difference(row.ap, published[base])
        is_base = base == config
        minutes = [figures["cpu_minutes"] for figures in results.get(config, {}).values()]
        lines.append(
            Line(
                row.label,
                config,
                row.ap,
                ours,
                None if is_base else paper,
                None if is_base or not gains else statistics.mean(gains),
                "" if is_base else _order(gains, paper),
                statistics.mean(minutes) if minutes else None,
            )
        )
    return lines


def _ap(figures: Mapping[str, Any]) -> float:
    value = figures["bbox/AP"]
    return math.nan if value is None else float(value)


def _difference(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one - other


def _order(gains: Sequence[float], paper: float | None) -> str:
    if not gains or not paper or any(map(math.isnan, gains)):
        return ""
    mean = statistics.mean(gains)
    agrees = "yes" if mean * paper > 0 else "no"
    if len(gains) == 1:
        return f"{agrees} (one seed)"
    return agrees if abs(mean) > statistics.stdev(gains) else "not told apart"


def markdown(lines: Sequence[Line]) -> str:
    """The table for a page."""
    text = [
        "| row | AP, paper | here | to the baseline, paper | here | order agrees | CPU minutes |",
        "|---|---|---|---|---|---|---|",
    ]
    for line in lines:
        cells = [
            line.label,
            "" if line.published is None else f"{line.published:.1f}",
            _values(line.measured),
            "" if line.published_gain is None else f"{line.published_gain:+.1f}",
            "" if line.gain is None else f"{line.gain:+.1f}",
            line.order,
            "" if line.cpu_minutes is None else f"{line.cpu_minutes:.1f}",
        ]
        text.append(f"| {' | '.join(cells)} |")
    return "\n".join(text)


def _values(measured: Mapping[int, float]) -> str:
    if not measured:
        return "not run"
    values = [measured[seed] for seed in sorted(measured)]
    each = ", ".join(f"{value:.1f}" for value in values)
    if len(values) == 1:
        return f"{each} (seed {next(iter(measured))})"
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f} ({each})"
