"""Which of the packages belong to it."""

import re
from pathlib import Path

from setuptools import setup

SOURCE = "../../projects"
TEXT = (Path(__file__).parent / SOURCE / "vfnet_yolof/utils/__init__.py").read_text()

setup(
    version=re.search('__version__ = "(.*?)"', TEXT)[1],
    package_dir={"": SOURCE},
    packages=["vfnet_yolof", "vfnet_yolof.runtime", "vfnet_yolof.utils"],
)
