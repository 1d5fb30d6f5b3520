#!/usr/bin/env python3
"""A recorder that misbehaves as FAKE_RECORDER says; what it reads goes to the file FAKE_RECORDER_LOG.

The real binary can be killed and stopped, but not be made to say nonsense, to stop reading or to refuse a commit at will.
Each comma-separated word of FAKE_RECORDER is a habit:
    silent      answers nothing
    garbage     answers hello with text that is no protocol
    nonsense    answers the first commit of each process with text that is no protocol
    dies        exits at every commit without an answer
    dies-once   the same, the first time only (it leaves the file FAKE_RECORDER_LOG + ".died")
    full        refuses commits: no space
    deaf        reads nothing after init
    late-again  answers hello only when there is a file FAKE_RECORDER_LOG + ".go", but for the first process
    old         knows only protocol 0
    chatty      says a note and a warning before each answer
"""
import json
import os
import sys
import time

HABITS = os.environ["FAKE_RECORDER"].split(",")
LOG = os.environ["FAKE_RECORDER_LOG"]


def answer(**what):
    if "chatty" in HABITS:
        print(json.dumps({"note": "a note"}))
        print(json.dumps({"warning": "a warning", "hint": "a hint"}))
    print(json.dumps(what), flush=True)


def sleep():
    """Does nothing until the client is gone."""
    client = os.getppid()
    while os.getppid() == client:
        time.sleep(0.05)
    sys.exit()


def main():
    first, client = not os.path.exists(LOG), os.getppid()
    log = open(LOG, "a")
    if "silent" in HABITS:
        sleep()
    for line in sys.stdin:
        log.write(line)
        log.flush()
        request = json.loads(line)
        number, op = request.get("id"), request["op"]
        if op == "hello":
            if "late-again" in HABITS and not first:
                while not os.path.exists(LOG + ".go") and os.getppid() == client:
                    time.sleep(0.01)
            if "garbage" in HABITS:
                print("usage: replicate [--dna]", flush=True)
            elif "old" in HABITS:
                answer(id=number, error={"kind": "usage", "message": "client speaks protocol 1, this is 0", "hint": "update"})
            else:
                answer(id=number, ok=True, protocol=1, version="fake")
        elif op == "init":
            answer(id=number, ok=True, experiment=request["resume"] or "f" * 32, created="2026-11-24T10:00:00.123456789Z",
                   root="/", storage="/", files=2, bytes=1234567, left_out=[
                       {"path": "data/", "bytes": 3_100_000_000, "why": ".gitignore:3"}, {"path": ".env", "bytes": 9, "why": "secret"}])
            if "deaf" in HABITS:
                sleep()
        elif op == "commit":
            if "full" in HABITS:
                answer(id=number, error={"kind": "full", "message": "commit: no space left on device", "hint": "make room"})
                continue
            if "nonsense" in HABITS:
                print("Segmentation fault (core dumped)", flush=True)
                continue
            if "dies" in HABITS or "dies-once" in HABITS and not os.path.exists(LOG + ".died"):
                open(LOG + ".died", "w").close()
                os._exit(1)
            step = request["step"]
            answer(id=number, ok=True, commit="c" * 32, step=0 if step is None else step, files=2, changed=1, bytes=3, ms=1)
        elif number is not None:
            answer(id=number, ok=True, left=0)


main()
