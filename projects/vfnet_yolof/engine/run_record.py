"""What a run leaves to be repeated with: its configuration, and the versions it ran with."""

from __future__ import annotations

import logging
import platform
import subprocess
from pathlib import Path

import detectron2
import torch
from detectron2.config import LazyConfig
from detectron2.utils import comm
from omegaconf import DictConfig

from ..config.options import ConfigError
from ..utils.files import replacing, write_atomically
from .yacs_record import write_yacs_record

logger = logging.getLogger(f"detectron2.{__name__}")


def save_run_record(cfg: DictConfig, changes: list[str]) -> None:
    """Write ``config.yaml``, which ``--config-file`` takes again, and ``versions.txt``.

    A config that came from yacs is written as ``config_yacs.yaml``, too, for other tools.

    Raises:
        ConfigError: the config cannot be saved as text.
    """
    if not comm.is_main_process():
        return
    folder = Path(cfg.train.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "config.yaml"
    # LazyConfig writes in place and pickles what it cannot write as text, without an error.
    with replacing(path) as scratch:
        LazyConfig.save(cfg, str(scratch))
        pickled = Path(f"{scratch}.pkl")
        if pickled.exists():
            pickled.unlink()
            raise ConfigError(
                "The config cannot be saved as text, so the run could not be repeated: it holds a "
                "lambda or a local function. Use a function of a module instead."
            )
    write_yacs_record(cfg)
    text = "".join(f"{line}\n" for line in [*versions(), "", "overrides:", *changes])
    write_atomically(folder / "versions.txt", lambda file: file.write(text.encode()))
    logger.info("Config saved to %s", path)


def versions() -> list[str]:
    """Versions of what a result depends on, one per line."""
    from ..utils import __version__

    lines = [
        f"vfnet_yolof {__version__}",
        f"detectron2 {detectron2.__version__}",
        f"torch {torch.__version__}, CUDA {torch.version.cuda}",
        f"python {platform.python_version()}",
    ]
    if torch.cuda.is_available():
        lines.append(f"device {torch.cuda.get_device_name()}")
    commit = _git("rev-parse", "HEAD")
    if commit:
        changed = "with local changes" if _git("status", "--porcelain", "-uno") else "clean"
        lines.append(f"git {commit}, {changed}")
    return lines


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
