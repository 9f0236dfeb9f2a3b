#!/bin/sh
# Installs wattledger's hooks for Slurm, or takes them away; may be run again and again.
#
#   deploy/slurm/install.sh                  the node's: prolog, epilog, tmpfiles.d, receipts
#   deploy/slurm/install.sh --controller     the controller's: names of jobs, AdminComment
#   deploy/slurm/install.sh --check          installs nothing: are the lines of slurm.conf there?
#   deploy/slurm/install.sh --uninstall      takes away what it has installed
#
#   --destdir DIR       below this directory, for packages; $DESTDIR does the same
#   --slurm-conf FILE   else $SLURM_CONF, else where Slurm looks for it; /dev/null: Slurm is gone
#
# slurm.conf is read and never written: the lines that are missing are printed, as they have to be.
# It ends with 0; with 3 when --check finds lines missing, or --uninstall finds what still needs the
# files; and with 1 or 2 when it could not do its work.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
role=node action=install destdir=${DESTDIR:-} conf=

fail() {
    echo "install.sh: $1" >&2
    exit "${2:-1}"
}

while [ $# -gt 0 ]; do
    case $1 in
        --controller) role=controller ;;
        --node) role=node ;;
        --check) action=check ;;
        --uninstall) action=uninstall ;;
        --destdir | --slurm-conf)
            [ $# -gt 1 ] || fail "$1 needs a value" 2
            case $1 in --destdir) destdir=$2 ;; *) conf=$2 ;; esac
            shift
            ;;
        --help | -h)
            sed -n '2,/^set /s/^# \{0,1\}//p' "$0" | sed '$d'
            exit 0
            ;;
        *) fail "$1 is no option of mine; --help lists them" 2 ;;
    esac
    shift
done

# ── what is installed where ─────────────────────────────────────────────────────────────────────

# "SOURCE TARGET MODE", without DESTDIR.
files() {
    case $role in
        node)
            echo "prolog.sh /etc/slurm/prolog.d/50-wattledger.sh 755"
            echo "epilog.sh /etc/slurm/epilog.d/50-wattledger.sh 755"
            echo "task_epilog.sh /etc/slurm/wattledger-task-epilog.sh 755"
            echo "wattledger-jobs.conf /etc/tmpfiles.d/wattledger-jobs.conf 644"
            ;;
        controller)
            echo "prolog_slurmctld.sh /etc/slurm/wattledger-prolog-slurmctld.sh 755"
            echo "epilog_slurmctld.sh /etc/slurm/wattledger-epilog-slurmctld.sh 755"
            echo "admin_comments.sh /usr/lib/wattledger/slurm/admin-comments 755"
            echo "wattledger-names.conf /etc/tmpfiles.d/wattledger-names.conf 644"
            echo "wattledger-admin-comments.service" \
                "/etc/systemd/system/wattledger-admin-comments.service 644"
            echo "wattledger-admin-comments.timer" \
                "/etc/systemd/system/wattledger-admin-comments.timer 644"
            ;;
    esac
}

put() { # source target mode
    to=$destdir$2
    if [ -f "$to" ] && [ ! -L "$to" ] && cmp -s "$here/$1" "$to"; then
        chmod "$3" "$to"
        echo "unchanged  $to"
        return
    fi
    mkdir -p "$(dirname "$to")"
    # In one step, since Slurm may be about to run the old one; and by a name that `prolog.d/*` does
    # not match, or Slurm runs that, too, and drains the node once it is gone.
    new=$(unfinished "$to")
    cp "$here/$1" "$new"
    chmod "$3" "$new"
    mv -f "$new" "$to"
    echo "installed  $to"
}

unfinished() { # file: what it is called while it is written
    echo "$(dirname "$1")/.$(basename "$1").new"
}

