#!/bin/sh
# Tells wattledger which job holds which GPUs of this node: slurmd's Prolog, run as root.
#
# It writes /run/wattledger-jobs/JOB-ID and does nothing else. Slurm drains a node whose prolog
# fails, so whatever goes wrong here, it ends with 0; the job is then accounted for without its
# GPUs. It starts one program (mv), asks nobody, and takes a few milliseconds.
#
# The form of the file is private to wattledger: first and last line show that it is complete, and
# only printable values of at most 128 characters go in, since on some clusters users choose them.

directory=${WATTLEDGER_JOBS_DIR:-/run/wattledger-jobs}

trap 'exit 0' EXIT HUP INT TERM
PATH=/usr/bin:/bin LC_ALL=C
export PATH LC_ALL
umask 022

put() {
    case $2 in
        '' | '(null)' | *[!\ -~]*) ;;
        *) printf '%s=%.128s\n' "$1" "$2" || incomplete=1 ;;
    esac
}

record() {
    incomplete=
    echo 'wattledger-job 1' || incomplete=1
    put id "$SLURM_JOB_ID"
    put boot "$boot"
    put uid "$SLURM_JOB_UID"
    # As many numbers as fit are not the job's GPUs: all or none.
    [ ${#SLURM_JOB_GPUS} -gt 2048 ] || case $SLURM_JOB_GPUS in
        '' | NoDevFiles | *[!0-9A-Za-z,/-]*) ;;
        *) printf 'gpus=%s\n' "$SLURM_JOB_GPUS" || incomplete=1 ;;
    esac
    put mps "$CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"
    put restart "$SLURM_JOB_RESTART_COUNT"
    put start "$SLURM_JOB_START_TIME"
    put sluid "$SLURM_JOB_SLUID"
    put user "$SLURM_JOB_USER"
    put account "$SLURM_JOB_ACCOUNT"
    put partition "$SLURM_JOB_PARTITION"
    put cluster "$SLURM_CLUSTER_NAME"
    put node "$SLURMD_NODENAME"
    echo end && [ -z "$incomplete" ]
}

main() {
    case $SLURM_JOB_ID in '' | 0* | *[!0-9]* | ???????????*) return ;; esac
    # Two jobs may start at once, and one of them makes it.
    [ -d "$directory" ] || mkdir -m 0755 "$directory" || [ -d "$directory" ] || return
    # Neither a link nor somebody else's directory is written to.
    [ ! -L "$directory" ] && [ -O "$directory" ] || return
    boot=
    read -r boot </proc/sys/kernel/random/boot_id || boot=
    new=$directory/.new.$SLURM_JOB_ID.$$
    # Complete, or not at all: readers see a name only once all of it is written.
    if record >"$new" && mv -f "$new" "$directory/$SLURM_JOB_ID"; then
        return
    fi
    rm -f "$new"
}

main </dev/null >/dev/null 2>&1
exit 0
