#!/bin/sh
# Writes the receipts of jobs that have ended into their AdminComment, on the controller, as
# SlurmUser: run by wattledger-admin-comments.timer. Optional, and off until that is enabled.
#
# epilog_slurmctld.sh leaves a file for each job. Its figures are asked of the Prometheus that
# /etc/wattledger/receipts-from names, once the last page of each node was scraped. While nodes are
# missing it is tried again; after ten minutes the receipt is written without them, and names them.
# A comment that somebody else has made (jobstats, a person) stays as it is. What else the API asks
# for stands in that file below the address, an option and its value on each line:
#   --token-file /etc/wattledger/prometheus-token
# SlurmUser must be able to read what is named there.
#
# A job that has ended can be given an AdminComment in the accounting database only: sacctmgr(1),
# "SPECIFICATIONS FOR JOB". scontrol refuses (22.05), and is tried where there is no database.

ended=${WATTLEDGER_ENDED_DIR:-/run/wattledger-ended}
from_file=${WATTLEDGER_RECEIPTS_FROM:-/etc/wattledger/receipts-from}
wait_s=${WATTLEDGER_RECEIPTS_WAIT_S:-90}     # a scrape interval of 60 s and two commits
give_up_s=${WATTLEDGER_RECEIPTS_GIVE_UP_S:-600}
at_once=200 # jobs of one run; the next comes half a minute later

set -u
PATH=${WATTLEDGER_SLURM_BIN:+$WATTLEDGER_SLURM_BIN:}/usr/bin:/bin:/usr/local/bin:/opt/wattledger/bin
LC_ALL=C.UTF-8
export PATH LC_ALL
program=${WATTLEDGER_PROGRAM:-wattledger}

say() { echo "$*" >&2; }

comment_of() { # job, as sacct calls it
    timeout 20 sacct --noheader --parsable2 --allocations --format=AdminComment --jobs="$1" \
        2>/dev/null | head -n 1
}

# 0: done, or never to be done; 1: to be tried again
settle() { # file age_s option…
    file_=$1 age_=$2
    shift 2
    { read -r called && read -r nodelist && read -r end; } <"$file_" || return 0
    [ "$end" = end ] || return 0
    case $called in '' | *[!0-9_]*) return 0 ;; esac
    job=${file_##*/}
    nodes=$(timeout 20 scontrol show hostnames "$nodelist" 2>/dev/null | tr '\n' ',')
    nodes=${nodes%,}
    [ -n "$nodes" ] || return 1
    line=$(timeout 120 "$program" job "slurm/$job" --line --nodes "$nodes" --from "$from" "$@" \
        2>/dev/null </dev/null | head -n 1)
    case $line in
        'wattledger: '*) ;;
        *) return 1 ;;
    esac
    case $line in
        *'; missing: '* | *'; cut short: '* | *'; in part: '* | *' so far: '*)
            [ "$age_" -ge "$give_up_s" ] || return 1
            ;;
    esac
    there=$(comment_of "$called")
    case $there in
        '' | 'wattledger: '*) ;;
        *)
            say "job $called has an AdminComment of somebody else's: it stays"
            return 0
            ;;
    esac
    timeout 30 sacctmgr --immediate --quiet modify job where jobid="$called" \
        set AdminComment="$line" </dev/null >/dev/null 2>&1 ||
        timeout 30 scontrol update JobId="$called" AdminComment="$line" </dev/null >/dev/null 2>&1
}

from=
set --
if [ -r "$from_file" ]; then
    {
        read -r from || :
        while read -r name value || [ -n "$name" ]; do
            case $name in
                --token-file | --basic-auth-file | --ca-file | --tenant | --match)
                    set -- "$@" "$name" "$value"
                    ;;
                '' | '#'*) ;;
                *)
                    say "$from_file: $name is not an option that is taken from there"
                    exit 1
                    ;;
            esac
        done
    } <"$from_file"
fi
if [ -z "$from" ]; then
    say "$from_file names no Prometheus: nothing can be asked"
    exit 1
fi
if [ -L "$ended" ] || [ ! -d "$ended" ] || [ ! -O "$ended" ]; then
    say "$ended is not a directory of $(id -un): the unit makes it"
    exit 1
fi

now_s=$(date +%s)
done_=0 left=0
for file in "$ended"/[0-9]*; do
    [ -f "$file" ] && [ ! -L "$file" ] || continue
    age_s=$((now_s - $(stat -c %Y "$file")))
    [ "$age_s" -ge "$wait_s" ] || continue
    [ $((done_ + left)) -lt "$at_once" ] || break
    if settle "$file" "$age_s" "$@"; then
        rm -f "$file"
        done_=$((done_ + 1))
    elif [ "$age_s" -ge $((give_up_s * 2)) ]; then
        say "job ${file##*/}: no receipt, or nowhere to write it; not tried again"
        rm -f "$file"
        left=$((left + 1))
    else
        left=$((left + 1))
    fi
done
[ $((done_ + left)) -eq 0 ] || say "receipts: $done_ written, $left to be tried again or given up"
exit 0
