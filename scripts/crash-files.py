#!/usr/bin/env python3
"""Power cuts under a command, on real files.

Runs a command of vmrescue on an image under strace and records what it does to files. Then the power goes after each of
these calls: what was not made durable is lost (or kept, or kept for every other sector), contents and *names*: a file or a
folder whose folder was not synced is not there. The survivors are put back into the very file that was changed, so that it is
known by its number as it would be. In each of these states `recover` must succeed, the image must be the old one or the new
one, from the new one the way back must lead to the old one, and every other file must be as it was.

Usage: crash-files.py [OPTION...] VMRESCUE IMAGE COMMAND...     (COMMAND with IMAGE as a bare name: reg set disk.vhdx KEY ...)
  --with FILE      lies beside the image (a parent, a child); may be repeated
  --first WORDS    a command that is run before, not cut (reg set disk.vhdx ...)
  --back COMMAND   the way back from the new image: undo (default) or redo
  --makes NAME     the command leaves the image alone and makes this file: it is whole or not there
  --cuts N         N cuts of all, evenly spread
Prints the number of cuts; exit 1 with the first that was not survived.
"""
import argparse
import errno
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile

CALLS = "openat,write,pwrite64,pwritev,writev,lseek,ftruncate,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,fsync,fdatasync,linkat,link,fallocate,copy_file_range,rmdir"
SECTOR = 512
PAGE = 4096
ATTRIBUTE = "user.vmrescue"


