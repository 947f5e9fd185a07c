#!/bin/sh
# The generators on one GPU, within nine minutes. On a machine with the data, once:   benchmarks/gpu.sh pack DATA/cifar10_jpg
# That writes .gpu/cifar10_jpg.zip (55 MB). On the machine with the GPU, which needs torch, pyarrow, typer and Pillow but no
# installation of datagen, nor a network:                                            benchmarks/gpu.sh [--minutes 2] [--families vae gan]
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
if [ "${1:-}" = pack ]; then
    mkdir -p .gpu
    rm -f .gpu/cifar10_jpg.zip
    exec "$python" -c 'import shutil, sys; shutil.make_archive(".gpu/cifar10_jpg", "zip", sys.argv[1])' "$2"
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$python" -m zipfile -e .gpu/cifar10_jpg.zip "$work/cifar10_jpg"
PYTHONPATH=$PWD PYTHONUNBUFFERED=1 "$python" benchmarks/gpu.py "$work" "$@"
