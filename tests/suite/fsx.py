"""Random operations on one file, as fsx does them: what is read must be what was written, through calls and through memory.

fsx.py FILE SEED STEPS: writes, reads, maps, truncates, punches, zeroes and closes the file, beside a model in memory.
"""
import ctypes, mmap, os, random, sys

path, seed, steps = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
draw = random.Random(seed)
MOST = 3 << 20
libc = ctypes.CDLL(None, use_errno=True)
libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
KEEP, PUNCH, ZERO = 1, 2, 16
model = bytearray()
fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
log = []


def fallocate(mode, at, length):
    if libc.fallocate(fd, mode, at, length) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), "fallocate")


def grow(size):
    if len(model) < size:
        model.extend(bytes(size - len(model)))


def compare(found, at, what):
    wanted = bytes(model[at : at + len(found)])
    if found != wanted:
        first = next(n for n in range(len(found)) if found[n] != wanted[n])
        print("\n".join(log[-30:]))
        sys.exit(f"seed {seed} step {step}: {what} at {at + first:#x}: {found[first]:#x}, not {wanted[first]:#x}")


for step in range(steps):
    what = draw.choice("write write read read mapwrite mapread truncate punch zero zerokeep allocate sync reopen far".split())
    at = draw.randrange(MOST if draw.random() < 0.2 else 300_000)
    length = draw.randrange(1, 100_000 if draw.random() < 0.3 else 5_000)
    log.append(f"{step}: {what} {at:#x} {length:#x}, size {len(model):#x}")
    if what == "write":
        data = draw.randbytes(length)
        grow(at + length)
        model[at : at + length] = data
        os.pwrite(fd, data, at)
    elif what == "read":
        compare(os.pread(fd, length, at), at, "read")
    elif what in ("mapwrite", "mapread"):
        end = min(at + length, len(model))
        if at >= end:
            continue
        with mmap.mmap(fd, len(model)) as memory:
            if what == "mapread":
                compare(memory[at:end], at, "mapread")
            else:
                data = draw.randbytes(end - at)
                memory[at:end] = data
                model[at:end] = data
                if draw.random() < 0.5:
                    memory.flush()
    elif what == "truncate":
        os.ftruncate(fd, at)
        del model[at:]
        grow(at)
    elif what == "far":
        if len(model) < MOST and draw.random() < 0.2:
            data = draw.randbytes(length)
            at = MOST + draw.randrange(MOST)
            os.pwrite(fd, data, at)
            grow(at + length)
            model[at : at + length] = data
    elif what in ("punch", "zero", "zerokeep", "allocate"):
        fallocate({"punch": PUNCH | KEEP, "zero": ZERO, "zerokeep": ZERO | KEEP, "allocate": 0}[what], at, length)
        if what in ("zero", "allocate"):
            grow(at + length)
        if what != "allocate":
            end = min(at + length, len(model))
            if at < end:
                model[at:end] = bytes(end - at)
    elif what == "sync":
        if draw.random() < 0.1:
            os.fsync(fd)
    else:
        os.close(fd)
        fd = os.open(path, os.O_RDWR)
        # Without what the kernel keeps: only clean pages go.
        if draw.random() < 0.3:
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    size = os.fstat(fd).st_size
    if size != len(model):
        print("\n".join(log[-30:]))
        sys.exit(f"seed {seed} step {step}: {size:#x} bytes, not {len(model):#x}")
compare(os.pread(fd, len(model), 0), 0, "the end")
os.close(fd)
with open(path + ".expected", "wb") as out:
    out.write(model)
