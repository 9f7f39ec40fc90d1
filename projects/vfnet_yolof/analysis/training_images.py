"""Images as a config's training sees them, drawn with their boxes."""

from __future__ import annotations

from itertools import chain, islice
from pathlib import Path

from omegaconf import DictConfig
from PIL import Image

from ..config.parts import built, config_errors
from ..data import dataset_class_names
from ..drawing.canvas import display_scale, save_image
from ..drawing.visualization import draw_ground_truth


def save_training_pictures(
    cfg: DictConfig, folder: str | Path, *, count: int = 16, seed: int = 0
) -> list[Path]:
    """Write the first ``count`` samples of ``dataloader.train`` as PNG files; returns their paths.

    Small ones are enlarged, see :func:`.canvas.display_scale`.
    They are those of a training with this ``seed``, in its order, augmentations, mosaic and all.
    The config is changed: its loader gets the seed and works in this process.

    Raises:
        ConfigError: a value that the data's classes refuse.
        FileNotFoundError, DataLoadingError: annotations or images that cannot be read.
        ValueError: a count below 1.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    with config_errors("The config has no training data to show"):
        loader_cfg = cfg.dataloader.train
        loader_cfg.seed, loader_cfg.num_workers = seed, 0
        names = loader_cfg.dataset.names
    loader = built("dataloader.train", loader_cfg)
    class_names = dataset_class_names(names if isinstance(names, str) else names[0])
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, sample in enumerate(islice(chain.from_iterable(loader), count)):
        # Distorted colours may leave the range of what can be drawn.
        image = sample["image"].clamp(0, 255).byte().permute(1, 2, 0).numpy()
        if loader_cfg.mapper.image_format == "BGR":
            image = image[..., ::-1]
        scale = display_scale(*image.shape[:2])
        drawn = draw_ground_truth(image, sample["instances"], class_names, scale=scale)
        path = folder / f"{number:04d}_{Path(sample['file_name']).stem}.png"
        save_image(Image.fromarray(drawn), path)
        paths.append(path)
    return paths
