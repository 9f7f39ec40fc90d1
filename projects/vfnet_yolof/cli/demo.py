"""``make demo``: from nothing to a trained, evaluated and drawn detector."""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

CONFIG = "vfnet/vfnet_small_shapes.py"


def command_line(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", default="output/demo", help="folder for everything it makes")
    parser.add_argument(
        "--images", "--pictures", type=int, default=10, help="how many images to draw"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the config")
    args = parser.parse_intermixed_args(arguments)
    from .training import command_line as train

    output = Path(args.output)
    started = time.monotonic()
    command = ["--config-file", CONFIG, "--resume", "--seed", "0", "--output-dir", str(output)]
    status = train([*command, *args.overrides])
    if status:
        return status
    drawn = draw_images(output, args.images)
    print_summary(output, drawn, time.monotonic() - started)
    return 0


def draw_images(output: Path, count: int) -> list[Path]:
    """Detections on the first ``count`` validation images, drawn and as JSON."""
    from detectron2.data import DatasetCatalog

    from ..inference.demo import collect_inputs, run_on_files, write_json
    from ..inference.predictor import Predictor

    predictor = Predictor(CONFIG, output / "model_final.pth", score_thresh=0.3)
    names = [record["file_name"] for record in DatasetCatalog.get("shapes_val")[:count]]
    result = run_on_files(predictor, collect_inputs(names), output / "images")
    write_json(result, output / "detections.json")
    return result.written


def print_summary(output: Path, drawn: Sequence[Path], seconds: float) -> None:
    """The figures of the last evaluation, and where everything lies."""
    lines = (output / "metrics.json").read_text().splitlines()
    metrics = next(m for m in map(json.loads, reversed(lines)) if "bbox/AP" in m)
    print(f"\nA small VFNet, trained and evaluated on drawn shapes in {seconds / 60:.1f} minutes:")
    print(f"  AP {metrics['bbox/AP']:.1f}, AP50 {metrics['bbox/AP50']:.1f} on shapes_val")
    print(f"  {len(drawn)} images: {drawn[0].parent.resolve()}")
    print(f"  detections: {(output / 'detections.json').resolve()}")
    print(f"  weights: {(output / 'model_final.pth').resolve()}")
