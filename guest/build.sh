#!/usr/bin/env bash
# Builds the test guest (kernel, initramfs) and the verifier of its disks into OUTDIR.
# Does nothing when its sources, this script and the installed kernel are those of the last time. Safe to run at once
# from several processes.
#
# usage: guest/build.sh OUTDIR
set -euo pipefail

source_dir=$(cd "$(dirname "$0")" && pwd)
[ $# -eq 1 ] || { echo "usage: guest/build.sh OUTDIR" >&2; exit 2; }
mkdir -p "$1"
out=$(cd "$1" && pwd)

modules=(virtio_pci virtio_blk button evdev virtio_console)

fail() { echo "guest/build.sh: $*" >&2; exit 1; }

# The newest of Debian's cloud kernels that has both its image and its modules.
newest_kernel() {
  local release
  for release in $(find /boot -name 'vmlinuz-*-cloud-amd64' -printf '%f\n' | sed 's/^vmlinuz-//' | sort -rV); do
    if [ -d "/lib/modules/$release" ] && [ -r "/boot/vmlinuz-$release" ]; then
      echo "$release"
      return
    fi
  done
  fail "no readable /boot/vmlinuz-*-cloud-amd64 with its modules; install the Debian package linux-image-cloud-amd64"
}

# The files of these modules and of all they need, in the order of loading; nothing for what is built into the kernel.
module_files() {
  local module
  for module in "${modules[@]}"; do
    PATH=$PATH:/usr/sbin:/sbin modprobe --set-version "$release" --show-depends "$module"
  done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }'
}

# Copies one module, unpacked, and adds it to the list that the guest loads.
add_module() {
  local name
  name=$(basename "$1" | sed 's/\.ko.*/.ko/')
  case $1 in
    *.ko) cp "$1" "$root/modules/$name" ;;
    *.ko.xz) xz -dc "$1" >"$root/modules/$name" ;;
    *) fail "$1: neither .ko nor .ko.xz" ;;
  esac
  echo "$name" >>"$root/modules/order"
}

release=$(newest_kernel)
stamp=$(cd "$source_dir" && { sha256sum build.sh pattern.h writer.c verify.c && stat -c '%n %s %Y' "/boot/vmlinuz-$release"; } | sha256sum)
exec 9>"$out/lock"
flock 9
[ -f "$out/stamp" ] && [ "$(cat "$out/stamp")" = "$stamp" ] && exit 0

work=$(mktemp -d "$out/build-XXXXXX")
trap 'rm -rf "$work"' EXIT
root=$work/root
mkdir -p "$root"/{modules,dev,proc}
for file in $(module_files); do add_module "$file"; done
gcc -O2 -Wall -Wextra -static -s -o "$root/init" "$source_dir/writer.c"
gcc -O2 -Wall -Wextra -o "$work/verify" "$source_dir/verify.c"
# Not compressed: the guest unpacks it under emulation.
(cd "$root" && find . | LC_ALL=C sort | cpio -o -H newc -R 0:0 --reproducible --quiet) >"$work/initramfs"
# A copy, because Debian's own may be readable by root alone, and goes away with an upgrade.
cp "/boot/vmlinuz-$release" "$work/kernel"
chmod 644 "$work/kernel" "$work/initramfs"

rm -f "$out/stamp"
mv -f "$work/kernel" "$work/initramfs" "$work/verify" "$out/"
echo "$stamp" >"$out/stamp"
