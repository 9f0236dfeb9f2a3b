#!/bin/sh
# Takes away what deploy/install.sh put there. Settings and books stay.
set -eu
DESTDIR=${DESTDIR:-} PREFIX=${PREFIX:-/usr/local}
root=$DESTDIR$PREFIX
rm -rf "${root:?}/lib/wattledger" "$root/share/wattledger"
rm -f "$root/bin/wattledger" "$root/lib/sysusers.d/wattledger.conf"
for unit in wattledger.service wattledger.socket wattledger-grid.service; do
    rm -f "$root/lib/systemd/system/$unit"
done
