#!/usr/bin/env bash
# Tests on several GPUs, or on CPUs where there is none: bash tools/dist_test.sh CONFIG CHECKPOINT GPUS [args of test.py]
# Several machines: set TORCHRUN_ARGS, e.g. "--nnodes=2 --rdzv-backend=c10d --rdzv-endpoint=HOST:PORT".
set -e
USAGE="usage: bash tools/dist_test.sh CONFIG CHECKPOINT GPUS [args of test.py]"
case $1 in -h | --help) echo "$USAGE" && exit ;; esac
[[ $# -ge 3 ]] || { echo "$USAGE" >&2 && exit 2; }
CONFIG=$1
CHECKPOINT=$2
GPUS=$3
exec "${PYTHON:-python}" -m torch.distributed.run ${TORCHRUN_ARGS:---standalone} --nproc_per_node="$GPUS" \
    "$(dirname "$0")/test.py" "$CONFIG" "$CHECKPOINT" --launcher pytorch "${@:4}"
