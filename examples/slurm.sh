#!/bin/bash
#SBATCH --job-name=r1v0
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=8
#SBATCH --mem=48G
#SBATCH --time=08:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=r1v0-%j.log
#
#   sbatch examples/slurm.sh runs/math --preset qwen2.5-1.5b-math
#
# Starts the run, or goes on with it: a run that was stopped and resumed equals an undisturbed one, so the job may be
# shorter than the run. Submit from a shell that finds `r1v0`. Two minutes before the time limit SLURM sends USR1 to this
# script: the run then saves where it stands, and the job is queued again. A preempted job or one of a lost node is
# queued again by SLURM (--requeue). scancel sends TERM, which saves too, and the job stays cancelled.

set -u
run=${1:?usage: sbatch examples/slurm.sh RUN [options of r1v0 train]}
shift

r1v0 train --out "$run" --requeue "$@" &
training=$!

signals=0 limit=
trap 'signals=$((signals + 1)) limit=yes; kill -TERM "$training"' USR1
trap 'signals=$((signals + 1)); kill -TERM "$training"' TERM

# A signal ends `wait`, and the run goes on saving: wait again.
while :; do
    before=$signals
    wait "$training"
    code=$?
    [ "$signals" = "$before" ] && break
done

if [ -n "$limit" ] && [ "$code" != 0 ] && [ -n "${SLURM_JOB_ID:-}" ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
