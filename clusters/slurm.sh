#!/bin/bash
# Slurm: a Ray cluster inside one job, which runs a search; near its time limit the search is stopped gracefully and the job
# queued again, until all is done.
#
#   dfd-tune cluster example slurm > search.sh      then set what is below for your search and your machines
#   sbatch search.sh
#   dfd-tune results NAME --store STORE             on a login node, also while it runs; so do `report` and `stop`
#
# Needed is a folder that all nodes can write (the store), and in it or elsewhere on shared disks an environment with this
# very version: python3.11 -m venv VENV; VENV/bin/pip install 'dfd-tune==0.1.0' 'ray[default]==2.60.0'
#
# Tried with Slurm 22.05 on two nodes of one machine, without GPUs.

#SBATCH --job-name=dfd-tune
#SBATCH --nodes=4
#SBATCH --gpus-per-node=4
#SBATCH --time=24:00:00
# Whole nodes, one Ray node on each: beside another Ray cluster, `ray symmetric-run` does not start.
#SBATCH --exclusive
#SBATCH --ntasks-per-node=1
#SBATCH --mem=0
# Ten minutes before the end, or up to one more, the script below gets USR1.
#SBATCH --signal=B:USR1@600
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log

set -euo pipefail

# The search. Launched again under its name, it goes on with what is left, as by `dfd-tune resume`.
NAME=${NAME:-table1-cifar10}
STORE=${STORE:-$HOME/dfd_runs}
VENV=${VENV:-$HOME/dfd-tune-env}
SEARCH=(--space table1 --dataset cifar10 --device cuda)
# On each node, a folder for copies of what trainings read, as rows at random are slow to read from a shared one.
COPIES=${COPIES:-${TMPDIR:-/tmp}/dfd-tune-copies-$USER}

STOP_SECONDS=${STOP_SECONDS:-420} # of the ten minutes, for the search to end; the rest is for Ray's nodes
export PATH="$VENV/bin:$PATH"

# The cluster's token, so that others on these nodes can't run programs through Ray.
export RAY_AUTH_MODE=token
if [ ! -s ~/.ray/auth_token ]; then
    ray get-auth-token --generate > /dev/null
fi
chmod 600 ~/.ray/auth_token

# A node that falls silent is given up on after about 12 s rather than 65 s, and what ran there is tried again after 18 s
# rather than 5 minutes (measured elsewhere, as --system-config of `ray start`).
export RAY_health_check_initial_delay_ms=2000 RAY_health_check_period_ms=1000 RAY_health_check_timeout_ms=2000
export RAY_health_check_failure_threshold=4 RAY_grpc_client_keepalive_time_ms=10000 RAY_grpc_client_keepalive_timeout_ms=5000
export RAY_USAGE_STATS_ENABLED=0
# Nodes that start slowly are waited for.
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=300

# This script runs on the job's first node, which becomes Ray's head. If the nodes reach it by another of its addresses, set
# HEAD_IP. The port differs between jobs.
HEAD_IP=${HEAD_IP:-$(hostname -I | awk '{print $1}')}
ADDRESS=$HEAD_IP:$((20000 + SLURM_JOB_ID % 10000))

signals=0 step=
time_is_up() {
    signals=$((signals + 1))
    echo "$(date): the job's time is nearly up; stopping '$NAME'."
    if ! dfd-tune stop "$NAME" --store "$STORE" --wait "$STOP_SECONDS"; then
        # It was still starting, or does not end: it is killed, and goes on from its latest checkpoints.
        kill -TERM "$step" 2> /dev/null || true
    fi
}
trap time_is_up USR1

srun --cpus-per-task="$SLURM_CPUS_ON_NODE" \
    ray symmetric-run --address "$ADDRESS" --min-nodes "$SLURM_JOB_NUM_NODES" \
    --num-cpus="$SLURM_CPUS_ON_NODE" --num-gpus="${SLURM_GPUS_ON_NODE:-0}" --object-store-memory=500000000 \
    -- env RAY_ADDRESS="$ADDRESS" \
    dfd-tune launch "${SEARCH[@]}" --name "$NAME" --store "$STORE" --node-copies "$COPIES" &
step=$!

# A signal interrupts `wait`, which then has to be asked again.
while :; do
    before=$signals code=0
    wait "$step" || code=$?
    [ "$signals" = "$before" ] && break
done

# 0: done. 1: done, but some trials FAILED. 2: it can't be run like this. All else: it was stopped, or killed.
if [ "$signals" -gt 0 ] && [ "$code" -gt 2 ]; then
    echo "$(date): '$NAME' goes on when the job's turn comes again."
    scontrol requeue "$SLURM_JOB_ID"
    exit 0
fi
exit "$code"
