#!/usr/bin/env python3
"""Reads FAT volumes with the vfat driver of a Linux kernel in qemu, and compares every file with a manifest.

Usage: fat-kernel.py ROOT IMAGE...
ROOT holds an unpacked kernel package (boot/vmlinuz-*, lib/modules/*) and bin/busybox (static). Beside each IMAGE lies
IMAGE.manifest: a line for each file, "SHA256  path", and for each directory, "directory  path".
"""
import glob
import os
import subprocess
import sys
import tempfile

MODULES = ["virtio", "virtio_ring", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "virtio_blk",
           "nls_cp437", "nls_iso8859-1", "nls_utf8", "nls_ascii", "fat", "vfat"]

INIT = """#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /m
/bin/busybox mount -t proc none /proc
/bin/busybox mount -t sysfs none /sys
/bin/busybox mount -t devtmpfs none /dev
for m in {modules}; do /bin/busybox insmod /lib/$m.ko 2>/dev/null; done
/bin/busybox sleep 1
for d in {devices}; do
  echo "==== $d"
  /bin/busybox mount -t vfat -o ro,utf8=1,codepage=437,iocharset=iso8859-1 /dev/$d /m || echo "CANNOT MOUNT $d"
  cd /m
  /bin/busybox find . -type f -exec /bin/busybox sha256sum {{}} +
  /bin/busybox find . -type d -exec echo directory {{}} \\;
  cd /
  /bin/busybox umount /m
done
/bin/busybox dmesg | /bin/busybox grep -i fat-fs
echo "==== end"
/bin/busybox poweroff -f
"""


def cpio(files):
    """An archive in the form `newc` of (name, mode, data)."""
    out = bytearray()
    for number, (name, mode, data) in enumerate(files + [("TRAILER!!!", 0, b"")]):
        fields = [number + 1, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0]
        out += b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        out += b"\0" * (-len(out) % 4) + data
        out += b"\0" * (-len(out) % 4)
    return bytes(out)


def main():
    root, images = sys.argv[1], sys.argv[2:]
    kernel = sorted(glob.glob(f"{root}/boot/vmlinuz-*"))[-1]
    found = {os.path.basename(path)[:-3]: path for path in glob.glob(f"{root}/lib/modules/*/kernel/**/*.ko", recursive=True)}
    modules = [name for name in MODULES if name in found]
    devices = [f"vd{chr(ord('a') + number)}" for number in range(len(images))]
    files = [("bin", 0o40755, b""), ("lib", 0o40755, b"")]
    files.append(("bin/busybox", 0o100755, open(f"{root}/bin/busybox", "rb").read()))
    files += [(f"lib/{name}.ko", 0o100644, open(found[name], "rb").read()) for name in modules]
    init = INIT.format(modules=" ".join(modules), devices=" ".join(devices))
    files.append(("init", 0o100755, init.encode()))
    with tempfile.NamedTemporaryFile() as archive:
        archive.write(cpio(files))
        archive.flush()
        command = ["qemu-system-x86_64", "-m", "512", "-nographic", "-no-reboot", "-kernel", kernel, "-initrd", archive.name,
                   "-append", "console=ttyS0 quiet panic=-1"]
        for image in images:
            command += ["-drive", f"file={image},format=raw,if=virtio,readonly=on"]
        said = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=1800).stdout
    text = said.decode("utf-8", "replace").replace("\r", "")
    parts = text.split("==== ")[1:]
    if not parts or not parts[-1].startswith("end"):
        print(text[-3000:])
        sys.exit("the kernel did not come to the end")
    bad = 0
    for image, part in zip(images, parts):
        seen = set()
        for line in part.splitlines()[1:]:
            words = line.split("  ", 1) if not line.startswith("directory ") else line.split(" ", 1)
            if len(words) == 2 and words[1].startswith("./"):
                seen.add((words[0].strip("\\"), words[1][2:]))
        wanted = {tuple(line.rstrip("\n").split("  ", 1)) for line in open(f"{image}.manifest", encoding="utf-8")}
        if seen != wanted:
            bad += 1
            print(f"{image}: {len(wanted - seen)} missing, {len(seen - wanted)} more", sorted(wanted ^ seen)[:6])
        else:
            print(f"{image}: the kernel reads the same {len(wanted)} files and directories")
    for line in text.splitlines():
        if "FAT-fs" in line:
            print(line)
    sys.exit(bad)


if __name__ == "__main__":
    main()
