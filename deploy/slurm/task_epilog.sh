#!/bin/sh
# Writes one line at the end of a batch job's output, what it has cost: slurmd's TaskEpilog, run as
# the job's user. Optional.
#
# Slurm gives a TaskEpilog no standard output, but its standard error is the job's. It runs after
# each task; the batch script is the one without a step of its own, and the last.
#
# A user sees their own jobs over the daemon's socket. For a job of several nodes the figures of
# the others come from where /etc/wattledger/receipts-from says: a file with the address of the
# Prometheus that scrapes the nodes (README.md). Nodes without figures are named.
#
# Whatever goes wrong, it ends with 0 and soon: a job must not fail, or last, for its receipt.

from_file=${WATTLEDGER_RECEIPTS_FROM:-/etc/wattledger/receipts-from}

trap 'exit 0' EXIT HUP INT TERM
PATH=/usr/bin:/bin:/usr/local/bin:/opt/wattledger/bin LC_ALL=C.UTF-8
export PATH LC_ALL

case ${SLURM_STEP_ID:-${SLURM_STEPID:-}} in
    '' | batch | 4294967291) ;; # Slurm's number for the batch script: slurm.h, SLURM_BATCH_SCRIPT
    *) exit 0 ;;
esac
[ "${SLURM_PROCID:-0}" = 0 ] || exit 0
case $SLURM_JOB_ID in '' | 0* | *[!0-9]* | ???????????*) exit 0 ;; esac

set -- job "slurm/$SLURM_JOB_ID" --line
nodes=$SLURMD_NODENAME
case $SLURM_JOB_NUM_NODES in
    '' | 1) ;;
    *)
        nodes=$(timeout 5 scontrol show hostnames "$SLURM_JOB_NODELIST" | tr '\n' ',')
        from=
        [ ! -r "$from_file" ] || read -r from <"$from_file"
        [ -z "$from" ] || set -- "$@" --from "$from" --deadline 10s
        ;;
esac
[ -z "${nodes%,}" ] || set -- "$@" --nodes "${nodes%,}"
timeout 15 "${WATTLEDGER_PROGRAM:-wattledger}" "$@" </dev/null 3>&2 2>/dev/null >&3
exit 0
