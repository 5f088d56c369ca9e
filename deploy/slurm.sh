#!/usr/bin/env bash
# A fleet on Slurm: Ray on every node of the job, the learner on the first one.
#   sbatch --nodes 4 deploy/slurm.sh shoal train LunarLander-v3 --fleet auto --placement.servers 6
#SBATCH --job-name=shoal
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --signal=B:INT@120
set -euo pipefail

if [ "$#" -eq 0 ]; then
    set -- shoal train CartPole-v1 --fleet auto
fi

port=$((20000 + SLURM_JOB_ID % 10000))
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]}
address=$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname --ip-address | awk '{print $1}')

# A token for this job alone, on the file system that its nodes share.
umask 077
state=$(mktemp -d "${SLURM_SUBMIT_DIR:-$PWD}/.shoal-fleet-XXXXXX")
head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' > "$state/token"
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$state/token" RAY_USAGE_STATS_ENABLED=0
export RAY_health_check_period_ms=1000 RAY_health_check_failure_threshold=3 RAY_health_check_timeout_ms=3000 RAY_worker_niceness=0

started=()
finish() {
    for step in "${started[@]}"; do
        kill "$step" 2> /dev/null || true
    done
    rm -rf "$state"
}
trap finish EXIT

# The first node keeps cores for the learner.
cpus=${SLURM_CPUS_PER_TASK:-1}
srun --nodes=1 --ntasks=1 --overlap --nodelist="$head" \
    ray start --head --block --node-ip-address "$address" --port "$port" \
    --num-cpus "$((cpus > 4 ? cpus - 4 : 1))" --include-dashboard false --object-store-memory 200000000 &
started+=("$!")
for _ in $(seq 60); do
    if ray health-check --address "$address:$port" 2> /dev/null; then
        break
    fi
    sleep 1
done
if [ "${#nodes[@]}" -gt 1 ]; then
    others=$(IFS=,; echo "${nodes[*]:1}")
    srun --nodes="$((${#nodes[@]} - 1))" --ntasks-per-node=1 --overlap --nodelist="$others" \
        ray start --block --address "$address:$port" --num-cpus "$cpus" --object-store-memory 200000000 &
    started+=("$!")
fi

# Slurm's warning before the time is over reaches the learner as Ctrl-C: it writes a checkpoint and ends.
srun --nodes=1 --ntasks=1 --overlap --nodelist="$head" --export="ALL,RAY_ADDRESS=$address:$port" "$@" &
learner=$!
trap 'kill -INT "$learner"' INT
status=0
wait "$learner" || status=$?
wait "$learner" 2> /dev/null || true
exit "$status"
