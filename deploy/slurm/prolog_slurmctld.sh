#!/bin/sh
# Tells wattledger a job's name and its place in an array, which only the controller knows:
# slurmctld's PrologSlurmctld, run as SlurmUser. Optional.
#
# It writes DIRECTORY/JOB-ID, in a directory that the nodes see too (README.md). Slurm requeues or
# cancels a job whose PrologSlurmctld fails, and has it wait for as long as that runs: whatever goes
# wrong here, it ends with 0, and within 2 s.
#
# The name is the user's choice, so it stands last and raw; readers clean it.

directory=${WATTLEDGER_NAMES_DIR:-/run/wattledger-names}

exec </dev/null >/dev/null 2>&1
trap 'exit 0' EXIT HUP INT TERM
PATH=/usr/bin:/bin LC_ALL=C
export PATH LC_ALL
umask 022

record() {
    incomplete=
    echo 'wattledger-job 1' || incomplete=1
    for pair in "id=$SLURM_JOB_ID" "array_job=$SLURM_ARRAY_JOB_ID" "array_task=$SLURM_ARRAY_TASK_ID"; do
        case ${pair#*=} in '' | *[!0-9]* | ???????????*) ;; *) echo "$pair" || incomplete=1 ;; esac
    done
    printf 'name=%.1024s\nend\n' "$SLURM_JOB_NAME" && [ -z "$incomplete" ]
}

main() {
    case $SLURM_JOB_ID in '' | 0* | *[!0-9]* | ???????????*) return ;; esac
    [ ! -L "$directory" ] && [ -d "$directory" ] && [ -O "$directory" ] || return
    new=$directory/.new.$SLURM_JOB_ID.$$
    if record >"$new" && mv -f "$new" "$directory/$SLURM_JOB_ID"; then
        return
    fi
    rm -f "$new"
}

# Where the file system hangs, whoever touches it cannot even be killed: a child does, and is left.
main &
work=$!
# slurmctld starts its hooks with SIGCHLD and SIGTERM blocked: a `wait` would never end, and no alarm
# could end it.
for pause_s in 0.01 0.02 0.05 0.1 0.2 0.5 1; do
    sleep "$pause_s" # which reaps the child, too, if that has ended
    kill -0 "$work" || break
done
exit 0