class Content:
    """Bytes by pages; pages of zeros are not kept."""

    def __init__(self, length=0, pages=None):
        self.length = length
        self.pages = pages if pages is not None else {}

    def copy(self):
        return Content(self.length, dict(self.pages))

    def __eq__(self, other):
        return self.length == other.length and self.pages == other.pages

    def page(self, number):
        return self.pages.get(number, bytes(PAGE))

    def put(self, number, data):
        if data.count(0) == PAGE:
            self.pages.pop(number, None)
        else:
            self.pages[number] = data

    def write(self, at, data):
        self.length = max(self.length, at + len(data))
        while data:
            number, within = divmod(at, PAGE)
            part = data[: PAGE - within]
            old = self.page(number)
            self.put(number, old[:within] + bytes(part) + old[within + len(part) :])
            at, data = at + len(part), data[len(part) :]

    def set_length(self, length):
        if length < self.length:
            last, within = divmod(length, PAGE)
            for number in [number for number in self.pages if number > last or (number == last and not within)]:
                del self.pages[number]
            if last in self.pages:
                self.put(last, self.pages[last][:within] + bytes(PAGE - within))
        self.length = length

    @staticmethod
    def read(path):
        found = Content(os.path.getsize(path))
        with open(path, "rb") as file:
            at = 0
            while at < found.length:
                try:
                    at = os.lseek(file.fileno(), at, os.SEEK_DATA)
                except OSError as e:
                    if e.errno == errno.ENXIO:
                        break
                    raise
                end = os.lseek(file.fileno(), at, os.SEEK_HOLE)
                at -= at % PAGE
                while at < end:
                    data = os.pread(file.fileno(), 1 << 20, at)
                    for start in range(0, len(data), PAGE):
                        piece = data[start : start + PAGE]
                        found.put((at + start) // PAGE, piece + bytes(PAGE - len(piece)))
                    at += len(data)
                    if not data:
                        break
        return found

    def lay(self, path, there):
        """Writes the content into the file that holds `there`."""
        with open(path, "r+b" if there else "w+b") as file:
            file.truncate(self.length)
            known = there.pages if there else {}
            for number in set(self.pages) | set(known):
                if self.page(number) != known.get(number, bytes(PAGE)):
                    at = number * PAGE
                    file.seek(at)
                    file.write(self.page(number)[: max(0, self.length - at)])


class File:
    def __init__(self, content=None):
        self.now = content or Content()
        self.durable = self.now.copy()

    def after(self, fate):
        if fate == "lost":
            return self.durable
        if fate == "kept":
            return self.now
        torn = Content(max(self.now.length, self.durable.length))
        for number in set(self.now.pages) | set(self.durable.pages):
            new, old = self.now.page(number), self.durable.page(number)
            sectors = range(0, PAGE, SECTOR)
            torn.put(number, b"".join((new if at // SECTOR % 2 == 0 else old)[at : at + SECTOR] for at in sectors))
        return torn


class Folder:
    def __init__(self):
        self.now = {}
        self.durable = {}


def loaded(path):
    """A folder with all below it, durable as it is."""
    folder = Folder()
    for name in os.listdir(path):
        inside = os.path.join(path, name)
        folder.now[name] = loaded(inside) if os.path.isdir(inside) else File(Content.read(inside))
    folder.durable = dict(folder.now)
    return folder


class Disk:
    """The files below one folder, as they are and as they would survive."""

    def __init__(self, root):
        self.root = root
        self.folder = loaded(root)
        self.place = {}

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

    def survive(self, fate, kept):
        """Makes the folder what is there after the power came back. Files of `kept` (with what they hold) stay the same
        files."""
        names = (lambda folder: folder.now) if fate == "kept" else (lambda folder: folder.durable)
        for name in os.listdir(self.root):
            path = os.path.join(self.root, name)
            if os.path.isdir(path):
                shutil.rmtree(path)
            elif name not in kept:
                os.unlink(path)

        def put(folder, path):
            os.makedirs(path, exist_ok=True)
            for name, node in names(folder).items():
                target = os.path.join(path, name)
                if isinstance(node, Folder):
                    put(node, target)
                else:
                    node.after(fate).lay(target, kept.get(name) if path == self.root else None)

        put(self.folder, self.root)


def text(word):
    """A quoted word of strace -xx."""
    return bytes.fromhex(word.replace("\\x", ""))


def calls(log):
    """Whole lines in order: interrupted ones are put together."""
    begun = {}
    for line in log:
        thread, line = line.rstrip("\n").split(None, 1)
        if line.endswith("<unfinished ...>"):
            begun[thread] = line[: -len("<unfinished ...>")].rstrip()
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
        if node is None and "O_TMPFILE" not in words and "O_CREAT" in words:
            disk.find(parts[:-1]).now[parts[-1]] = File()
            return True
        if "O_TRUNC" in words and isinstance(node, File):
            node.now.set_length(0)
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
            node.durable = node.now.copy()
        return True
    if name == "write":
        at = disk.place.get(number, 0)
        node.now.write(at, strings[0][:result])
        disk.place[number] = at + result
        return True
    if name == "pwrite64":
        node.now.write(numbers[-1], strings[0][:result])
        return True
    if name == "ftruncate":
        node.now.set_length(numbers[-1])
        return True
    raise SystemExit(f"the model does not know {name} on {fd.group(2)}")


def arguments():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--with", dest="others", action="append", default=[])
    parser.add_argument("--first", action="append", default=[])
    parser.add_argument("--back", default="undo")
    parser.add_argument("--makes")
    parser.add_argument("--cuts", type=int, default=0)
    parser.add_argument("program")
    parser.add_argument("image")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    return parser.parse_args()


class Cuts:
    """What must hold after each power cut."""

    def __init__(self, options, live, old):
        self.options, self.live, self.old = options, live, old
        self.program, self.name = os.path.abspath(options.program), os.path.basename(options.image)
        self.new = Content.read(self.path(self.name))
        self.made = Content.read(self.path(options.makes)) if options.makes else None
        self.olds = self.news = self.done = 0
        # What the files hold now, which stay the same files.
        self.others = {os.path.basename(other): Content.read(other) for other in options.others}
        self.there = {self.name: self.new, **self.others}

    def path(self, name):
        return os.path.join(self.live, name)

    def run(self, *words):
        return subprocess.run([self.program, *words], cwd=self.live, capture_output=True, text=True)

    def image(self):
        self.there[self.name] = Content.read(self.path(self.name))
        return self.there[self.name]

    def cut(self, disk, fate, call):
        self.done += 1
        failed = f"cut {self.done} ({fate}) after {call}"
        disk.survive(fate, self.there)
        self.there.update(self.others)
        if fate == "lost":
            try:
                os.removexattr(self.path(self.name), ATTRIBUTE)
            except OSError:
                pass
        done = self.run("recover", self.name)
        if done.returncode != 0:
            raise SystemExit(f"{failed}: recover says {done.stderr}")
        there = self.image()
        if self.made is not None:
            self.cut_new(failed, there)
        elif there == self.old:
            self.olds += 1
        elif there == self.new:
            self.news += 1
            done = self.run(self.options.back, self.name, "--yes")
            if done.returncode != 0 or self.image() != self.old:
                raise SystemExit(f"{failed}: {self.options.back} does not lead back: {done.stderr}")
        else:
            raise SystemExit(f"{failed}: the image is neither the old one nor the new one")
        for name, content in self.others.items():
            if Content.read(self.path(name)) != content:
                raise SystemExit(f"{failed}: {name} was changed")

    def cut_new(self, failed, there):
        """A new file is there whole or not at all, and the image is what it was."""
        if there != self.old:
            raise SystemExit(f"{failed}: the image was changed")
        if not os.path.exists(self.path(self.options.makes)):
            self.olds += 1
            return
        self.news += 1
        if Content.read(self.path(self.options.makes)) != self.made:
            raise SystemExit(f"{failed}: {self.options.makes} has its name and is not whole")
        done = self.run("recover", self.options.makes)
        if done.returncode != 0:
            raise SystemExit(f"{failed}: recover of the new file says {done.stderr}")


def main():
    options = arguments()
    program, name = os.path.abspath(options.program), os.path.basename(options.image)
    work = os.path.realpath(tempfile.mkdtemp())
    try:
        live = os.path.join(work, "live")
        os.mkdir(live)
        for file in [options.image, *options.others]:
            subprocess.run(["cp", "--sparse=always", file, live], check=True)
        first = Content.read(os.path.join(live, name))
        for words in options.first:
            subprocess.run([program, *shlex.split(words)], cwd=live, check=True, stdout=subprocess.DEVNULL)
        old = Content.read(os.path.join(live, name))
        disk = Disk(live)
        log = os.path.join(work, "log")
        subprocess.run(
            ["strace", "-f", "-y", "-xx", "-s", "40000000", "-e", "trace=" + CALLS, "-o", log, program]
            + options.command,
            cwd=live, check=True, stdout=subprocess.DEVNULL,
        )
        # From the new image the way back leads to the old one; when the command itself was an undo, to what it undid.
        cuts = Cuts(options, live, old)
        if cuts.made is None and cuts.new == old:
            raise SystemExit("the command changed nothing")
        if options.back == "redo" and cuts.new != first:
            raise SystemExit("the undo does not lead to the first image")
        with open(log) as lines:
            recorded = list(calls(lines))
        # A first pass over the calls counts them, so that a part of the cuts is spread evenly.
        total = counted(recorded, live, first_state(disk))
        every = max(1, 3 * total // options.cuts) if options.cuts else 1
        number = 0
        for call, words, result in recorded:
            if not replay(disk, call, words, result):
                continue
            for fate in ("lost", "kept", "torn"):
                number += 1
                if number % every == 0:
                    cuts.cut(disk, fate, f"{call} {words[:150]}")
        if disk.find([name]).now != cuts.new or (options.makes and disk.find([options.makes]).now != cuts.made):
            raise SystemExit("the model of the calls missed something: it ends with another image")
        print(f"{cuts.done} power cuts: {cuts.olds} times the old image, {cuts.news} times the new one")
    finally:
        shutil.rmtree(work)


def first_state(disk):
    """A copy of the model ahead of all calls."""

    def copied(folder, known):
        twin = Folder()
        twin.now = {name: known.setdefault(id(node), twin_of(node, known)) for name, node in folder.now.items()}
        twin.durable = dict(twin.now)
        return twin

    def twin_of(node, known):
        return copied(node, known) if isinstance(node, Folder) else File(node.now.copy())

    return copied(disk.folder, {})


def counted(recorded, live, folder):
    model = Disk.__new__(Disk)
    model.root, model.folder, model.place = live, folder, {}
    return sum(replay(model, call, words, result) for call, words, result in recorded)


main()
