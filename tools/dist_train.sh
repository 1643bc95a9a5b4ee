#!/usr/bin/env bash
# Trains on several GPUs, or on CPUs where there is none: bash tools/dist_train.sh CONFIG GPUS [args of train.py]
# Several machines: set TORCHRUN_ARGS, e.g. "--nnodes=2 --rdzv-backend=c10d --rdzv-endpoint=HOST:PORT".
set -e
USAGE="usage: bash tools/dist_train.sh CONFIG GPUS [args of train.py]"
case $1 in -h | --help) echo "$USAGE" && exit ;; esac
[[ $# -ge 2 ]] || { echo "$USAGE" >&2 && exit 2; }
CONFIG=$1
GPUS=$2
exec "${PYTHON:-python}" -m torch.distributed.run ${TORCHRUN_ARGS:---standalone} --nproc_per_node="$GPUS" \
    "$(dirname "$0")/train.py" "$CONFIG" --launcher pytorch "${@:3}"
