#!/bin/sh
# The commands of landweave, and two more: `dask ...` as Dask has it, and `worker SCHEDULER [OPTION...]`, a Dask worker
# as a job wants it, one process for each GPU. WORKER_THREADS: blocks in work at once in each process.
set -eu

# Blocks are planned to fit, so Dask need not spill, pause or kill by memory. 0 threads: one for each core.
worker() {
    threads=$1
    shift
    exec dask worker --memory-limit 0 --nthreads "${WORKER_THREADS:-$threads}" "$@"
}

case "${1:-}" in
dask)
    exec "$@"
    ;;
worker)
    shift
    gpus=0
    if command -v nvidia-smi >/dev/null; then
        gpus=$(nvidia-smi --list-gpus | grep -c '^GPU') || gpus=0
    fi
    if [ "$gpus" -le 1 ]; then
        worker 0 "$@"
    fi
    # The signal to stop reaches every process from tini; this shell waits until they are done.
    trap : TERM INT
    share=$(($(nproc) / gpus))
    gpu=0
    while [ "$gpu" -lt "$gpus" ]; do
        (export CUDA_VISIBLE_DEVICES="$gpu" && worker "$((share > 0 ? share : 1))" "$@") &
        gpu=$((gpu + 1))
    done
    wait || wait
    ;;
*)
    exec landweave "$@"
    ;;
esac
