#!/bin/sh
# Removes what prolog_slurmctld.sh wrote, and where AdminComment is wanted notes that the job has
# ended: slurmctld's EpilogSlurmctld, run as SlurmUser.
#
# It writes one small file at the most, and asks nobody: slurmctld waits for it, 2 s at the most. The
# rest is done by wattledger-admin-comments.service, which makes that directory when it is enabled.

names=${WATTLEDGER_NAMES_DIR:-/run/wattledger-names}
ended=${WATTLEDGER_ENDED_DIR:-/run/wattledger-ended}
at_most=${WATTLEDGER_ENDED_MAX:-10000} # notes lie in memory, and their reader may be stopped

exec </dev/null >/dev/null 2>&1
trap 'exit 0' EXIT HUP INT TERM
PATH=/usr/bin:/bin LC_ALL=C
export PATH LC_ALL
umask 022

ours() { # directory
    [ ! -L "$1" ] && [ -d "$1" ] && [ -O "$1" ]
}

note() {
    set -- "$ended"/[0-9]*
    [ $# -lt "$at_most" ] || return
    # An array's last task has the array's number: its AdminComment would become that of all tasks.
    called=$SLURM_JOB_ID
    if [ "$SLURM_ARRAY_JOB_ID" = "$SLURM_JOB_ID" ]; then
        case $SLURM_ARRAY_TASK_ID in
            '' | *[!0-9]* | ???????????*) ;;
            *) called=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID ;;
        esac
    fi
    [ ${#SLURM_JOB_NODELIST} -lt 65536 ] || return
    new=$ended/.new.$SLURM_JOB_ID.$$
    if printf '%s\n%s\nend\n' "$called" "$SLURM_JOB_NODELIST" >"$new" &&
        mv -f "$new" "$ended/$SLURM_JOB_ID"; then
        return
    fi
    rm -f "$new"
}

main() {
    ! ours "$ended" || note
    ! ours "$names" || rm -f "$names/$SLURM_JOB_ID"
}

case $SLURM_JOB_ID in '' | 0* | *[!0-9]* | ???????????*) exit 0 ;; esac
# The names may lie on a file system that hangs, and then whoever touches it cannot even be killed: a
# child does, and is left.
main &
work=$!
# slurmctld starts its hooks with SIGCHLD and SIGTERM blocked: a `wait` would never end, and no alarm
# could end it.
for pause_s in 0.01 0.02 0.05 0.1 0.2 0.5 1; do
    sleep "$pause_s" # which reaps the child, too, if that has ended
    kill -0 "$work" || break
done
exit 0
