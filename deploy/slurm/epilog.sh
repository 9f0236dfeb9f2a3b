#!/bin/sh
# Tells wattledger that a job gave its GPUs back: slurmd's Epilog, run as root.
#
# The job's file becomes one of 256 called ended.N, which the next job of that N replaces: so a job
# of 300 ms, too, is told of, and nothing has to be tidied up. Slurm drains a node whose epilog
# fails: whatever goes wrong here, it ends with 0.

directory=${WATTLEDGER_JOBS_DIR:-/run/wattledger-jobs}

trap 'exit 0' EXIT HUP INT TERM
PATH=/usr/bin:/bin LC_ALL=C
export PATH LC_ALL

main() {
    case $SLURM_JOB_ID in '' | 0* | *[!0-9]* | ???????????*) return ;; esac
    [ ! -L "$directory" ] && [ -O "$directory" ] || return
    [ -f "$directory/$SLURM_JOB_ID" ] || return
    mv -f "$directory/$SLURM_JOB_ID" "$directory/ended.$((SLURM_JOB_ID % 256))" ||
        rm -f "$directory/$SLURM_JOB_ID"
}

main </dev/null >/dev/null 2>&1
exit 0
