#!/bin/sh
# Takes a node that left, or one ledger, out of all totals: deletes what the rules recorded of it.
#
#   forget.sh http://localhost:9090 'instance="gpu0007.example.org"'
#   forget.sh http://localhost:9090 'epoch="01890a5d-ac96-774b-bcce-b302099a8057"'
#
# The node has to be out of the targets for two minutes, and Prometheus needs
# --web.enable-admin-api. A rule that was being evaluated writes once more what it read before the
# deletion, and from then on reads that itself. So it is looked at again after two evaluations, and
# deleted until nothing comes back.
set -eu
[ $# = 2 ] || {
    echo 'usage: forget.sh URL LABEL="VALUE"' >&2
    exit 2
}
api=$1/api/v1
series="{__name__=~\"ledger.*\",$2}"
wait_s=${WATTLEDGER_FORGET_WAIT_S:-70} # two evaluations, each 30 s, and the time that one takes

recorded() { # how many series there are now; Prometheus may just be starting
    answer=$(curl -fsS -m 120 --retry 30 --retry-delay 10 --retry-max-time 300 --retry-connrefused \
        --data-urlencode "query=count($series) or vector(0)" "$api/query?nocache=1")
    echo "$answer" | sed -n 's/.*"value":\[[^,]*,"\([0-9]*\)"\].*/\1/p'
}

count=$(recorded)
for _ in 1 2 3 4 5; do
    curl -sS --fail-with-body -m 120 --data-urlencode "match[]=$series" \
        "$api/admin/tsdb/delete_series"
    sleep "$wait_s"
    left=$(recorded)
    if [ "$left" = 0 ]; then
        echo "$count series of $2 are deleted"
        exit
    fi
    count=$left
done
echo "$2 comes back: is it still among the targets, or was it within the last two minutes?" >&2
exit 1
