"""Parts of a config: built, with what is wrong with one told in one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from detectron2.config import instantiate
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from torch import nn

from .options import ConfigError


@contextmanager
def config_errors(source: str) -> Iterator[None]:
    """Around whatever looks up keys of a config.

    Args:
        source: the file or key that errors are to begin with.

    Raises:
        ConfigError: for OmegaConf's errors, whose texts have several lines.
    """
    try:
        yield
    except OmegaConfBaseException as error:
        raise ConfigError(f"{source}: {_sentence(error)}") from error


def built(key: str, node: DictConfig) -> Any:
    """What the node at ``key`` of the config describes.

    Raises:
        ConfigError: a value in it is refused by the class that it is for, does not suit its
            parameters, asks for more memory than there is, or is missing.
    """
    try:
        return instantiate(node)
    except ConfigError:
        raise
    except (KeyError, MemoryError, OmegaConfBaseException, RuntimeError) as error:
        raise ConfigError(f"{key}: {_sentence(error)}") from error
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{key}: {error}") from error


def built_model(node: DictConfig, source: str = "") -> nn.Module:
    """The model that a config describes.

    Args:
        node: ``cfg.model``.
        source: the file that it comes from, for messages.

    Raises:
        ConfigError: as of :func:`built`; or it describes something else.
    """
    key = f"{source}: model" if source else "model"
    model = built(key, node)
    if not isinstance(model, nn.Module):
        raise ConfigError(
            f"{key} describes a {type(model).__name__}, not a model; it needs a _target_ that "
            "names the class of one."
        )
    return model


def _sentence(error: BaseException) -> str:
    """The first line of an error, and the key that OmegaConf names in the others."""
    if isinstance(error, KeyError) and error.args:
        return str(error.args[0])  # str() of a KeyError is its message in quotes
    text = (str(error) or type(error).__name__).splitlines()[0]
    key = getattr(error, "full_key", None)
    return f"{text} (at {key})" if key and str(key) not in text else text
