"""Where the packages lie. Everything else that describes the distribution is in pyproject.toml.

The experiments in `configs/` belong to the repository's top level but are wanted beside the code of
an installed package too, where they become `vfnet_yolof/_configs`.
"""

from setuptools import find_namespace_packages, find_packages, setup

CONFIGS = "vfnet_yolof._configs"

setup(
    package_dir={"": "projects", CONFIGS: "configs"},
    packages=[
        *find_packages("projects"),
        CONFIGS,
        *(f"{CONFIGS}.{name}" for name in find_namespace_packages("configs")),
    ],
    package_data={
        "vfnet_yolof": ["py.typed", "model_zoo/*.csv", "export/browser/*"],
        CONFIGS: ["**/*.yaml"],
    },
)
