"""Getting a published checkpoint: a file on this machine, else the cache, else its address."""

from __future__ import annotations

import hashlib
import http.client
import logging
import os
import queue
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from ..checkpoint import CheckpointError
from ..checkpoint.convert import file_sha256
from ..utils.files import cache_dir, write_atomically
from .table import Weights

logger = logging.getLogger(f"detectron2.{__name__}")

# Until a server answers, for all addresses of a file together, and between pieces of its answer.
ANSWER_SECONDS = 10.0
_PIECE = 1 << 20


class WeightsUnavailableError(CheckpointError):
    """Published weights are neither here nor to be fetched; the message says where to put them."""


def find_weights(weights: Weights, folders: Sequence[str | os.PathLike[str]] = ()) -> Path:
    """The checkpoint on this machine, fetched into the cache if it is not here yet.

    ``folders`` are looked into first, then the working directory, then the cache.

    Raises:
        CheckpointError: a file of that name has another hash than the published one.
        WeightsUnavailableError: it is nowhere, and no address answered with it.
    """
    cache = cache_dir()
    for folder in (*folders, ".", cache):
        path = Path(folder) / weights.file
        if path.is_file():
            check_hash(path, weights)
            return path
    return _fetch(weights, cache)


def check_hash(path: Path, weights: Weights) -> None:
    """Check that the file's SHA-256 starts as published, where a hash is.

    Raises:
        CheckpointError: it does not.
    """
    if weights.sha256 and not (found := file_sha256(path)).startswith(weights.sha256):
        raise CheckpointError(
            f"{path} is not the published file: its SHA-256 is {found[:16]}..., the published one "
            f"starts with {weights.sha256}. Fetch it again ({weights.page}), or give a file of "
            "your own by its path"
        )


def _fetch(weights: Weights, folder: Path) -> Path:
    reasons = [] if weights.addresses else ["it can only be fetched with a browser"]
    deadline = time.monotonic() + ANSWER_SECONDS
    for number, address in enumerate(weights.addresses):
        share = (deadline - time.monotonic()) / (len(weights.addresses) - number)
        try:
            return _download(address, weights, folder, max(share, 0.1))
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = getattr(error, "reason", None) or str(error) or type(error).__name__
            logger.warning("%s: %s", address, reason)
            reasons.append(f"{address}: {reason}")
    hashed = f"SHA-256 starts with {weights.sha256}" if weights.sha256 else "no hash is published"
    raise WeightsUnavailableError(
        f"{weights.file} ({hashed}) is not on this machine and could not be fetched.\n  "
        + "\n  ".join(reasons)
        + f"\nGet it from {weights.page} or from someone who has it, and put it into "
        f"{folder} under this name; any other file is given by its path."
    )


def _download(address: str, weights: Weights, folder: Path, seconds: float) -> Path:
    """Write ``folder / weights.file`` whole or not at all."""
    response = _open(address, seconds)
    digest = hashlib.sha256()

    def receive(stream: BinaryIO) -> None:
        while piece := response.read(_PIECE):
            digest.update(piece)
            stream.write(piece)
        if not digest.hexdigest().startswith(weights.sha256):
            raise ValueError(
                f"what came has the SHA-256 {digest.hexdigest()[:16]}..., not {weights.sha256}..."
            )

    with response:
        logger.info("Fetching %s", address)
        write_atomically(folder / weights.file, receive)
    return folder / weights.file


def _open(address: str, seconds: float) -> Any:
    """The server's answer. A thread waits for it: looking up a name knows no time limit."""
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(urllib.request.urlopen(address, timeout=seconds))
        except Exception as error:  # whatever it is, it is the caller's to see
            answers.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"no answer within {seconds:.0f} seconds") from None
    if isinstance(answer, Exception):
        raise answer
    return answer
