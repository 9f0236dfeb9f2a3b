#!/bin/sh
# Takes away what deploy/install.sh put there. Settings and books stay.
set -eu
DESTDIR=${DESTDIR:-} PREFIX=${PREFIX:-/usr/local}
root=$DESTDIR$PREFIX
lib=$root/lib/wattledger
rm -rf "$lib/bin" "$lib/lib" "$root/share/wattledger"
rm -f "$lib/pyvenv.cfg" "$root/bin/wattledger" "$root/lib/sysusers.d/wattledger.conf"
if [ -d "$lib" ]; then
    rmdir "$lib" 2>/dev/null || echo "left, since it is not of this installation: $(echo "$lib"/*)"
fi
for unit in wattledger.service wattledger.socket wattledger-grid.service; do
    rm -f "$root/lib/systemd/system/$unit"
done
