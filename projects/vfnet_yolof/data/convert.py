"""Data of any known format as COCO files, with images beside them, in a folder of their own."""

from __future__ import annotations

import io
import os
import shutil
from functools import partial
from pathlib import Path

from ..utils.files import write_atomically
from .annotations import load_annotations
from .faults import shown
from .layouts import Split, open_data

_SPLITS = ("train", "val")


def convert_data(
    path: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    split: float | None = None,
    copy_images: bool = False,
    overwrite: bool = False,
) -> dict[str, int]:
    """Write ``train.json`` with ``train/`` and ``val.json`` with ``val/``; images are links.

    The files are written last, so that a conversion that was interrupted has none.

    Args:
        path, split: as of :func:`.layouts.open_data`, which reads ``output`` again.
        output: the folder; made if it is missing.
        copy_images: copy them instead of linking to where they are.
        overwrite: replace the files of an earlier conversion. Images that no longer belong to it
            stay in their folder, where nothing names them.

    Returns:
        How many images each split has.

    Raises:
        FileExistsError: the files are there already, and not to be overwritten.
        FileNotFoundError: an image is not there.
        ValueError: as of :func:`.layouts.open_data`; the output is the data itself; an image lies
            outside of its data set's folder.
        OSError: links or files cannot be written.
    """
    opened, folder = open_data(path, split), Path(output)
    parts = {s: part for s in _SPLITS if (part := getattr(opened, s)) is not None}
    _require_room(folder, parts, overwrite)
    names = {
        s: [image.file_name for image in load_annotations(part.json_file).images]
        for s, part in parts.items()
    }
    contents = {s: Path(part.json_file).read_bytes() for s, part in parts.items()}
    for s in _SPLITS:
        (folder / f"{s}.json").unlink(missing_ok=True)
    for s, part in parts.items():
        for name in names[s]:
            _place(Path(part.images), name, folder / s, copy_images)
    for s, data in contents.items():
        write_atomically(folder / f"{s}.json", partial(shutil.copyfileobj, io.BytesIO(data)))
    return {s: len(found) for s, found in names.items()}


def _require_room(folder: Path, parts: dict[str, Split], overwrite: bool) -> None:
    target = Path(os.path.realpath(folder))
    for part in parts.values():
        is_source = target == Path(os.path.realpath(Path(part.json_file).parent))
        if is_source or target.is_relative_to(os.path.realpath(part.images)):
            raise ValueError(f"--output {folder}: lies in the data itself; name another folder.")
    for name in (*(f"{s}.json" for s in _SPLITS), *_SPLITS):
        there = folder / name
        if os.path.lexists(there) and not overwrite:
            raise FileExistsError(
                f"{there} is there already; name another folder, or add --overwrite."
            )
        if there.is_symlink():
            raise FileExistsError(f"{there} is a link; remove it, or name another folder.")


def _place(root: Path, name: str, folder: Path, copy: bool) -> None:
    """The image ``name`` of ``root`` under the same name in ``folder``."""
    target = Path(os.path.normpath(folder / name))
    if not target.is_relative_to(folder):
        raise ValueError(f"{shown(name)} is not below {root}, so it cannot be placed in {folder}.")
    source = Path(os.path.realpath(root / name))
    if not source.is_file():
        raise FileNotFoundError(f"Image file not found: {root / name}")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    if copy:
        shutil.copy2(source, target)
        return
    try:
        target.symlink_to(os.path.relpath(source, os.path.realpath(target.parent)))
    except OSError as error:
        raise OSError(f"{target} cannot be a link ({error}): add --copy-images.") from error
