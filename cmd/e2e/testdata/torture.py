"""Changes files and commits in a loop, until stdin ends. Says what it does, a line each:

    try STEP HASH     the files at the time of the commit that comes
    ack STEP ID       that commit was acknowledged

Arguments: DIR COUNT, the directory to change and how many commits to make at most, and "same" to change nothing; or
"hash" and directories, whose hashes are printed.
"""
import hashlib
import os
import random
import select
import sys

import replicate

def listing_hash(top):
    """The hash of every name, kind, mode, mtime and content below a directory."""
    digest = hashlib.sha256()
    for folder, folders, files in os.walk(top):
        folders[:] = sorted(name for name in folders if name != ".replicate")
        for name in sorted(files + folders):
            path = os.path.join(folder, name)
            status = os.lstat(path)
            kind = "d" if os.path.isdir(path) else "f"
            digest.update(f"{os.path.relpath(path, top)}\0{kind}{status.st_mode & 0o7777:o} {status.st_mtime_ns}\0".encode())
            if kind == "f":
                with open(path, "rb") as file:
                    digest.update(hashlib.sha256(file.read()).digest())
    return digest.hexdigest()


def write(root, name, size, chance):
    """Half of the times a file is replaced by a rename, as careful programs do; else it is written in place."""
    path = os.path.join(root, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    target = path + ".part" if chance.random() < 0.5 else path
    with open(target, "wb") as file:
        file.write(chance.randbytes(size))
    if target != path:
        os.replace(target, path)


def change(root, step, chance):
    write(root, "model/weights.bin", 1_500_000 + chance.randrange(1_000_000), chance)
    for _ in range(5):
        write(root, f"small/{chance.randrange(40)}.txt", chance.randrange(3000), chance)
    with open(os.path.join(root, "train.log"), "a") as log:
        log.write(f"step {step}\n" * 20)
    victim = os.path.join(root, f"small/{chance.randrange(40)}.txt")
    if os.path.exists(victim):
        os.remove(victim)


def main(root, count, same):
    chance = random.Random(int.from_bytes(os.urandom(8), "big"))
    experiment = replicate.init(pid=os.getpid())
    print("begun", experiment.id, flush=True)
    for step in range(count):
        if select.select([sys.stdin], [], [], 0)[0]:
            break
        if not same:
            change(root, step, chance)
        for point in range(20):
            experiment.log(step=step, loss=1 / (step * 20 + point + 1))
        print("try", step, listing_hash(root), flush=True)
        commit = experiment.commit(step=step, loss=1 / (step + 1))
        if commit.id:
            print("ack", step, commit.id, flush=True)
    print("done", flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "hash":
        for top in sys.argv[2:]:
            print(listing_hash(top))
    else:
        main(sys.argv[1], int(sys.argv[2]), sys.argv[3:] == ["same"])
