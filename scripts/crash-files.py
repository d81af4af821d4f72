#!/usr/bin/env python3
"""Power cuts under a command, on real files.

Runs a command of vmrescue on an image under strace and records what it does to files. Then the power goes after each of
these calls: what was not made durable is lost (or kept, or kept for every other sector), contents and *names*: a file or a folder whose
folder was not synced is not there. In each of these states `recover` must succeed, the image must be the old one or the new
one, and from the new one `undo` must lead to the old one.

Usage: crash-files.py VMRESCUE IMAGE COMMAND...     (COMMAND with IMAGE as a bare name: reg set disk.vhdx KEY ...)
Prints the number of cuts; exit 1 with the first that was not survived.
"""
import os
import re
import shutil
import subprocess
import sys
import tempfile

CALLS = "openat,write,pwrite64,pwritev,lseek,ftruncate,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,fsync,fdatasync,linkat,link,fallocate,copy_file_range,rmdir"
SECTOR = 512


class File:
    def __init__(self, data=b""):
        self.now = bytearray(data)
        self.durable = bytes(data)

    def after(self, fate):
        if fate == "lost":
            return self.durable
        if fate == "kept":
            return bytes(self.now)
        torn = bytearray(max(len(self.now), len(self.durable)))
        for at in range(0, len(torn), SECTOR):
            source = self.now if at // SECTOR % 2 == 0 else self.durable
            part = source[at : at + SECTOR]
            torn[at : at + len(part)] = part
        return bytes(torn)


class Folder:
    def __init__(self):
        self.now = {}
        self.durable = {}


class Disk:
    """The files below one folder, as they are and as they would survive."""

    def __init__(self, root):
        self.root = root
        self.folder = Folder()
        self.place = {}
        for name in os.listdir(root):
            with open(os.path.join(root, name), "rb") as file:
                self.folder.now[name] = File(file.read())
        self.folder.durable = dict(self.folder.now)

    def parts(self, path):
        path = os.path.normpath(os.path.join(self.root, path))
        if path == self.root:
            return []
        if not path.startswith(self.root + "/"):
            return None
        return path[len(self.root) + 1 :].split("/")

    def find(self, parts):
        at = self.folder
        for part in parts:
            if not isinstance(at, Folder) or part not in at.now:
                return None
            at = at.now[part]
        return at

    def write(self, node, at, data):
        if len(node.now) < at:
            node.now.extend(bytes(at - len(node.now)))
        node.now[at : at + len(data)] = data

    def survive(self, fate, to):
        """What is there after the power came back."""
        names = (lambda folder: folder.now) if fate == "kept" else (lambda folder: folder.durable)

        def put(folder, path):
            os.makedirs(path, exist_ok=True)
            for name, node in names(folder).items():
                if isinstance(node, Folder):
                    put(node, os.path.join(path, name))
                else:
                    with open(os.path.join(path, name), "wb") as file:
                        file.write(node.after(fate))

        put(self.folder, to)


def text(word):
    """A quoted word of strace -xx."""
    return bytes.fromhex(word.replace("\\x", ""))


def calls(log):
    """Whole lines in order: interrupted ones are put together."""
    begun = {}
    for line in log:
        thread, line = line.rstrip("\n").split(None, 1)
        if line.endswith("<unfinished ...>"):
            begun[thread] = line[: -len("<unfinished ...>")]
            continue
        resumed = re.match(r"<\.\.\. \w+ resumed>(.*)", line)
        if resumed:
            line = begun.pop(thread, "") + resumed.group(1)
        found = re.match(r"(\w+)\((.*)\)\s+= (-?\d+)(.*)$", line)
        if found and int(found.group(3)) >= 0:
            yield found.group(1), found.group(2), int(found.group(3))


