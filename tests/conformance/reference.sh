#!/bin/sh
# Install the reference, BVLC Caffe 1.0 (CPU) with pycaffe, from Debian 11's packages into .reference/root.
# REFERENCE names another folder. MIRROR names another Debian mirror (an archive's, once bullseye has left the others).
set -eu

packages=python3-caffe,caffe,libblas3,liblapack3,libopenblas0-pthread,python3-lmdb,python3-opencv
repository=$(cd "$(dirname "$0")/../.." && pwd)
root=${REFERENCE:-$repository/.reference/root}
stamp=$root/etc/caffe-reference

say() { printf 'reference: %s\n' "$*"; }
fail() { printf 'reference: %s\n' "$*" >&2; exit 1; }
works() {
    # stdout: the versions, when pycaffe, lmdb and OpenCV can be imported in the folder and the caffe command is there
    [ -x "$1/usr/bin/caffe" ] || return 1
    chroot "$1" env GLOG_minloglevel=2 python3 -c \
        'import sys, caffe, cv2, lmdb, numpy; print("caffe", caffe.__version__, "python", sys.version.split()[0], "numpy", numpy.__version__, "opencv", cv2.__version__)'
}

# pycaffe's own tests and the nets that they draw, which Debian's packages leave out: from its source package into
# usr/src/caffe of the folder. The package lists of the installation stay as they are.
get_tests() {
    target=$1/usr/src/caffe
    [ -d "$target" ] && return
    [ "$(id -u)" = 0 ] || fail "getting BVLC's own tests into $target needs root: sudo make reference"
    work=/var/tmp/caffe-source
    rm -rf "$1$work" && mkdir -p "$1$work/lists/partial" "$1$work/caffe"
    sed -n 's/^deb /deb-src /p' "$1/etc/apt/sources.list" | head -n 1 > "$1$work/sources.list"
    options="-q -o Dir::Etc::SourceList=$work/sources.list -o Dir::Etc::SourceParts=/dev/null"
    options="$options -o Dir::State::Lists=$work/lists -o APT::Sandbox::User=root"
    chroot "$1" sh -ec "cd $work; apt-get $options update; apt-get $options source --download-only caffe" \
        >>"$log" 2>&1 || fail "BVLC's own tests (Debian's source package caffe) could not be downloaded; see $log"
    tar -xf "$1$work"/caffe_*.orig.tar.* -C "$1$work/caffe" --wildcards \
        '*python/caffe/test/*.py' '*models/*.prototxt' '*examples/*.prototxt'
    tests=$(find "$1$work/caffe" -type d -path '*/python/caffe/test')
    mv "${tests%/python/caffe/test}" "$target"
    rm -rf "$1$work"
    say "BVLC's own tests are in $target"
}

# reference.py shows the checkout at its own path; made here, for who compares may not write into the folder.
show() { mkdir -p "$1$repository" && chmod 755 "$1"; }

log=$root.log
if [ -f "$stamp" ]; then
    say "already in $root ($(cat "$stamp"))"
    get_tests "$root"
    exit 0
fi
[ "$(id -u)" = 0 ] || fail "installing into $root needs root: sudo make reference (the comparisons do not)"
if [ -d "$root" ] && versions=$(works "$root" 2>/dev/null); then
    show "$root"
    printf '%s\n' "$versions" > "$stamp"
    say "found whole in $root ($versions)"
    get_tests "$root"
    exit 0
fi
if command -v mmdebstrap >/dev/null; then
    tool=mmdebstrap
elif command -v debootstrap >/dev/null; then
    tool=debootstrap
else
    fail "mmdebstrap is not installed: install the Debian or Ubuntu package mmdebstrap (debootstrap does too), then run this again"
fi

# Built beside the final place and renamed when it works: an interrupted installation is never taken for a whole one.
part=$root.part
if [ -e "$part" ]; then
    say "an interrupted installation is in $part: starting again"
    rm -rf --one-file-system "$part"
fi
if [ -e "$root" ]; then
    rmdir "$root" 2>/dev/null ||
        fail "$root exists, but pycaffe does not work there: remove it, or set REFERENCE to another folder"
fi
mkdir -p "$(dirname "$root")"
say "installing BVLC Caffe 1.0 (Debian 11: $packages) into $root with $tool; about 1 GB, some minutes"
case $tool in
    # MIRROR is left unquoted on purpose: unset, it is no argument and the tool takes Debian's default mirror.
    mmdebstrap) mmdebstrap --variant=apt --include=$packages bullseye "$part" ${MIRROR:-} >"$log" 2>&1 ;;
    debootstrap) debootstrap --variant=minbase --include=$packages bullseye "$part" ${MIRROR:-} >"$log" 2>&1 ;;
esac || {
    tail -n 8 "$log" >&2
    fail "Debian 11 (bullseye) could not be installed; $tool's last lines are above, all of them in $log. If the mirror does not have bullseye (any more), set MIRROR to one that has, such as Debian's archive, and run this again"
}
versions=$(works "$part") || fail "the packages are installed in $part, but 'import caffe' fails there (see above)"
show "$part"
get_tests "$part"
printf '%s\n' "$versions" > "$part/etc/caffe-reference"
mv "$part" "$root"
say "installed in $root ($versions)"
