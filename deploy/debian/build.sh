#!/bin/sh
# Builds dist/wattledger_VERSION_ARCHITECTURE.deb with dpkg-deb alone. `make deb` calls it.
#
# Build it on the release that it is for: it holds libraries made for this machine's interpreter,
# which it depends on by name (python3.11 on Debian 12), and for its C library. The same checkout
# gives the same bytes; SOURCE_DATE_EPOCH is the commit's unless it is set.
set -eu
cd "$(dirname "$0")/../.."
umask 022
PYTHON=${PYTHON:-/usr/bin/python3} OUT=${OUT:-dist}
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 1767225600)}
export PYTHON SOURCE_DATE_EPOCH PYTHONHASHSEED=0 LC_ALL=C

# 1.2.0rc1 of pyproject.toml is 1.2.0~rc1 here: what comes before a release sorts before it.
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml | sed -E 's/\.?(a|b|rc|dev)([0-9]+)/~\1\2/')
architecture=$(dpkg --print-architecture)
interpreter=$("$PYTHON" -c 'import sys; print(f"python{sys.version_info[0]}.{sys.version_info[1]}")')
libc=$(getconf GNU_LIBC_VERSION | cut -d' ' -f2)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tree=$work/tree
mkdir -p "$tree/DEBIAN" "$tree/usr/share/doc/wattledger" "$tree/etc/apt/apt.conf.d"
DESTDIR=$tree PREFIX=/usr SYSCONFDIR=/etc sh deploy/install.sh
cp deploy/debian/apt.conf "$tree/etc/apt/apt.conf.d/80wattledger"
cp deploy/debian/copyright "$tree/usr/share/doc/wattledger/copyright"
gzip -9 -n -c CHANGELOG.md >"$tree/usr/share/doc/wattledger/changelog.gz"
for script in postinst prerm postrm; do
    cp "deploy/debian/$script" "$tree/DEBIAN/$script"
    chmod 755 "$tree/DEBIAN/$script"
done
(cd "$tree" && find etc -type f | sort | sed 's|^|/|') >"$tree/DEBIAN/conffiles"
(cd "$tree" && find usr -type f -print0 | sort -z | xargs -0 md5sum) >"$tree/DEBIAN/md5sums"
# Counted as dpkg-gencontrol does: what a directory itself takes is the file system's affair.
installed_kib=$(find "$tree" -path "$tree/DEBIAN" -prune -o -printf '%y %s\n' |
    awk '{ kib += $1 == "f" ? int(($2 + 1023) / 1024) : 1 } END { print kib }')
cat >"$tree/DEBIAN/control" <<EOF
Package: wattledger
Version: $version
Architecture: $architecture
Maintainer: ${DEBFULLNAME:-wattledger} <${DEBEMAIL:-wattledger@localhost}>
Installed-Size: $installed_kib
Depends: $interpreter, libc6 (>= $libc), init-system-helpers, systemd (>= 247)
Recommends: ca-certificates
Section: admin
Priority: optional
Description: energy, carbon and water books of GPU nodes
 A daemon that reads the energy meters of GPUs, CPUs and memory, finds out for
 which job the energy was used, prices it with the grid's carbon intensity and
 the site's water factors, and keeps books that balance and survive. It exports
 them to Prometheus and prints receipts for people.
EOF
# Whatever the checkout's umask was, everybody reads what is installed.
chmod -R u=rwX,go=rX,a-s "$tree"
mkdir -p "$OUT"
package=$OUT/wattledger_${version}_$architecture.deb
# zstd: whatever has our Python has a dpkg that reads it, and xz takes ten times as long. One thread:
# several cut the stream where the number of cores says.
dpkg-deb --root-owner-group --threads-max=1 -Zzstd --build "$tree" "$package" >/dev/null
echo "$package"
