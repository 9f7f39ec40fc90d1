"""Running a predictor over image files, folders, videos and cameras, with results on disk."""

from __future__ import annotations

import errno
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.structures import Instances
from tqdm import tqdm

from ..drawing.canvas import display_scale, save_image
from ..engine.ending import ctrl_c_answered
from ..utils.class_names import order_in
from ..utils.files import replacing
from ..utils.image_arrays import to_array
from ..utils.images import ImageReadError
from .inputs import DataSetIds, InputError, Source, collect_inputs
from .predictor import Predictor

__all__ = [
    "DemoResult",
    "InputError",
    "Source",
    "category_ids",
    "collect_inputs",
    "run_on_camera",
    "run_on_files",
    "write_json",
]

_DEFAULT_FPS = 25.0  # for cameras that do not tell
# Errors in writing that all further images would meet.
_OF_THE_OUTPUT = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR)


@dataclass
class DemoResult:
    """``records``: detections in COCO's result format. ``failures``: input and what is wrong.

    ``written``: files in the order of writing. ``num_images``: images and frames done.
    ``classes_are_numbered``: nothing tells the data set's category ids, so the records have class
    indices.
    """

    records: list[dict[str, Any]] = field(default_factory=list)
    failures: list[tuple[str, str]] = field(default_factory=list)
    written: list[Path] = field(default_factory=list)
    num_images: int = 0
    classes_are_numbered: bool = False


def run_on_files(
    predictor: Predictor,
    sources: Sequence[Source],
    output: str | os.PathLike[str],
    *,
    star: bool = False,
    distributions: bool = False,
    max_frames: int | None = None,
    annotations: str | os.PathLike[str] | None = None,
) -> DemoResult:
    """Predict, draw and write each of ``sources`` below the folder ``output``.

    An image or video that cannot be read, or that the model fails on, is listed in ``failures``,
    and the rest goes on.

    Args:
        star: draw VFNet's intermediate results.
        distributions: draw those of the boxes' sides, which GFL predicts.
        max_frames: stop a video there.
        annotations: a file in COCO's format, which has all ``sources``; the records get its ids
            of images and categories, so that they can be scored on it.

    Raises:
        InputError: an output would replace its own input, ``output`` is no folder, the model has no
            such things to draw, or ``annotations`` lacks an image or class.
        FileNotFoundError, ValueError: ``annotations`` cannot be read.
    """
    output = _checked_folder(output)
    for source in sources:
        if (output / source.output).resolve() == source.path.resolve():
            raise InputError(f"{source.path} would be overwritten; choose another output folder")
    run = _Run(predictor, output, star, distributions)
    if annotations is not None:
        run.ids = DataSetIds(annotations, sources, predictor.class_names)
        run.category_ids, run.result.classes_are_numbered = run.ids.category_ids, False
    images = [s for s in sources if not s.is_video]
    with _progress(len(images), "images") as bar:
        for start in range(0, len(images), predictor.batch_size):
            run.images(images[start : start + predictor.batch_size])
            bar.update(min(predictor.batch_size, len(images) - start))
    for source in sources:
        if source.is_video:
            try:
                run.video(str(source.path), source.path.name, source.output, max_frames)
            except Exception as error:
                run.failed(source, error)
    return run.result


def run_on_camera(
    predictor: Predictor,
    camera: int,
    output: str | os.PathLike[str],
    *,
    star: bool = False,
    distributions: bool = False,
    max_frames: int | None = None,
) -> DemoResult:
    """Record camera number ``camera`` with its detections until Ctrl-C (or ``max_frames``).

    Raises :class:`InputError` when the camera cannot be opened, or ``output`` is no folder.
    """
    run = _Run(predictor, _checked_folder(output), star, distributions)
    run.video(camera, f"camera {camera}", Path(f"camera_{camera}.mp4"), max_frames)
    return run.result


def _checked_folder(output: str | os.PathLike[str]) -> Path:
    """Known before all images are, since each of them would fail on it."""
    output = Path(output)
    for path in (output, *output.parents):
        if path.exists() and not path.is_dir():
            raise InputError(f"{output} must be a folder for the drawn results; {path} is a file")
    return output


def write_json(result: DemoResult, path: str | os.PathLike[str]) -> None:
    """Write ``result.records`` atomically, in COCO's result format with names beside the ids."""
    path = Path(path)
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(result.records, indent=1), encoding="utf-8")


def category_ids(
    class_names: Sequence[str], dataset_name: str | None, trained_on: Sequence[Any] | None = None
) -> list[Any]:
    """COCO category id of each class, by its name in the data set where that has these classes.

    Otherwise the ids of the data that the model was ``trained_on``, one for each class, or else the
    class index, counted from 0.
    """
    if dataset_name in MetadataCatalog.list():
        metadata = MetadataCatalog.get(dataset_name)
        ids = metadata.get("thing_dataset_id_to_contiguous_id") or {}
        places = order_in(class_names, metadata.get("thing_classes") or [])
        if ids and places is not None:
            in_data = sorted(ids, key=ids.__getitem__)
            return [in_data[place] for place in places]
    return list(range(len(class_names)) if trained_on is None else trained_on)