take_away() { # source target mode
    rm -f "$(unfinished "$destdir$2")"
    [ -e "$destdir$2" ] || [ -L "$destdir$2" ] || return 0
    rm -f "$destdir$2"
    echo "removed    $destdir$2"
    case $2 in
        # Only where nobody else has put anything there.
        *.d/50-wattledger.sh | /usr/lib/wattledger/slurm/*)
            rmdir "$(dirname "$destdir$2")" 2>/dev/null || :
            ;;
    esac
}

# ── what slurm.conf says ────────────────────────────────────────────────────────────────────────

find_conf() {
    for named in "$conf" "${SLURM_CONF:-}"; do
        [ -n "$named" ] || continue
        [ -r "$named" ] || fail "$named cannot be read" 2
        echo "$named"
        return
    done
    for candidate in etc/slurm etc/slurm-llnl run/slurm/conf var/spool/slurmd/conf-cache; do
        candidate=$destdir/$candidate/slurm.conf
        [ -r "$candidate" ] && echo "$candidate" && return
    done
    :
}

# Comments go, lines that end in a backslash go on, included files stand where they are named, there
# is no space around "=". https://slurm.schedmd.com/slurm.conf.html, "INCLUDE MODIFIERS".
flattened() { # file depth
    [ "$2" -lt 8 ] || fail "files include each other without end: $1"
    [ -r "$1" ] || fail "$1 is included and cannot be read" 2
    tr -d '\r' <"$1" | sed -e :a -e '/\\$/N; s/\\\n//; ta' |
        sed 's/#.*//; s/[[:space:]]*=[[:space:]]*/=/g' |
        while read -r line || [ -n "$line" ]; do # the last one need not end
            case $line in
                [Ii][Nn][Cc][Ll][Uu][Dd][Ee][[:space:]]*)
                    name=$(echo "${line#???????}" | sed 's/^[[:space:]]*//; s/[[:space:]]*$//')
                    case $name in *%c*) name=${name%%%c*}$(cluster)${name#*%c} ;; esac
                    case $name in /*) name=$destdir$name ;; *) name=$(dirname "$conf")/$name ;; esac
                    flattened "$name" $(($2 + 1)) || exit
                    ;;
                *) printf '%s\n' "$line" ;;
            esac
        done
}

cluster() {
    sed -n 's/^[[:space:]]*ClusterName[[:space:]]*=[[:space:]]*\([^[:space:]#]*\).*/\1/Ip' "$conf"
}

