#!/bin/sh
# Writes the receipts of jobs that have ended into their AdminComment, on the controller, as
# SlurmUser: run by wattledger-admin-comments.timer. Optional, and off until that is enabled.
#
# epilog_slurmctld.sh leaves a file for each job. Its figures are asked of the Prometheus that
# /etc/wattledger/receipts-from names, once the last page of each node was scraped. While nodes are
# missing it is tried again; after ten minutes the receipt is written without them, and names them.
# While the API or the database does not answer, the files wait, for a day.
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
keep_s=${WATTLEDGER_RECEIPTS_KEEP_S:-86400}
run_s=300   # how long a run goes on; the next comes half a minute later
at_most=5   # jobs in a row without an answer: the API or the database is down, for the others, too

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

# 0: done, or never to be done; 1: not whole yet; 2: nobody answers, and `why` says who
settle() { # file age_s option…
    file_=$1 age_=$2
    shift 2
    { read -r called && read -r nodelist && read -r end; } <"$file_" || return 0
    [ "$end" = end ] || return 0
    case $called in '' | *[!0-9_]*) return 0 ;; esac
    job=${file_##*/}
    nodes=$(timeout 20 scontrol show hostnames "$nodelist" 2>/dev/null | tr '\n' ',')
    nodes=${nodes%,}
    why="scontrol does not know $nodelist"
    [ -n "$nodes" ] || return 2
    why=$(timeout 90 "$program" job "slurm/$job" --line --nodes "$nodes" --from "$from" \
        --deadline 60s "$@" 2>&1 </dev/null)
    line=$(printf '%s\n' "$why" | grep "^wattledger: slurm/$job[ :]" | head -n 1)
    if [ -z "$line" ]; then
        case $why in
            *"no job '"*) return 1 ;;
            *'several clusters have a job '*)
                say "job $called: several clusters have one of that id; name yours in $from_file:" \
                    "--match cluster=…"
                return 1
                ;;
            *) return 2 ;;
        esac
    fi
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
        timeout 30 scontrol update JobId="$called" AdminComment="$line" </dev/null >/dev/null 2>&1 ||
        { why="neither sacctmgr nor scontrol takes the AdminComment of job $called"; return 2; }
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
done_=0 left=0 lost=0 in_a_row=0
# What was tried longest ago comes first, or jobs without figures would keep the others from their
# turn. A file's time of access is its last try; that of its last change stays the job's end.
names=$(ls -rtu "$ended")
[ "$(printf '%s\n' "$names" | wc -l)" -lt "${WATTLEDGER_ENDED_MAX:-10000}" ] ||
    say "$ended is full: what else ends is not noted"
for name in $names; do
    file=$ended/$name
    case $name in *[!0-9]*) continue ;; esac
    [ -f "$file" ] && [ ! -L "$file" ] || continue
    age_s=$((now_s - $(stat -c %Y "$file")))
    [ "$age_s" -ge "$wait_s" ] || continue
    if [ "$age_s" -ge "$keep_s" ]; then
        rm -f "$file"
        lost=$((lost + 1))
        continue
    fi
    [ $(($(date +%s) - now_s)) -lt "$run_s" ] || break
    touch -a "$file"
    settle "$file" "$age_s" "$@"
    case $? in
        0)
            rm -f "$file"
            done_=$((done_ + 1)) in_a_row=0
            ;;
        1)
            in_a_row=0
            if [ "$age_s" -ge $((give_up_s * 2)) ]; then
                say "job $name: nowhere are figures of it; not tried again"
                rm -f "$file"
            else
                left=$((left + 1))
            fi
            ;;
        *)
            left=$((left + 1)) in_a_row=$((in_a_row + 1))
            [ "$in_a_row" -lt "$at_most" ] && continue
            say "$at_most jobs in a row without an answer: $(printf '%s\n' "$why" | head -n 1)"
            break
            ;;
    esac
done
[ "$lost" -eq 0 ] || say "$lost jobs ended too long ago: no receipts"
[ $((done_ + left)) -eq 0 ] || say "receipts: $done_ written, $left to be tried again"
exit 0