class _Run:
    """State of one run: the predictor, what is drawn and what has been found so far."""

    def __init__(self, predictor: Predictor, output: Path, star: bool, distributions: bool) -> None:
        model = predictor.model
        if star and distributions:
            raise InputError("star points and distributions cannot be drawn together")
        if star and "star" not in predictor.extra_fields:
            raise InputError(f"{type(model).__name__} has no star points to draw")
        if distributions and "distributions" not in predictor.extra_fields:
            raise InputError(f"{type(model).__name__} has no distributions to draw")
        self.predictor = predictor
        self.output = output
        self.predict: Callable[..., Any] = predictor
        if star:
            self.predict = predictor.predict_star
        elif distributions:
            self.predict = predictor.predict_distributions
        self.category_ids = category_ids(
            predictor.class_names, predictor.cfg.dataset_name, predictor.category_ids
        )
        self.ids: DataSetIds | None = None
        numbers = list(range(len(predictor.class_names)))
        numbered = predictor.category_ids is None and self.category_ids == numbers
        self.result = DemoResult(classes_are_numbered=numbered)

    def images(self, batch: Sequence[Source]) -> None:
        readable: list[tuple[Source, np.ndarray]] = []
        for source in batch:
            try:
                readable.append((source, to_array(source.path, "RGB")))
            except (ImageReadError, OSError) as error:
                self.failed(source, error)
        for source, image, instances in self._predicted(readable):
            try:
                self._write_image(source, image, instances)
            except Exception as error:
                self.failed(source, error)

    def failed(self, source: Source, error: Exception) -> None:
        """List what went wrong with one input; raise what would go wrong with the others too."""
        if isinstance(error, OSError) and error.errno in _OF_THE_OUTPUT:
            raise error
        self.result.failures.append((str(source.path), _reason(error)))

    def _predicted(
        self, images: Sequence[tuple[Source, np.ndarray]]
    ) -> Iterator[tuple[Source, np.ndarray, Instances]]:
        """All together or, if the model fails, one by one, to know which image it fails on."""
        if not images:
            return
        try:
            found = self.predict([image for _, image in images], input_format="RGB")
        except Exception as error:
            if len(images) == 1:
                self.failed(images[0][0], error)
                return
            for one in images:
                yield from self._predicted([one])
            return
        for (source, image), instances in zip(images, found, strict=True):
            yield source, image, instances

    def _write_image(self, source: Source, image: np.ndarray, instances: Instances) -> None:
        target = self.output / source.output
        origin: dict[str, Any] = {"file_name": str(source.path)}
        if self.ids is not None:
            origin["image_id"] = self.ids.image_id(source.path, instances.image_size)
        save_image(self.predictor.draw(image, instances, input_format="RGB"), target)
        self._record(instances, origin)
        self.result.written.append(target)

    def video(self, source: str | int, name: str, output: Path, max_frames: int | None) -> None:
        capture = cv2.VideoCapture(source)
        try:
            if not capture.isOpened():
                raise InputError(f"cannot open {name}: not a video that OpenCV reads")
            length = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
            limits = [n for n in (length, max_frames) if n is not None and n > 0]
            with _progress(min(limits, default=None), name) as bar:
                self._write_video(capture, name, self.output / output, max_frames, bar)
        finally:
            capture.release()

    def _write_video(
        self, capture: Any, name: str, target: Path, max_frames: int | None, bar: tqdm
    ) -> None:
        fps = capture.get(cv2.CAP_PROP_FPS)
        fps = fps if 0 < fps < 1000 else _DEFAULT_FPS
        frames = islice(_frames(capture), max_frames)
        first = next(frames, None)
        if first is None:
            raise InputError(f"cannot read any frame of {name}")
        scale = display_scale(*first.shape[:2])
        height, width = (scale * side for side in first.shape[:2])
        with replacing(target) as temporary:
            writer = cv2.VideoWriter(
                str(temporary), cv2.VideoWriter.fourcc(*"mp4v"), fps, (width, height)
            )
            if not writer.isOpened():
                raise RuntimeError(f"OpenCV cannot write {target} (no MPEG-4 encoder)")
            try:
                for drawn in self._drawn_frames(first, frames, name):
                    writer.write(drawn[:, :, ::-1])
                    bar.update()
            except KeyboardInterrupt:
                ctrl_c_answered()
                # how a camera recording ends; what is there so far is kept
                logging.getLogger(__name__).info("%s: stopped by the user", name)
            finally:
                writer.release()
        self.result.written.append(target)

    def _drawn_frames(
        self, first: np.ndarray, frames: Iterator[np.ndarray], name: str
    ) -> Iterator[np.ndarray]:
        number = 0
        batch = [first, *islice(frames, self.predictor.batch_size - 1)]
        while batch:
            found = self.predict(batch, input_format="BGR")
            for frame, instances in zip(batch, found, strict=True):
                self._record(instances, {"file_name": name, "frame": number})
                yield np.asarray(self.predictor.draw(frame, instances))
                number += 1
            batch = list(islice(frames, self.predictor.batch_size))

    def _record(self, instances: Instances, origin: dict[str, Any]) -> None:
        self.result.num_images += 1
        boxes = instances.pred_boxes.tensor.clone()
        boxes[:, 2:] -= boxes[:, :2]
        rows = zip(
            boxes.tolist(),
            instances.scores.tolist(),
            instances.pred_classes.tolist(),
            strict=True,
        )
        for bbox, score, label in rows:
            self.result.records.append(
                {
                    "image_id": self.result.num_images,
                    **origin,
                    "category_id": self.category_ids[label],
                    "category_name": self.predictor.class_names[label],
                    "bbox": bbox,
                    "score": score,
                }
            )


def _reason(error: Exception) -> str:
    """One line on what is wrong with an input whose name is known."""
    if isinstance(error, ImageReadError):
        return error.reason
    if isinstance(error, OSError | InputError):
        return str(error)
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def _frames(capture: Any) -> Iterator[np.ndarray]:
    while True:
        success, frame = capture.read()
        if not success:
            return
        yield frame


def _progress(total: int | None, description: str) -> tqdm:
    """One line with the time left; in a log file a new one every ten seconds."""
    terminal = sys.stderr.isatty()
    return tqdm(
        total=total,
        desc=description,
        unit="",
        mininterval=0.2 if terminal else 10.0,
        disable=total == 0,
    )
