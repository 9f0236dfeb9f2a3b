#!/bin/sh
# Puts wattledger where it runs: a virtual environment of its own, the units, their drop-ins.
# `make install` and `make deb` call it. All of it is made in a temporary directory first, so that
# a registry that does not answer leaves an installation as it was. By its environment:
#
#   DESTDIR     a tree to install into, for packagers
#   PREFIX      /usr/local; the package's is /usr
#   SYSCONFDIR  /etc
#   PYTHON      the interpreter to run with, 3.11 or newer: /usr/bin/python3
#   EXTRAS      of pyproject.toml, separated by commas: otlp; parquet takes 150 MB more
set -eu
cd "$(dirname "$0")/.."
umask 022
DESTDIR=${DESTDIR:-} PREFIX=${PREFIX:-/usr/local} SYSCONFDIR=${SYSCONFDIR:-/etc}
PYTHON=${PYTHON:-/usr/bin/python3} EXTRAS=${EXTRAS-otlp}
lib=$PREFIX/lib/wattledger share=$PREFIX/share/wattledger
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# ── the libraries, at the versions that the tests ran with ──────────────────────────────────────
"$PYTHON" -m venv "$work/tools"
pip="$work/tools/bin/python -m pip --disable-pip-version-check --quiet"
$pip wheel --constraint constraints.txt --wheel-dir "$work/wheels" ".${EXTRAS:+[$EXTRAS]}"

# ── a virtual environment for its final path ────────────────────────────────────────────────────
# pip would write this directory's name into scripts, and venv into pyvenv.cfg: so the one script
# that is needed, and that file, are written here.
venv=$work/venv
python=$("$PYTHON" -c 'import sys; print(f"python{sys.version_info[0]}.{sys.version_info[1]}")')
base=$("$PYTHON" -c 'import sys; print(sys.base_prefix)')/bin
site=$venv/lib/$python/site-packages
mkdir -p "$venv/bin" "$site"
ln -s "$base/$python" "$venv/bin/python3"
printf 'home = %s\ninclude-system-site-packages = false\n' "$base" >"$venv/pyvenv.cfg"
$pip install --no-index --find-links "$work/wheels" --constraint constraints.txt --no-compile \
    --target "$site" "wattledger${EXTRAS:+[$EXTRAS]}"
rm -rf "$site/bin" "$site"/*.dist-info/RECORD "$site"/*.dist-info/direct_url.json \
    "$site"/*.dist-info/REQUESTED
# I: neither the caller's directory nor PYTHONPATH decides what root's daemon imports.
# Xno_debug_ranges: code without the columns of each instruction is 0.4 MiB less; tracebacks show
# lines, not carets.
cat >"$venv/bin/wattledger" <<EOF
#!$lib/bin/python3 -IXno_debug_ranges
import sys

from wattledger.cli import main

sys.exit(main())
EOF
chmod 755 "$venv/bin/wattledger"
# The service cannot write there, nor anybody but root. By hash, which no copy changes.
"$PYTHON" -m compileall -q -s "$venv" -p "$lib" --invalidation-mode unchecked-hash "$site"
sed "s|/usr/lib/wattledger|$lib|g" deploy/systemd/wattledger-release \
    >"$venv/bin/wattledger-release"
chmod 755 "$venv/bin/wattledger-release"

# ── into place ──────────────────────────────────────────────────────────────────────────────────
mkdir -p "$DESTDIR$PREFIX/bin" "$DESTDIR$PREFIX/lib/systemd/system" \
    "$DESTDIR$PREFIX/lib/sysusers.d" "$DESTDIR$SYSCONFDIR/wattledger"
# What else lies there (deploy/slurm/install.sh puts something) is not ours to take away.
rm -rf "$DESTDIR$lib/bin" "$DESTDIR$lib/lib" "$DESTDIR$share"
mkdir -p "$DESTDIR$lib" "$DESTDIR$share"
cp -R "$venv/." "$DESTDIR$lib"
cp -R deploy/slurm "$DESTDIR$share/slurm"
# The checkout's modes are those of its owner's umask, which may keep everybody else out.
chmod -R u=rwX,go=rX "$DESTDIR$share/slurm"
ln -sfn ../lib/wattledger/bin/wattledger "$DESTDIR$PREFIX/bin/wattledger"
put() {
    mkdir -p "$(dirname "$2")"
    sed "s|/usr/lib/wattledger|$lib|g; s|/usr/share/wattledger|$share|g" "$1" >"$2"
    chmod 644 "$2"
}
for unit in deploy/systemd/*.service deploy/systemd/*.socket; do
    put "$unit" "$DESTDIR$PREFIX/lib/systemd/system/${unit##*/}"
done
put deploy/systemd/sysusers.conf "$DESTDIR$PREFIX/lib/sysusers.d/wattledger.conf"
for file in deploy/systemd/*.conf deploy/systemd/*.yaml; do
    [ "${file##*/}" = sysusers.conf ] || put "$file" "$DESTDIR$share/systemd/${file##*/}"
done
for file in configs/default.toml configs/quiet.toml configs/relay.toml; do
    put "$file" "$DESTDIR$share/${file##*/}"
done
# Settings that are there stay.
[ -e "$DESTDIR$SYSCONFDIR/wattledger/wattledger.toml" ] ||
    put deploy/systemd/wattledger.toml "$DESTDIR$SYSCONFDIR/wattledger/wattledger.toml"
