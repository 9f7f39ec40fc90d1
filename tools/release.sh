#!/usr/bin/env bash
# Build the source distribution and, from it, the wheel; test the wheel in an environment of its own.
#
#   tools/release.sh [FOLDER]      FOLDER: where both are put, by default dist
#
# The tests run on the installed package: beside them there is no source of it. Variables:
#   PYTHON=python3.12     the Python to use
#   TORCH="torch ..."     the PyTorch and torchvision to test with
#   TESTS="tests/cli"     the tests to run, by default all that are not marked slow
set -euo pipefail
out=$(realpath -m "${1:-dist}")
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python3}

if [ -n "$(git status --porcelain)" ]; then
    echo "release: there are changes that are not committed; a release is built from a commit." >&2
    exit 1
fi
version=$(sed -n 's/^__version__ = "\([^"]*\)".*/\1/p' projects/vfnet_yolof/utils/__init__.py)
if ! grep -Eq "^## \[$version\] - [0-9]{4}-[0-9]{2}-[0-9]{2}$" CHANGELOG.md; then
    echo "release: CHANGELOG.md has no dated section for version $version." >&2
    exit 1
fi
mkdir -p "$out"
if compgen -G "$out/vfnet_yolof-*" >/dev/null; then
    echo "release: $out holds a release already; move it away." >&2
    exit 1
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
git archive --prefix=tree/ HEAD | tar -x -C "$scratch"

echo "== Building version $version"
"$python" -m venv "$scratch/build"
"$scratch/build/bin/python" -m pip install --quiet build twine
"$scratch/build/bin/python" -m build --outdir "$out" "$scratch/tree"
"$scratch/build/bin/twine" check --strict "$out"/*
wheel=$(ls "$out"/vfnet_yolof-"$version"-*.whl)

echo "== Installing the wheel in an empty environment"
"$python" -m venv "$scratch/use"
use=$scratch/use/bin
# shellcheck disable=SC2086  # several requirements
"$use/python" -m pip install --quiet ${TORCH:-torch torchvision} "$wheel"
"$use/vfnet-yolof" install-detectron2
"$use/vfnet-yolof" doctor

echo "== Training and predicting, away from any source"
(
    cd "$scratch"
    "$use/vfnet-yolof" train vfnet/vfnet_small_shapes.py --output run --device cpu --seed 0 \
        train.max_iter=20 train.eval_period=0
    "$use/python" -c 'from PIL import Image; Image.new("RGB", (160, 160), "red").save("one.png")'
    "$use/vfnet-yolof" predict run one.png --output drawn --device cpu
    test -s drawn/one.png
)

echo "== Testing the installed package"
"$use/python" -m pip install --quiet "${wheel}[dev]"
rm -rf "$scratch/tree/projects" "$scratch/tree/tools/__pycache__"
(
    cd "$scratch/tree"
    # shellcheck disable=SC2086
    OMP_NUM_THREADS=1 "$use/python" -m pytest -n 2 -m "not slow" --require-golden ${TESTS:-tests}
)
echo "== Version $version is ready in $out"
