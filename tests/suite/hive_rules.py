#!/usr/bin/env python3
"""Judges a registry hive by the rules of docs/hive-rules.md, from its raw bytes. Shares nothing with the program.

hive_rules.py HIVE...     prints one line a broken rule (rule, offset, words); exit 1 when there is one
hive_rules.py --dump HIVE prints every key and value, one a line, as JSON with the raw units of names
hive_rules.py --dump --all HIVE prints both, keys and values first
hive_rules.py --facts HIVE prints what docs/hive-rules.md is read off: sizes, kinds and counts

Rules that Windows keeps without anybody who enforces them are notes: they begin with "note-".
"""
import hashlib, json, struct, sys

NONE = 0xffffffff
SEGMENT = 16344
UPPER = None  # filled from the ranges below: (first, last, step, delta)
RANGES = [
    (97, 122, 1, -32), (224, 246, 1, -32), (248, 254, 1, -32), (255, 255, 1, 121), (257, 303, 2, -1),
    (307, 311, 2, -1), (314, 328, 2, -1), (331, 375, 2, -1), (378, 382, 2, -1), (384, 384, 1, 195),
    (387, 389, 2, -1), (392, 392, 1, -1), (396, 396, 1, -1), (402, 402, 1, -1), (405, 405, 1, 97),
    (409, 409, 1, -1), (410, 410, 1, 163), (414, 414, 1, 130), (417, 421, 2, -1), (424, 424, 1, -1),
    (429, 429, 1, -1), (432, 432, 1, -1), (436, 438, 2, -1), (441, 441, 1, -1), (445, 445, 1, -1),
    (447, 447, 1, 56), (454, 454, 1, -2), (457, 457, 1, -2), (460, 460, 1, -2), (462, 476, 2, -1),
    (477, 477, 1, -79), (479, 495, 2, -1), (499, 499, 1, -2), (501, 501, 1, -1), (505, 543, 2, -1),
    (547, 563, 2, -1), (572, 572, 1, -1), (578, 578, 1, -1), (583, 591, 2, -1), (592, 592, 1, 10783),
    (593, 593, 1, 10780), (595, 595, 1, -210), (596, 596, 1, -206), (598, 599, 1, -205), (601, 601, 1, -202),
    (603, 603, 1, -203), (608, 608, 1, -205), (611, 611, 1, -207), (616, 616, 1, -209), (617, 617, 1, -211),
    (619, 619, 1, 10743), (623, 623, 1, -211), (625, 625, 1, 10749), (626, 626, 1, -213), (629, 629, 1, -214),
    (637, 637, 1, 10727), (640, 640, 1, -218), (643, 643, 1, -218), (648, 648, 1, -218), (649, 649, 1, -69),
    (650, 651, 1, -217), (652, 652, 1, -71), (658, 658, 1, -219), (881, 883, 2, -1), (887, 887, 1, -1),
    (891, 893, 1, 130), (940, 940, 1, -38), (941, 943, 1, -37), (945, 961, 1, -32), (963, 971, 1, -32),
    (972, 972, 1, -64), (973, 974, 1, -63), (983, 983, 1, -8), (985, 1007, 2, -1), (1010, 1010, 1, 7),
    (1016, 1016, 1, -1), (1019, 1019, 1, -1), (1072, 1103, 1, -32), (1104, 1119, 1, -80), (1121, 1153, 2, -1),
    (1163, 1215, 2, -1), (1218, 1230, 2, -1), (1231, 1231, 1, -15), (1233, 1315, 2, -1), (1377, 1414, 1, -48),
    (7545, 7545, 1, 35332), (7549, 7549, 1, 3814), (7681, 7829, 2, -1), (7841, 7935, 2, -1), (7936, 7943, 1, 8),
    (7952, 7957, 1, 8), (7968, 7975, 1, 8), (7984, 7991, 1, 8), (8000, 8005, 1, 8), (8017, 8023, 2, 8),
    (8032, 8039, 1, 8), (8048, 8049, 1, 74), (8050, 8053, 1, 86), (8054, 8055, 1, 100), (8056, 8057, 1, 128),
    (8058, 8059, 1, 112), (8060, 8061, 1, 126), (8064, 8071, 1, 8), (8080, 8087, 1, 8), (8096, 8103, 1, 8),
    (8112, 8113, 1, 8), (8115, 8115, 1, 9), (8131, 8131, 1, 9), (8144, 8145, 1, 8), (8160, 8161, 1, 8),
    (8165, 8165, 1, 7), (8179, 8179, 1, 9), (8526, 8526, 1, -28), (8560, 8575, 1, -16), (8580, 8580, 1, -1),
    (9424, 9449, 1, -26), (11312, 11358, 1, -48), (11361, 11361, 1, -1), (11365, 11365, 1, -10795),
    (11366, 11366, 1, -10792), (11368, 11372, 2, -1), (11379, 11379, 1, -1), (11382, 11382, 1, -1),
    (11393, 11491, 2, -1), (11520, 11557, 1, -7264), (42561, 42591, 2, -1), (42595, 42605, 2, -1),
    (42625, 42647, 2, -1), (42787, 42799, 2, -1), (42803, 42863, 2, -1), (42874, 42876, 2, -1),
    (42879, 42887, 2, -1), (42892, 42892, 1, -1), (65345, 65370, 1, -32),
]


