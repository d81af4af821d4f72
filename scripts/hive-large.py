#!/usr/bin/env python3
"""Writes a hive of about so many megabytes, by the rules of docs/hive-rules.md and with nothing of the program: for scripts/bench-hive.sh.

hive-large.py FILE MEGABYTES [MINOR]    keys of 300 siblings below groups, five values each, now and then one of 40,000 bytes
"""
import struct, sys

NONE = 0xffffffff


class Hive:
    def __init__(self, minor):
        self.minor, self.bins, self.start, self.left = minor, bytearray(), 0, 0

    def cell(self, content):
        size = (len(content) + 4 + 7) // 8 * 8
        if size > self.left:
            self.close()
            pages = max(1 << 20, (size + 32 + 4095) // 4096 * 4096)
            self.start = len(self.bins)
            self.bins += b'hbin' + struct.pack('<II', self.start, pages) + bytes(20)
            self.left = pages - 32
        at = len(self.bins)
        self.bins += struct.pack('<i', -size) + content + bytes(size - 4 - len(content))
        self.left -= size
        return at

    def close(self):
        if self.left:
            self.bins += struct.pack('<i', self.left) + bytes(self.left - 4)
            self.left = 0

    def put(self, at, place, value):
        struct.pack_into('<I', self.bins, at + 4 + place, value)

    def key(self, name, parent, security, flags=0x20):
        name = name.encode()
        return self.cell(b'nk' + struct.pack('<HQIIIIIIIIIIIIIIIHH', flags, 0x01d9000000000000, 0, parent, 0, 0, NONE, NONE, 0, NONE,
                                             security, NONE, 0, 0, 0, 0, 0, len(name), 0) + name)

    def value(self, name, kind, data):
        name = name.encode()
        if len(data) <= 4:
            size, at = len(data) | 0x80000000, struct.unpack('<I', data.ljust(4, b'\0'))[0]
        elif len(data) > 16344 and self.minor > 3:
            parts = [self.cell(data[i:i + 16344].ljust(16348, b'\0')) for i in range(0, len(data), 16344)]
            part_list = self.cell(struct.pack('<%dI' % len(parts), *parts))
            size, at = len(data), self.cell(b'db' + struct.pack('<HI', len(parts), part_list))
        else:
            size, at = len(data), self.cell(data)
        return self.cell(b'vk' + struct.pack('<HIIIHH', len(name), size, at, kind, 1 if name else 0, 0) + name)

    def children(self, key, named):
        """Names in order, below 1012 of them."""
        entries = b''
        for name, child in named:
            said = 0
            if self.minor >= 5:
                for c in name.upper().encode():
                    said = (said * 37 + c) & NONE
            else:
                said = struct.unpack('<I', name.encode()[:4].ljust(4, b'\0'))[0]
            entries += struct.pack('<II', child, said)
        kind = b'lh' if self.minor >= 5 else b'lf'
        self.put(key, 28, self.cell(kind + struct.pack('<H', len(named)) + entries))
        self.put(key, 20, len(named))
        self.put(key, 52, 2 * max(len(name) for name, _ in named))


def sid(*parts):
    return bytes([1, len(parts), 0, 0, 0, 0, 0, 5]) + struct.pack('<%dI' % len(parts), *parts)


def descriptor():
    entries = b''
    for mask, who in [(0xf003f, sid(32, 544)), (0xf003f, sid(18)), (0x20019, sid(32, 545))]:
        entries += struct.pack('<BBHI', 0, 2, 8 + len(who), mask) + who
    acl = struct.pack('<BBHHH', 2, 0, 8 + len(entries), 3, 0) + entries
    owner = 20 + len(acl)
    return struct.pack('<BBHIIII', 1, 0, 0x8004, owner, owner + 16, 0, 20) + acl + sid(32, 544) + sid(32, 544)


def main(file, megabytes, minor=5):
    hive = Hive(minor)
    root = hive.key('ROOT', 0, 0, 0x2c)
    sd = descriptor()
    security = hive.cell(b'sk\0\0' + struct.pack('<IIII', 0, 0, 0, len(sd)) + sd)
    for place in (4, 8):
        hive.put(security, place, security)
    hive.put(root, 44, security)
    groups, users, number = [], 1, 0
    while len(hive.bins) < megabytes << 20 and len(groups) < 1000:
        name = 'group%04d' % len(groups)
        group = hive.key(name, root, security)
        groups.append((name, group))
        keys = []
        for i in range(300):
            key = hive.key('key%05d' % i, group, security)
            keys.append(('key%05d' % i, key))
            values, longest = [], 0
            for v in range(5):
                number += 1
                data = struct.pack('<I', number) * (1 if v == 0 else 10 + number % 140)
                if v == 4 and number % 1000 == 0:
                    data *= 40000 // len(data)
                longest = max(longest, len(data))
                values.append(hive.value('value%d' % v, 4 if v == 0 else 3, data))
            hive.put(key, 40, hive.cell(struct.pack('<5I', *values)))
            for place, value in ((36, 5), (60, 12), (64, longest)):
                hive.put(key, place, value)
        hive.children(group, keys)
        users += 1 + len(keys)
    hive.children(root, groups)
    hive.put(security, 12, users)
    hive.close()
    base = bytearray(4096)
    struct.pack_into('<4sIIQIIIIIII', base, 0, b'regf', 1, 1, 0x01d9000000000000, 1, minor, 0, 1, root, len(hive.bins), 1)
    x = 0
    for i in range(127):
        x ^= struct.unpack_from('<I', base, i * 4)[0]
    struct.pack_into('<I', base, 508, x)
    with open(file, 'wb') as f:
        f.write(base)
        f.write(hive.bins)


main(sys.argv[1], int(sys.argv[2]), *map(int, sys.argv[3:]))