values_of() { # keyword: a line for each time that it is set; keywords have no case
    printf '%s\n' "$flat" | awk -v want="$1" '
        BEGIN { want = tolower(want) }
        tolower($0) ~ /^[[:space:]]*(node|partition|down|frontend|nodeset)[a-z]*=/ { next }
        {
            for (i = 1; i <= NF; i++) {
                at = index($i, "=")
                if (at && tolower(substr($i, 1, at - 1)) == want) {
                    found = substr($i, at + 1)
                    gsub(/"/, "", found)
                    print found
                }
            }
        }'
}

value_of() { # keyword
    values_of "$1" | tail -n 1
}

# Several lines of Prolog=, Epilog= and the controller's two are all run since Slurm 24.05; before,
# and of other keywords, the last one holds. Where no Slurm tells its release, it is a new one.
hooks_of() { # keyword
    release=$({ scontrol --version || slurmd -V; } 2>/dev/null |
        sed -n 's/.* \([0-9][0-9]*\)\.\([0-9][0-9]*\).*/\1\2/p')
    if [ "${release:-2405}" -ge 2405 ]; then values_of "$1"; else value_of "$1"; fi
}

# A Prolog= is one pattern as of glob(7), or one file; a relative one is of slurm.conf's directory.
as_path() { # value
    case $1 in /*) path=$1 ;; *) path=$(dirname "${conf#"$destdir"}")/$1 ;; esac
    printf '%s\n' "$path" | tr -s /
}

matches() { # file pattern
    # In a `case`, "*" is slashes, too; with as many of them on both sides it is none.
    [ "$(printf %s "$1" | tr -cd /)" = "$(printf %s "$2" | tr -cd /)" ] || return 1
    # A pattern is what is wanted here.
    # shellcheck disable=SC2254
    case $1 in $2) return 0 ;; esac
    return 1
}

# The files that a pattern is now: below DESTDIR, and expanded without being split.
named_by() { # pattern
    (
        IFS=
        for file in $destdir$1; do [ ! -e "$file" ] || printf '%s\n' "$file"; done
    )
}

# Files are compared, and not their names: a directory may have two, and a path more.
is_one_of() { # file; on standard input: "SOURCE TARGET MODE"
    found=1
    while read -r _ target _; do [ ! "$1" -ef "$destdir$target" ] || found=0; done
    return $found
}

missing=
want() { # line to be there
    missing="$missing$1
"
}

# Whether one of the lines runs a file: by its name, by a pattern that matches it, or from a script
# of the site's that names it.
runs() { # values target
    printf '%s\n' "$1" | (
        while read -r value; do
            path=$(as_path "$value")
            ! matches "$2" "$path" || exit 0
            for_it=$(named_by "$path" | while IFS= read -r file; do
                [ ! "$file" -ef "$destdir$2" ] || echo "$file"
            done)
            [ -z "$for_it" ] || exit 0
            [ -f "$destdir$path" ] || continue
            ! grep -v '^[[:space:]]*#' "$destdir$path" 2>/dev/null | grep -q -F -- "$2" || exit 0
        done
        exit 1
    )
}

hook() { # keyword target pattern-or-target for an empty value
    values=$(hooks_of "$1" | sed '/^(null)$/d')
    told=$(printf %s "$values" | tr '\n' ' ')
    case $values in
        '') want "$1=$3" ;;
        *,*) want "# $1=$told: Slurm drains the node, since it knows no lists; instead:
$1=$3" ;;
        *)
            runs "$values" "$2" ||
                want "# $1=$told is the site's own: in it, before its last line:
$2 || :"
            ;;
    esac
}

check_node() {
    value=$(value_of ProctrackType)
    [ "$value" = proctrack/cgroup ] || want "ProctrackType=proctrack/cgroup${value:+  # now $value}"
    hook Prolog /etc/slurm/prolog.d/50-wattledger.sh '/etc/slurm/prolog.d/*'
    hook Epilog /etc/slurm/epilog.d/50-wattledger.sh '/etc/slurm/epilog.d/*'
    value=$(value_of PrologFlags)
    flags=$value
    for flag in Alloc Contain; do
        case ,$(printf %s "$value" | tr '[:upper:]' '[:lower:]'), in
            *,contain,*) ;; # it means Alloc, too
            *,alloc,*) [ "$flag" = Alloc ] || flags=${flags:+$flags,}$flag ;;
            *) flags=${flags:+$flags,}$flag ;;
        esac
    done
    [ "$flags" = "$value" ] || want "PrologFlags=$flags"
    value=$(value_of JobAcctGatherType)
    if [ "$value" != jobacct_gather/cgroup ] && uses_cgroup_v1; then
        want "JobAcctGatherType=jobacct_gather/cgroup${value:+  # now $value}"
    fi
}

uses_cgroup_v1() {
    plugin=
    beside=$(dirname "$conf")/cgroup.conf
    if [ -r "$beside" ]; then
        plugin=$(sed 's/#.*//' "$beside" | tr -d '" \t\r' | tr '[:upper:]' '[:lower:]' |
            sed -n 's/^cgroupplugin=//p' | tail -n 1)
    fi
    case $plugin in
        cgroup/v1) return 0 ;;
        cgroup/v2 | disabled) return 1 ;;
    esac
    [ ! -e /sys/fs/cgroup/cgroup.controllers ]
}