def upper(unit):
    global UPPER
    if UPPER is None:
        UPPER = list(range(65536))
        for first, last, step, delta in RANGES:
            for c in range(first, last + 1, step):
                UPPER[c] = c + delta
    return UPPER[unit]


class Hive:
    def __init__(self, data):
        self.d, self.bad, self.facts = data, [], {}
        self.minor = self.u32(24) if len(data) >= 4096 else 0
        self.bins = self.u32(40)
        self.used = {}

    def u16(self, at):
        return struct.unpack_from('<H', self.d, at)[0]

    def u32(self, at):
        return struct.unpack_from('<I', self.d, at)[0]

    def rule(self, name, at, words=''):
        self.bad.append((name, at, words))

    def fact(self, name):
        self.facts[name] = self.facts.get(name, 0) + 1

    # --- base block, bins, cells
    def base(self):
        d = self.d
        if d[:4] != b'regf':
            self.rule('base-signature', 0)
            return False
        x = 0
        for i in range(127):
            x ^= self.u32(i * 4)
        x = {0: 1, NONE: NONE - 1}.get(x, x)
        if x != self.u32(508):
            self.rule('base-checksum', 508)
        if self.u32(4) != self.u32(8):
            self.rule('base-sequence', 4)
        if self.u32(20) > 1 or not 3 <= self.minor <= 6:
            self.rule('base-version', 20)
        if self.u32(28) != 0 or self.u32(32) != 1:
            self.rule('base-type', 28)
        if self.bins % 4096 or self.bins == 0 or 4096 + self.bins > len(d):
            self.rule('base-length', 40)
            return False
        return True

    def walk_bins(self):
        self.cells, self.free, at = {}, {}, 0
        while at < self.bins:
            p = 4096 + at
            size = self.u32(p + 8)
            if self.d[p:p + 4] != b'hbin' or self.u32(p + 4) != at or size == 0 or size % 4096 or size > self.bins - at:
                self.rule('bin', p)
                return False
            c, before_free = at + 32, False
            while c < at + size:
                n = struct.unpack_from('<i', self.d, 4096 + c)[0]
                if abs(n) < 8 or abs(n) % 8 or abs(n) > at + size - c:
                    self.rule('cell-size', 4096 + c)
                    return False
                if n < 0:
                    self.cells[c] = -n
                else:
                    self.free[c] = n
                    if before_free:
                        self.rule('note-free-neighbours', 4096 + c)
                before_free = n > 0
                c += abs(n)
            self.fact('bin of %d' % size if size <= 65536 else 'bin above 64 KiB')
            at += size
        return True

    def use(self, cell, what, owner):
        if cell in self.used:
            if not (what == self.used[cell] == 'sk'):
                self.rule('cell-twice', 4096 + cell, '%s and %s' % (self.used[cell], what))
                return False
        self.used[cell] = what
        return True

    def cell(self, at, least, what, owner):
        """Content place and room of an allocated cell."""
        if at == NONE or at not in self.cells:
            self.rule(what + '-cell', 4096 + owner, 'cell %#x' % at)
            return None
        if self.cells[at] > 1 << 20:
            self.rule('cell-large', 4096 + at, what)
        if self.cells[at] - 4 < least:
            self.rule(what + '-short', 4096 + at, '%d of %d' % (self.cells[at] - 4, least))
            return None
        return 4096 + at + 4

    # --- names
    def units(self, at, length, compressed):
        b = self.d[at:at + length]
        return tuple(b) if compressed else struct.unpack('<%dH' % (length // 2), b[:length // 2 * 2])

    def name_of(self, nk):
        p = 4100 + nk
        return self.units(p + 76, self.u16(p + 72), self.u16(p + 2) & 0x20)

    # --- keys
    def check(self):
        if not self.base() or not self.walk_bins():
            return self.bad
        root = self.u32(36)
        self.sk_users, pending, seen, self.lines = {}, [(root, None, ())], set(), []
        if root not in self.cells:
            self.rule('root', 36)
            return self.bad
        while pending:
            nk, parent, path = pending.pop()
            if nk in seen:
                self.rule('key-twice', 4096 + nk)
                continue
            seen.add(nk)
            for child in self.key(nk, parent, path):
                pending.append(child)
        self.security()
        lost = [c for c in self.cells if c not in self.used]
        if lost:
            self.rule('note-unreached', 4096 + lost[0], '%d cells of %d bytes' % (len(lost), sum(self.cells[c] for c in lost)))
        return self.bad

    def key(self, nk, parent, path):
        p = self.cell(nk, 76, 'key', nk)
        if p is None or not self.use(nk, 'nk', nk):
            return []
        d, at = self.d, 4096 + nk
        if d[p:p + 2] != b'nk':
            self.rule('key-signature', at)
            return []
        flags, length = self.u16(p + 2), self.u16(p + 72)
        if self.cells[nk] - 4 < 76 + length:
            self.rule('key-name-short', at)
            return []
        if length == 0 or (not flags & 0x20 and length % 2) or (flags & 0x20 and length > 512 or length > 1024):
            self.rule('key-name', at, str(length))
        name = self.name_of(nk)
        if 92 in name or name[0] == 0:
            self.rule('key-name', at, 'no name of a key')
        if flags & 0x20 == 0 and all(u < 256 for u in name):
            self.rule('note-name-not-compressed', at)
        if parent is None:
            if flags & 0xc != 0xc:
                self.rule('note-root-flags', at, hex(flags))
        else:
            if self.u32(p + 16) != parent:
                self.rule('key-parent', at)
            if flags & 0xe:
                self.rule('key-flags', at, hex(flags))
        if flags & 0x40 or parent is None and flags & 0x12:
            self.rule('key-flags', at, hex(flags))
        layer = self.u16(p + 12) >> 8 & 3
        above = self.u16(4100 + parent + 12) >> 8 & 3 if parent is not None else 0
        if above == 3 and self.minor >= 6 and layer not in (1, 3):
            self.rule('key-layer', at, str(layer))
        if layer and (self.minor < 6 or parent is None and layer != 2
                      or layer == 1 and (self.u32(p + 20) or self.u32(p + 36))):
            self.rule('key-layer', at, str(layer))
        if self.u32(p + 24) != 0:
            self.rule('note-volatile-count', at)
        path = path + (name,)
        self.sk_users.setdefault(self.u32(p + 44), []).append(nk)
        if self.u32(p + 48) != NONE or self.u16(p + 74):
            n = self.u16(p + 74)
            if n:
                if self.cell(self.u32(p + 48), n, 'class', nk) is not None:
                    self.use(self.u32(p + 48), 'class', nk)
            elif self.u32(p + 48) != NONE:
                self.rule('class-of-nothing', at)
        self.lines.append(('key', path, self.u32(p + 4) | self.u32(p + 8) << 32))
        longest_name, longest_data = self.values(nk, p, path)
        if longest_name > self.u32(p + 60) or longest_data > self.u32(p + 64):
            self.rule('largest-value', at, '%d>%d %d>%d' % (longest_name, self.u32(p + 60), longest_data, self.u32(p + 64)))
        return self.children(nk, p, path)

    def children(self, nk, p, path):
        count, at = self.u32(p + 20), self.u32(p + 28)
        if count == 0:
            if at != NONE:
                self.rule('note-list-of-nothing', 4096 + nk)
            return []
        found = []
        if not self.leaf(at, nk, found, True):
            return []
        if len(found) != count:
            self.rule('subkey-count', 4096 + nk, '%d listed, %d said' % (len(found), count))
        out, last, longest = [], None, 0
        for child, hint, kind, place in found:
            cp = self.cell(child, 76, 'key', nk)
            if cp is None:
                continue
            if self.d[cp:cp + 2] != b'nk' or self.cells[child] - 4 < 76 + self.u16(cp + 72):
                self.rule('key-signature', 4096 + child)
                continue
            name = self.name_of(child)
            up = [upper(u) for u in name]
            longest = max(longest, 2 * len(name))
            if last is not None and last >= up:
                self.rule('subkey-order', 4096 + nk, repr(''.join(map(chr, name))))
            last = up
            if kind == 'lh':
                h = 0
                for u in up:
                    h = (h * 37 + u) & NONE
                if h != hint:
                    self.rule('hash', place, repr(''.join(map(chr, name))))
            elif kind == 'lf':
                want = list(name[:4]) + [0] * (4 - len(name[:4]))
                want = 0 if any(u > 255 for u in want) else want[0] | want[1] << 8 | want[2] << 16 | want[3] << 24
                if want != hint:
                    self.rule('hint', place, '%08x for %r' % (hint, ''.join(map(chr, name))))
            out.append((child, nk, path))
        if longest > (self.u32(p + 52) & 0xffff):
            self.rule('largest-subkey', 4096 + nk)
        return out

    def leaf(self, at, owner, found, top):
        p = self.cell(at, 4, 'list', owner)
        if p is None:
            return False
        if not self.use(at, 'list', owner):
            return False
        kind, n = self.d[p:p + 2], self.u16(p + 2)
        self.fact('%s in 1.%d' % (kind.decode('latin1'), self.minor))
        width = 8 if kind in (b'lf', b'lh') else 4
        if kind not in (b'lf', b'lh', b'li') and not (kind == b'ri' and top):
            self.rule('list-kind', 4096 + at, repr(kind))
            return False
        if self.cells[at] - 4 < 4 + n * width:
            self.rule('list-short', 4096 + at)
            return False
        if kind == b'lh' and self.minor < 5:
            self.rule('note-list-version', 4096 + at, 'lh in 1.%d' % self.minor)
        if n == 0:
            self.rule('list-empty', 4096 + at)
        if kind == b'ri':
            return all([self.leaf(self.u32(p + 4 + i * 4), owner, found, False) for i in range(n)])
        self.facts['most in a leaf'] = max(self.facts.get('most in a leaf', 0), n)
        for i in range(n):
            e = p + 4 + i * width
            found.append((self.u32(e), self.u32(e + 4) if width == 8 else 0, kind.decode(), e))
        return True

    # --- values
    def values(self, nk, p, path):
        count, at = self.u32(p + 36), self.u32(p + 40)
        if count == 0:
            if at != NONE:
                self.rule('value-list-of-nothing', 4096 + nk)
            return 0, 0
        lp = self.cell(at, count * 4, 'value-list', nk)
        if lp is None or not self.use(at, 'value list', nk):
            return 0, 0
        longest, largest, names = 0, 0, {}
        for i in range(count):
            vk = self.u32(lp + i * 4)
            v = self.cell(vk, 20, 'value', nk)
            if v is None or not self.use(vk, 'vk', nk):
                continue
            n, size, flags = self.u16(v + 2), self.u32(v + 4), self.u16(v + 16)
            if self.d[v:v + 2] != b'vk' or self.cells[vk] - 4 < 20 + n:
                self.rule('value-signature' if self.d[v:v + 2] != b'vk' else 'value-name-short', 4096 + vk)
                continue
            if not flags & 1 and n % 2:
                self.rule('value-name', 4096 + vk, 'half a character')
            if flags & 2 and (size != 0 or self.u32(v + 8) != NONE or self.u32(v + 12) != 0):
                self.rule('value-layer', 4096 + vk, 'deleted and has something')
            if flags & 2 and self.minor < 6:
                self.rule('value-layer', 4096 + vk)
            name = self.units(v + 20, n, flags & 1)
            if n == 0 and flags & 1:
                self.rule('note-flag-of-no-name', 4096 + vk)
            if n and not flags & 1 and all(u < 256 for u in name):
                self.rule('note-name-not-compressed', 4096 + vk)
            if self.u16(p + 2) & 0x10 and (''.join(map(chr, name)) != 'SymbolicLinkValue' or self.u32(v + 12) != 6):
                self.rule('link-value', 4096 + vk)
            longest = max(longest, 2 * len(name))
            up = tuple(upper(u) for u in name)
            if up in names:
                self.rule('note-value-twice', 4096 + vk, repr(''.join(map(chr, name))))
            names[up] = 1
            data = self.data(vk, v, size)
            largest = max(largest, size & 0x7fffffff)
            digest = None if data is None else data.hex() if len(data) <= 64 else hashlib.sha256(data).hexdigest() + ':%d' % len(data)
            self.lines.append(('value', path, name, self.u32(v + 12), digest))
        return longest, largest

    def data(self, vk, v, size):
        at = 4096 + vk
        if size & 0x80000000:
            n = size & 0x7fffffff
            if n > 4:
                self.rule('data-inside', at, str(n))
                return None
            if n == 0:
                self.fact('empty data with the bit')
            return self.d[v + 8:v + 8 + n]
        if size == 0:
            if self.u32(v + 8) != NONE:
                self.rule('data-of-nothing', at)
            self.fact('empty data without the bit' + (', no cell' if self.u32(v + 8) == NONE else ', with a cell' if self.u32(v + 8) in self.cells else ''))
            return b''
        if size <= 4:
            self.fact('small data in a cell')
        c = self.u32(v + 8)
        if size <= SEGMENT or self.minor < 4:
            p = self.cell(c, size, 'data', vk)
            if p is None or not self.use(c, 'data', vk):
                return None
            if size > SEGMENT:
                self.fact('large data in one cell, 1.%d' % self.minor)
            return self.d[p:p + size]
        p = self.cell(c, 8, 'data', vk)
        if p is None or not self.use(c, 'db', vk):
            return None
        if self.d[p:p + 2] != b'db':
            self.rule('big-signature', 4096 + c, 'at %d bytes in 1.%d' % (size, self.minor))
            return None
        n, want = self.u16(p + 2), -(-size // SEGMENT)
        if n != want:
            self.rule('big-count', 4096 + c, '%d segments for %d bytes' % (n, size))
        self.fact('db cell of %d' % self.cells[c])
        lp = self.cell(self.u32(p + 4), n * 4, 'big-list', vk)
        if lp is None or not self.use(self.u32(p + 4), 'segment list', vk):
            return None
        out = b''
        for i in range(n):
            s = self.u32(lp + i * 4)
            left = size - len(out)
            sp = self.cell(s, min(left, SEGMENT), 'segment', vk)
            if sp is None or not self.use(s, 'segment', vk):
                return None
            self.fact('%s segment in a cell of %d' % ('last' if i == n - 1 else 'inner', self.cells[s]))
            if self.cells[s] < 16352:
                self.rule('segment-size', 4096 + s, 'cell of %d' % self.cells[s])
            out += self.d[sp:sp + min(left, SEGMENT)]
        return out

    # --- security
    def security(self):
        rootsk = self.u32(4100 + self.u32(36) + 44)
        ring, at, last = [], rootsk, None
        while True:
            p = self.cell(at, 20, 'security', self.u32(36))
            if p is None:
                return
            if self.d[p:p + 2] != b'sk':
                self.rule('security-signature', 4096 + at)
                return
            if last is not None and self.u32(p + 8) != last:
                self.rule('security-ring', 4096 + at)
                return
            self.use(at, 'sk', at)
            ring.append(at)
            n = self.u32(p + 16)
            if self.cells[at] - 4 < 20 + n:
                self.rule('security-short', 4096 + at)
            else:
                self.descriptor(at, p + 20, n)
            users = len(self.sk_users.get(at, []))
            if users != self.u32(p + 12):
                self.rule('note-security-count', 4096 + at, '%d said, %d users' % (self.u32(p + 12), users))
            last, at = at, self.u32(p + 4)
            if at == rootsk:
                break
            if at in ring:
                self.rule('security-ring', 4096 + at)
                return
        if self.u32(4100 + rootsk + 8) != last:
            self.rule('security-ring', 4096 + rootsk)
        for at in self.sk_users:
            if at not in ring:
                self.rule('security-user', 4096 + self.sk_users[at][0], 'cell %#x' % at)
        seen = {}
        for at in ring:
            n = self.u32(4100 + at + 16)
            sd = bytes(self.d[4120 + at:4120 + at + n])
            if sd in seen:
                self.rule('note-security-equal', 4096 + at)
            seen[sd] = at

    def descriptor(self, at, p, n):
        d = self.d[p:p + n]
        if n < 20 or d[0] != 1 or not d[3] & 0x80:
            return self.rule('security-descriptor', 4096 + at)
        for i, off in enumerate(struct.unpack_from('<4I', d, 4)):
            if off == 0:
                if i == 0:
                    self.rule('security-owner', 4096 + at)
                continue
            if off + 8 > n:
                return self.rule('security-descriptor', 4096 + at)
            if i < 2:
                if d[off] != 1 or d[off + 1] > 15 or off + 8 + 4 * d[off + 1] > n:
                    self.rule('security-sid', 4096 + at)
            else:
                size, count = struct.unpack_from('<HH', d, off + 2)
                q = off + 8
                if off + size > n:
                    return self.rule('security-acl', 4096 + at)
                for _ in range(count):
                    if q + 4 > off + size or q + struct.unpack_from('<H', d, q + 2)[0] > off + size:
                        return self.rule('security-ace', 4096 + at)
                    q += struct.unpack_from('<H', d, q + 2)[0]


def main(words):
    dump, facts = '--dump' in words, '--facts' in words
    worst = 0
    for path in (w for w in words if not w.startswith('--')):
        with open(path, 'rb') as f:
            hive = Hive(f.read())
        try:
            bad = hive.check()
        except (struct.error, IndexError) as e:
            bad = hive.bad + [('out-of-file', 0, str(e))]
        if dump:
            for line in hive.lines:
                print(json.dumps(line))
            if '--all' not in words:
                continue
        if facts:
            print(path, json.dumps(hive.facts, sort_keys=True))
        for name, at, text in bad:
            print(name, hex(at), text)
            worst = worst or not name.startswith('note-')
    return int(worst)


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