def replay(disk, name, words, result):
    """Does one call on the model; True when it changed something that a power cut could lose."""
    fd = re.match(r"(\d+)<([^>]*)>", words)
    strings = [text(word) for word in re.findall(r'"((?:\\x[0-9a-f]{2})*)"', words)]
    numbers = [int(word) for word in re.findall(r", (\d+)(?=,|$)", words)]

    def node_of(path):
        parts = disk.parts(text(path).decode() if path.startswith("\\x") else path)
        return None if parts is None else disk.find(parts)

    if name == "openat":
        parts = disk.parts(strings[0].decode())
        if parts is None:
            return False
        node = disk.find(parts)
        disk.place[result] = 0
        if node is None and "O_CREAT" in words:
            disk.find(parts[:-1]).now[parts[-1]] = File()
            return True
        if "O_TRUNC" in words and isinstance(node, File):
            node.now = bytearray()
            return True
        return False
    if name in ("mkdir", "mkdirat"):
        parts = disk.parts(strings[0].decode())
        if parts is None:
            return False
        disk.find(parts[:-1]).now[parts[-1]] = Folder()
        return True
    if name in ("rename", "renameat", "renameat2"):
        old, new = (disk.parts(string.decode()) for string in strings[:2])
        if old is None or new is None:
            return False
        disk.find(new[:-1]).now[new[-1]] = disk.find(old[:-1]).now.pop(old[-1])
        return True
    if name in ("unlink", "unlinkat", "rmdir"):
        parts = disk.parts(strings[0].decode())
        if parts is None:
            return False
        disk.find(parts[:-1]).now.pop(parts[-1], None)
        return True
    if fd is None:
        return False
    number, node = int(fd.group(1)), node_of(fd.group(2))
    if node is None:
        return False
    if name == "lseek":
        disk.place[number] = result
        return False
    if name in ("fsync", "fdatasync"):
        if isinstance(node, Folder):
            node.durable = dict(node.now)
        else:
            node.durable = bytes(node.now)
        return True
    if name == "write":
        at = disk.place.get(number, 0)
        disk.write(node, at, strings[0][:result])
        disk.place[number] = at + result
        return True
    if name == "pwrite64":
        disk.write(node, numbers[-1], strings[0][:result])
        return True
    if name == "ftruncate":
        length = numbers[-1]
        del node.now[length:]
        node.now.extend(bytes(length - len(node.now)))
        return True
    raise SystemExit(f"the model does not know {name} on {fd.group(2)}")


def main():
    program, image, command = os.path.abspath(sys.argv[1]), sys.argv[2], sys.argv[3:]
    name = os.path.basename(image)
    work = os.path.realpath(tempfile.mkdtemp())
    try:
        live = os.path.join(work, "live")
        os.mkdir(live)
        shutil.copyfile(image, os.path.join(live, name))
        with open(image, "rb") as file:
            old = file.read()
        disk = Disk(live)
        log = os.path.join(work, "log")
        subprocess.run(
            ["strace", "-f", "-y", "-xx", "-s", "40000000", "-e", "trace=" + CALLS, "-o", log, program] + command,
            cwd=live, check=True, stdout=subprocess.DEVNULL,
        )
        with open(os.path.join(live, name), "rb") as file:
            new = file.read()
        if old == new:
            raise SystemExit("the command changed nothing")
        cuts = olds = news = 0
        with open(log) as lines:
            for call, words, result in calls(lines):
                if not replay(disk, call, words, result):
                    continue
                for fate in ("lost", "kept", "torn"):
                    cuts += 1
                    after = os.path.join(work, "after")
                    disk.survive(fate, after)
                    path = os.path.join(after, name)
                    failed = f"cut {cuts} ({fate}) after {call} {words[:150]}"
                    done = subprocess.run([program, "recover", name], cwd=after, capture_output=True, text=True)
                    if done.returncode != 0:
                        raise SystemExit(f"{failed}: recover says {done.stderr}")
                    with open(path, "rb") as file:
                        there = file.read()
                    if there == old:
                        olds += 1
                    elif there == new:
                        news += 1
                        done = subprocess.run([program, "undo", name, "--yes"], cwd=after, capture_output=True, text=True)
                        with open(path, "rb") as file:
                            if done.returncode != 0 or file.read() != old:
                                raise SystemExit(f"{failed}: undo does not lead back: {done.stderr}")
                    else:
                        raise SystemExit(f"{failed}: the image is neither the old one nor the new one")
                    shutil.rmtree(after)
        with open(os.path.join(live, name), "rb") as file:
            final = file.read()
        model = disk.find([name])
        if bytes(model.now) != final:
            raise SystemExit("the model of the calls missed something: it ends with another image")
        print(f"{cuts} power cuts: {olds} times the old image, {news} times the new one")
    finally:
        shutil.rmtree(work)


main()
