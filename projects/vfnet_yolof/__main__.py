"""``python -m vfnet_yolof``, the same as ``vfnet-yolof``."""

from .cli.main import console

if __name__ == "__main__":
    console()
