"""``vfnet-yolof deploy``: an exported file as servers and browsers want it."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..config.options import ConfigError
from .arguments import Command, add_output
from .export import size_of

TARGETS = ("triton", "tensorrt", "browser")


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("file", metavar="FILE.onnx", help="of vfnet-yolof export")
    add(
        "--to",
        choices=TARGETS,
        required=True,
        help="triton: a model repository; tensorrt: the file and a script with the line for "
        "trtexec; browser: a page that detects in images locally",
    )
    add_output(parser, "folder to write into", required=True)
    add("--max-batch", type=_positive, metavar="N", help="triton, tensorrt: images at once (8)")
    add(
        "--largest",
        type=size_of,
        metavar="HxW",
        help="tensorrt: px of the largest resized image; by default as the file resizes",
    )
    add(
        "--runtime-files",
        metavar="DIR",
        help="browser: folder of npm's onnxruntime-web; the page asks no other server for them",
    )


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of images of 1 or more")
    return int(text)


def _run(args: argparse.Namespace) -> int:
    from ..export.deploy import OnnxFile, deploy_browser, deploy_tensorrt, deploy_triton

    _require_fitting(args)
    file, output = OnnxFile.open(Path(args.file)), Path(args.output)
    batch = args.max_batch or 8
    if args.to == "triton":
        written = deploy_triton(file, output, max_batch=batch)
        hint = f"tritonserver --model-repository={output}"
    elif args.to == "tensorrt":
        written = deploy_tensorrt(file, output, largest=args.largest, max_batch=batch)
        hint = f"{output}/build_engine.sh (not run here: it takes an NVIDIA GPU and TensorRT)"
    else:
        written = deploy_browser(file, output, Path(args.runtime_files))
        hint = f"python -m http.server --directory {output} 8000, and open http://localhost:8000"
    for path in written:
        print(f"wrote {path}")
    print(f"next: {hint}")
    return 0


def _require_fitting(args: argparse.Namespace) -> None:
    if args.runtime_files is None and args.to == "browser":
        raise ConfigError(
            "--to browser needs onnxruntime-web: npm pack onnxruntime-web, unpack it, and name "
            "its folder: --runtime-files package/dist"
        )
    if args.runtime_files is not None and args.to != "browser":
        raise ConfigError("--runtime-files is for --to browser.")
    if args.largest is not None and args.to != "tensorrt":
        raise ConfigError("--largest is for --to tensorrt.")
    if args.max_batch is not None and args.to == "browser":
        raise ConfigError("--max-batch is for --to triton and --to tensorrt.")


DEPLOY = Command(
    "Write an exported ONNX file as Triton, TensorRT or a browser wants it.",
    "  %(prog)s exported/model_best.onnx --to triton --output models\n"
    "  %(prog)s exported/model_best.onnx --to tensorrt --output engine --max-batch 4\n"
    "  %(prog)s exported/model_best.onnx --to browser --output page \\\n"
    "      --runtime-files package/dist",
    _add_arguments,
    _run,
)