check_controller() {
    hook PrologSlurmctld /etc/slurm/wattledger-prolog-slurmctld.sh \
        /etc/slurm/wattledger-prolog-slurmctld.sh
    hook EpilogSlurmctld /etc/slurm/wattledger-epilog-slurmctld.sh \
        /etc/slurm/wattledger-epilog-slurmctld.sh
}

# Lines that would run nothing any more: all the files that they name are ours. Slurm drains nodes
# and requeues jobs then. A `… || :` in a script does no harm.
needing_us() {
    for keyword in Prolog Epilog TaskEpilog PrologSlurmctld EpilogSlurmctld; do
        values_of "$keyword" | while read -r value; do
            path=$(as_path "$value")
            ! runs_ours_only "$path" || echo "$keyword=$value"
        done
    done
}

runs_ours_only() { # pattern
    named=$(named_by "$1")
    [ -n "$named" ] || return 1
    printf '%s\n' "$named" | (
        while IFS= read -r file; do files | is_one_of "$file" || exit 1; done
    )
}

# What Slurm runs now, as lines of slurm.conf: it reads that file when it is told to. Empty where it
# does not answer within 10 s. Since 24.05 a line is "Prolog[0] = …", before "Prolog = …".
in_force() {
    SLURM_CONF=$conf timeout 10 scontrol show config 2>/dev/null |
        sed 's/^\([A-Za-z]*\)\[[0-9]*\]/\1/; s/[[:space:]]*=[[:space:]]*/=/'
}

# ── doing it ────────────────────────────────────────────────────────────────────────────────────

conf=$(find_conf)
flat=
[ -z "$conf" ] || flat=$(flattened "$conf" 0)

if [ "$action" = uninstall ]; then
    [ -n "$conf" ] || fail "which slurm.conf may need what would go? none was found; --slurm-conf" 2
    needed=$(needing_us)
    if [ -n "$needed" ]; then
        echo "$conf still needs what would go: Slurm drains nodes without their prolog or epilog."
        echo "Take out, \`scontrol reconfigure\`, and run this again:"
        echo
        echo "$needed"
        exit 3
    fi
    if [ "$conf" != /dev/null ] && command -v scontrol >/dev/null; then
        flat=$(in_force)
        needed=$(needing_us)
        if [ -n "$needed" ]; then
            echo "$conf does not need what would go, but Slurm, as it runs, still does:"
            echo "\`scontrol reconfigure\`, and run this again. If it then still does, these lines are"
            echo "to be taken out of the slurm.conf that slurmctld reads:"
            echo
            echo "$needed"
            exit 3
        fi
        [ -n "$flat" ] ||
            echo "Slurm does not answer; whether it has read $conf since its last edit is not known."
    fi
    timer=wattledger-admin-comments.timer
    enabled=$destdir/etc/systemd/system/timers.target.wants/$timer
    if [ "$role" = controller ] && [ -L "$enabled" ]; then
        echo "$timer is enabled, and would start what is gone. First:"
        echo
        echo "systemctl disable --now $timer"
        exit 3
    fi
    files | while read -r source target mode; do take_away "$source" "$target" "$mode"; done
    exit 0
fi

if [ "$action" = install ]; then
    files | while read -r source target mode; do put "$source" "$target" "$mode"; done
    if [ -z "$destdir" ] && command -v systemd-tmpfiles >/dev/null; then
        case $role in
            node) systemd-tmpfiles --create wattledger-jobs.conf || : ;;
            # It names SlurmUser's directories; where that is not "slurm", edit it first.
            controller) systemd-tmpfiles --create wattledger-names.conf || : ;;
        esac
    fi
fi

if [ "$role" = node ]; then check_node; else check_controller; fi
if [ -z "$conf" ]; then
    echo "No slurm.conf was found here (--slurm-conf FILE); it needs:"
elif [ -n "$missing" ]; then
    echo "$conf lacks:"
else
    echo "$conf has all that is needed."
    exit 0
fi
echo
printf '%s' "$missing"
echo
echo "Then: scontrol reconfigure"
[ "$action" = install ] || exit 3
