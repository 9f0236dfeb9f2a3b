#!/bin/sh
# Removes what prolog_slurmctld.sh wrote: slurmctld's EpilogSlurmctld, run as SlurmUser.

directory=${WATTLEDGER_NAMES_DIR:-/run/wattledger-names}

trap 'exit 0' EXIT HUP INT TERM
PATH=/usr/bin:/bin LC_ALL=C
export PATH LC_ALL

case $SLURM_JOB_ID in
    '' | 0* | *[!0-9]* | ???????????*) ;;
    *) [ ! -L "$directory" ] && [ -O "$directory" ] && rm -f "$directory/$SLURM_JOB_ID" ;;
esac </dev/null >/dev/null 2>&1
exit 0
