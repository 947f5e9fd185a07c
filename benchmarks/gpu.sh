#!/bin/sh
# The generators on one GPU, within nine minutes. On a machine with the data and a network, once:
#     benchmarks/gpu.sh pack DATA/cifar10_jpg [3.12]
# That writes .gpu/cifar10_jpg.tar.gz (20 MB) and .gpu/wheels: pydantic and platformdirs for that Python on x86-64 Linux.
# On the machine with the GPU, which needs torch, numpy, pyarrow, typer, Pillow and safetensors, no installation of datagen and no network:
#     benchmarks/gpu.sh [--minutes 2] [--families vae gan]
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
if [ "${1:-}" = pack ]; then
    mkdir -p .gpu
    rm -rf .gpu/cifar10_jpg.tar.gz .gpu/wheels
    "$python" -c 'import shutil, sys; shutil.make_archive(".gpu/cifar10_jpg", "gztar", sys.argv[1])' "$2"
    exec "$python" -m pip download --quiet --disable-pip-version-check --only-binary :all: --python-version "${3:-3.12}" \
        --platform manylinux2014_x86_64 --dest .gpu/wheels -c constraints.txt pydantic platformdirs
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/cifar10_jpg" "$work/site"
"$python" -m tarfile -e .gpu/cifar10_jpg.tar.gz "$work/cifar10_jpg"
if ! "$python" -c 'import pydantic, platformdirs' 2>/dev/null; then
    for wheel in .gpu/wheels/*.whl; do "$python" -m zipfile -e "$wheel" "$work/site"; done
fi
export DATAGEN_CACHE="$work/cache" PYTHONUNBUFFERED=1 PYTHONPATH="$PWD:$work/site${PYTHONPATH:+:$PYTHONPATH}"
"$python" benchmarks/gpu.py "$work" "$@"
