#!/bin/sh
# Writes one line at the end of a batch job's output, what it has cost: slurmd's TaskEpilog, run as
# the job's user. Optional.
#
# Slurm gives a TaskEpilog no standard output, but its standard error is the job's. It runs after
# each task; the batch script is the one without a step of its own, and the last.
#
# A user sees their own jobs over the daemon's socket. For a job of several nodes the figures of
# the others come from where /etc/wattledger/receipts-from says: a file with the address of the
# Prometheus that scrapes the nodes (README.md). Nodes without figures are named, or counted where
# Slurm does not tell their names.
#
# Whatever goes wrong, it ends with 0 and within 20 s: a job must not fail, or last, for its receipt.

from_file=${WATTLEDGER_RECEIPTS_FROM:-/etc/wattledger/receipts-from}

trap 'exit 0' EXIT HUP INT TERM
PATH=${WATTLEDGER_SLURM_BIN:+$WATTLEDGER_SLURM_BIN:}/usr/bin:/bin:/usr/local/bin:/opt/wattledger/bin
LC_ALL=C.UTF-8
export PATH LC_ALL
# The environment is the job's: what is set there for its own programs is not for these.
unset LD_PRELOAD LD_LIBRARY_PATH PYTHONHOME PYTHONPATH PYTHONPLATLIBDIR PYTHONSTARTUP PYTHONINSPECT
unset PYTHONWARNINGS PYTHONVERBOSE PYTHONDEVMODE PYTHONPROFILEIMPORTTIME

case ${SLURM_STEP_ID:-${SLURM_STEPID:-}} in
    '' | batch | 4294967291) ;; # Slurm's number for the batch script: slurm.h, SLURM_BATCH_SCRIPT
    *) exit 0 ;;
esac
[ "${SLURM_PROCID:-0}" = 0 ] || exit 0
case $SLURM_JOB_ID in '' | 0* | *[!0-9]* | ???????????*) exit 0 ;; esac

from='' nodes=$SLURMD_NODENAME
case $SLURM_JOB_NUM_NODES in
    '' | 1) ;;
    *)
        nodes=$(timeout 3 scontrol show hostnames "$SLURM_JOB_NODELIST" 2>/dev/null | tr '\n' ',')
        [ ! -r "$from_file" ] || read -r from <"$from_file"
        ;;
esac
set -- job "slurm/$SLURM_JOB_ID" --line
# Without names it tells of how many nodes: it knows SLURM_JOB_NUM_NODES.
[ -z "${nodes%,}" ] || set -- "$@" --nodes "${nodes%,}"

program=${WATTLEDGER_PROGRAM:-wattledger} line=
[ -z "$from" ] ||
    line=$(timeout 11 "$program" "$@" --from "$from" --deadline 10s </dev/null 2>/dev/null)
# Without an answer about all nodes, the one that the job ends on knows what it cost there.
[ -n "$line" ] || line=$(timeout 5 "$program" "$@" </dev/null 2>/dev/null)
[ -z "$line" ] || printf '%s\n' "$line" >&2
exit 0
