"""The client's end of `replicate record`: finds and starts the binary, moves lines, starts it again once if it dies.

Promises: `post` never waits for the recorder; `ask` waits for its own answer only; a signal handler or a destructor may
call either in the middle of a call; an exception at any place (Ctrl-C) leaves no half line behind. No lock is held while
foreign code runs, except by a signal handler that interrupts the wait for an answer.
Refuses to know what lines mean, but for hello, init and the number of points that were dropped.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import sys
from _thread import RLock, get_ident  # threading takes longer to import than all of this module
from collections import deque
from itertools import count
from time import monotonic

from .values import encode

PROTOCOL = 1
HELLO_WAIT = 30.0            # seconds; what has not answered by then is another program called replicate. A machine with much to start takes over 5
HELLO_AGAIN = 60.0           # seconds for one that is started again: a machine on which recorders die has much to do
NUDGE_EVERY = 5.0            # seconds without an answer until a stopped recorder is told to go on; harmless if it runs
PIPE_SIZE = 1 << 20          # bytes; the most an ordinary user may ask for
LINE_LIMIT = 16 << 20        # bytes, the protocol's
BACKLOG_LIMIT = 64 << 20     # bytes that the recorder has not taken; beyond, the oldest points are dropped
LINE_OVERHEAD = 200          # bytes that a short line takes in memory beside its text
LINES_AT_ONCE = 64           # lines of a backlog that one post sends: 0.1 ms
F_SETPIPE_SZ = 1031          # fcntl has the name from Python 3.10 on


class Error(Exception):
    """What went wrong, in the words of the binary. `kind` is one of the protocol's, `hint` says what to do or is empty."""

    def __init__(self, message: str, kind: str = "internal", hint: str = ""):
        super().__init__(message)
        self.message, self.kind, self.hint = message, kind, hint

    def __str__(self) -> str:
        return f"{self.message}\nreplicate: hint: {self.hint}" if self.hint else self.message


class NotFound(Error):
    """No experiment, commit or file of that name."""


class Ambiguous(Error):
    """A prefix of several ids. The hint lists them."""


for _class in (Error, NotFound, Ambiguous):
    _class.__module__ = "replicate"


def error(message: str, kind: str, hint: str = "") -> Error:
    """The exception for a kind."""
    return {"not_found": NotFound, "ambiguous": Ambiguous}.get(kind, Error)(message, kind, hint)


def find_binary() -> str:
    """The path of the replicate binary. Raises NotFound if there is none."""
    given = os.environ.get("REPLICATE_BINARY")
    if given:
        return given
    place = os.path.dirname(os.path.abspath(__file__))
    places = [os.path.join(place, "bin")]
    for _ in range(4):  # PREFIX/lib/pythonX.Y/site-packages/replicate, or the source tree
        place = os.path.dirname(place)
        places.append(os.path.join(place, "bin"))
    places += [os.path.dirname(sys.executable or ""), *os.get_exec_path()]
    for place in places:
        path = os.path.join(place, "replicate")
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    raise NotFound("start the recorder: there is no replicate binary", "not_found",
                   "install the wheel that carries it, put it on PATH or set REPLICATE_BINARY")


class _Process:
    """One recorder process and its two pipes, which do not block. The fds are -1 when closed."""

    ended = []  # pids of recorders that were told to end and may be zombies

    def __init__(self, binary: str):
        while self.ended and _reap(self.ended[0]):
            self.ended.pop(0)
        self.pid = 0
        self.chunks = [b""]  # what was read: the part of a line that is not complete
        theirs_in, self.to = _pipe()
        self.source, theirs_out = _pipe()
        try:
            self.pid = os.posix_spawn(
                binary, [binary, "record"], os.environ, setsigmask=[],
                file_actions=[(os.POSIX_SPAWN_DUP2, theirs_in, 0), (os.POSIX_SPAWN_DUP2, theirs_out, 1)])
        except OSError as cause:
            self.close()
            raise error(f"start the recorder {binary}: {os.strerror(cause.errno).lower()}", "unavailable") from None
        finally:
            os.close(theirs_in)
            os.close(theirs_out)
        os.set_blocking(self.to, False)
        os.set_blocking(self.source, False)
        self.gone = select.poll()
        self.gone.register(self.to, 0)

    def wait(self, seconds: float, to_write: bool):
        """Returns when there is something to read, or room to write if asked for, or the time is over."""
        poll = select.poll()
        poll.register(self.source, select.POLLIN)
        if to_write:
            poll.register(self.to, select.POLLOUT)
        poll.poll(int(seconds * 1000) + 1)

    def check(self):
        """Raises OSError if the recorder is gone. Writing would tell too, but kill a script that has asked for SIGPIPE."""
        if self.to < 0 or self.gone.poll(0):
            raise BrokenPipeError

    def write(self, line: bytes, written: list):
        """Writes what the pipe takes of the rest of a line and adds the number of bytes to `written`.

        The number is stored before a signal handler can run, so no exception leaves it unknown.
        """
        written.extend(map(os.write, (self.to,), (line[sum(written):],)))

    def read(self, take) -> bool:
        """Calls take with every line that is there; False if there is none.

        Raises OSError at the end of the stream, ValueError if a line is no JSON object. After an exception lines may be
        taken twice, none is lost.
        """
        try:
            self.chunks.extend(map(os.read, (self.source,), (1 << 16,)))
        except BlockingIOError:
            return False
        if not self.chunks[-1]:
            raise BrokenPipeError
        *lines, rest = b"".join(self.chunks).split(b"\n")
        if len(rest) > LINE_LIMIT:
            raise ValueError("a line without end")
        for line in lines:
            line = json.loads(line)
            if not isinstance(line, dict):
                raise ValueError("a line that is no object")
            take(line)
        self.chunks = [rest]
        return bool(lines)

    def call(self, request: dict, seconds: float, notes) -> dict:
        """Sends a request and waits for its answer, with nobody else around. Lines without id go to notes."""
        line, written = _line(request), []
        until, answers = monotonic() + seconds, []
        while not answers:
            left = until - monotonic()
            if left <= 0:
                raise TimeoutError
            self.check()
            try:
                if sum(written) < len(line):
                    self.write(line, written)
            except BlockingIOError:
                pass
            self.wait(min(left, NUDGE_EVERY), sum(written) < len(line))
            self.read(lambda line: (answers if line.get("id") == request["id"] else notes).append(line))
        return answers[0]

    def nudge(self):
        """Wakes a recorder that somebody has stopped: training must not stand still with it."""
        if _reap(self.pid):
            raise BrokenPipeError
        os.kill(self.pid, signal.SIGCONT)

    def close(self, kill: bool = False):
        """Closes the pipes, which is the end for the recorder."""
        for fd in (self.to, self.source):
            if fd >= 0:
                os.close(fd)
        self.to = self.source = -1
        if self.pid and not _reap(self.pid):
            self.ended.append(self.pid)
            if kill:
                os.kill(self.pid, signal.SIGKILL)


class _Reply:
    """A request and, once it is there, its answer."""

    def __init__(self, line: bytes, then):
        self.line, self.answer, self.then = line, None, then


class Recorder:
    """A recorder that has answered `init`.

    `started` is that answer; `notes` fills with the lines for people; `gone` says that nothing is recorded any more.
    """

    def __init__(self, init: dict):
        self.gone = False
        self.notes = deque()
        self._init = init
        self._ids = count(1)
        self._lock = RLock()      # guards _queue and the writing end; held for a few system calls that do not wait
        self._turn = RLock()      # guards the reading end and _process; held by the call that waits for an answer
        self._inside = set()      # threads that are in post or ask
        self._queue = deque()     # (line, [numbers of bytes written], whether it is a point)
        self._held = 0            # bytes in _queue, with overhead
        self._dropped = 0         # points
        self._replies = {}        # id -> _Reply, in order
        self._deaths = 0
        self._greeted = True      # the process has answered hello
        self._process, self.started = self._start()

    def post(self, request: dict, point: bool = False):
        """Sends a request that has no answer, if the pipe has room; else it goes with a later call."""
        if self.gone:
            return
        self._put(_line(request), point)
        me = get_ident()
        if me in self._inside:
            return
        try:
            self._inside.add(me)
            if self._held > BACKLOG_LIMIT:
                self._drop()
            self._send(LINES_AT_ONCE)
        finally:
            self._inside.discard(me)

    def ask(self, request: dict, then=None, patience: float = float("inf")) -> dict | None:
        """Sends a request and returns its answer; None if the recorder is gone for good or silent for `patience` seconds.

        Inside another call of the same thread (signal handler, destructor) it does not wait and returns None at once: the
        outer call sends the request. `then` is called with the answer whenever it is read.
        """
        if self.gone:
            return None
        number = next(self._ids)
        reply = _Reply(_line({"id": number, **request}), then)
        self._replies[number] = reply
        self._put(reply.line, False)
        me = get_ident()
        if me in self._inside:
            return None
        try:
            self._inside.add(me)
            with self._turn:
                self._until(reply, patience)
        finally:
            self._inside.discard(me)
        return reply.answer

    def last_words(self, request: dict, seconds: float = 1.0):
        """Sends a request from a signal handler that ends the process: the code it has interrupted never goes on."""
        self._put(_line({"id": next(self._ids), **request}), False)
        until = monotonic() + seconds
        try:
            with self._lock:
                while self._queue and monotonic() < until:
                    if not self._flush(len(self._queue)):
                        self._process.wait(0.1, True)
        except OSError:
            pass

    @property
    def busy(self) -> bool:
        """Whether some thread is inside a call."""
        return bool(self._inside)

    def outermost(self):
        """Says that no call of this thread is under way, though an exception may have made it look so."""
        self._inside.discard(get_ident())

    def close(self):
        """Lets the recorder go; it does what is left without us."""
        self.gone = True
        with self._lock:
            self._process.close()

    def forget(self):
        """In a forked child: leaves the recorder to the parent. Takes no lock, as its holder may not exist here."""
        self.gone = True
        for fd in (self._process.to, self._process.source):
            if fd >= 0:
                os.close(fd)

    def _put(self, line: bytes, point: bool):
        with self._lock:
            self._queue.append((line, [], point))
            self._held += len(line) + LINE_OVERHEAD

    def _drop(self):
        """Drops the oldest points, so many that it is not needed again at once."""
        self.notes.append({"warning": "the recorder does not keep up: the oldest points are dropped"})
        with self._lock:
            kept = deque()
            while self._queue and self._held > BACKLOG_LIMIT * 15 // 16:
                line, written, point = item = self._queue.popleft()
                if point and not written:
                    self._held -= len(line) + LINE_OVERHEAD
                    self._dropped += 1
                else:
                    kept.append(item)
            self._queue.extendleft(reversed(kept))

    def _send(self, most: int):
        """Writes up to `most` lines of the queue; starts the recorder again if it is gone."""
        process = self._process
        try:
            with self._lock:
                self._flush(most)
        except OSError:
            if self._turn.acquire(blocking=False):  # else whoever waits for an answer does it
                try:
                    self._restart(process)
                finally:
                    self._turn.release()

    def _flush(self, most: int) -> bool:
        """Writes up to `most` lines; False if the pipe is full. Raises OSError if the recorder is gone. Needs _lock."""
        self._process.check()
        for _ in range(most):
            if not self._queue:
                if not self._dropped:
                    break
                self._put(_line({"op": "dropped", "points": self._dropped}), False)
                self._dropped = 0
            line, written, _ = self._queue[0]
            if sum(written) < len(line):
                try:
                    self._process.write(line, written)
                except BlockingIOError:
                    return False
            if sum(written) == len(line):
                self._queue.popleft()
                self._held -= len(line) + LINE_OVERHEAD
        return True

    def _until(self, reply: _Reply, patience: float):
        """Writes and reads until the answer is there, the recorder is gone for good or silent too long. Needs _turn."""
        silent = monotonic()
        while reply.answer is None and not self.gone and monotonic() - silent < patience:
            process = self._process
            self._send(1 << 20)
            try:
                process.wait(min(NUDGE_EVERY, patience), bool(self._queue))
                if process.read(self._take):
                    silent = monotonic()
                elif not self._greeted and monotonic() - silent > HELLO_AGAIN:
                    raise TimeoutError
                elif monotonic() - silent > NUDGE_EVERY:
                    process.nudge()
            except (OSError, ValueError):
                self._restart(process)

    def _take(self, line: dict):
        """Gives a line to whom it is for."""
        if "id" not in line:
            self.notes.append(line)
        elif "progress" not in line and line["id"] in self._replies:
            reply = self._replies.pop(line["id"])
            reply.answer = line
            if reply.then:
                reply.then(line)

    def _hello(self) -> dict:
        return {"id": next(self._ids), "op": "hello", "protocol": PROTOCOL, "client": f"python {sys.modules[__package__].__version__}",
                "pid": os.getpid()}

    def _start(self):
        """Starts the first recorder, up to the answer to init. Raises Error."""
        binary = find_binary()
        process = _Process(binary)
        try:
            try:
                _greets(ok(process.call(self._hello(), HELLO_WAIT, self.notes)))
            except (OSError, ValueError):
                self.notes.clear()
                raise error(f"start the recorder {binary}: it does not answer as replicate does", "unavailable",
                            "another program of that name? set REPLICATE_BINARY to the right one") from None
            try:
                return process, ok(process.call({"id": next(self._ids), "op": "init", **self._init}, 1e9, self.notes))
            except (OSError, ValueError):
                raise error(f"start the recorder {binary}: it went away at the start", "internal") from None
        except BaseException:
            process.close(kill=True)
            raise

    def _restart(self, dead: _Process):
        """Starts a recorder in place of a dead one, once, and waits for nothing. Needs _turn."""
        if self._process is not dead or self.gone:
            return  # another thread was faster
        with self._lock:
            dead.close(kill=True)
        self._deaths += 1
        if self._deaths > 1:
            return self._give_up("the recorder died again: nothing more is recorded")
        try:
            self._continue(_Process(find_binary()))
        except Error as cause:
            self._give_up(f"the recorder died: nothing more is recorded: {cause.message}")

    def _continue(self, process: _Process):
        """Goes on with a new recorder: hello and init stand before all that was not answered and not sent."""
        hello = self._hello()
        init = {"id": next(self._ids), "op": "init", **self._init, "resume": self.started["experiment"]}
        greetings = {hello["id"]: _Reply(_line(hello), self._greeting), init["id"]: _Reply(_line(init), self._resumed)}
        with self._lock:
            asked = [reply.line for reply in self._replies.values()]
            unsent = [(line, point) for line, _, point in self._queue if line not in asked]
            self._replies.update(greetings)  # in place: another thread may be about to add one
            self._queue.clear()
            self._queue.extend((line, [], False) for line in [reply.line for reply in greetings.values()] + asked)
            self._queue.extend((line, [], point) for line, point in unsent)
            self._held = sum(len(line) + LINE_OVERHEAD for line, _, _ in self._queue)
            self._greeted = False
            self._process = process

    def _greeting(self, answer: dict):
        if "error" not in answer:
            _greets(answer)
        self._greeted = True

    def _resumed(self, answer: dict):
        try:
            ok(answer)
        except Error as cause:
            self._give_up(f"the recorder died: nothing more is recorded: {cause.message}")
        else:
            self.notes.append({"warning": "the recorder died and was started again: the last points may be missing"})

    def _give_up(self, problem: str):
        self.gone = True
        self._queue.clear()
        self.notes.append({"warning": problem})


def _greets(hello: dict):
    """Raises ValueError unless this is a recorder's answer to hello."""
    if hello.get("protocol") != PROTOCOL or "op" in hello:  # an echo
        raise ValueError


def _pipe():
    """A pipe whose ends are no standard streams, even if those are closed, and that holds as much as it may."""
    ends = []
    for fd in os.pipe():
        ends.append(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3))
        os.close(fd)
    try:
        fcntl.fcntl(ends[1], F_SETPIPE_SZ, PIPE_SIZE)
    except OSError:  # macOS, or this user has used up what he may
        pass
    return ends


def _line(request: dict) -> bytes:
    line = encode(request).encode() + b"\n"
    if len(line) > LINE_LIMIT:
        raise error(f"{request['op']}: {len(line)} bytes of values are more than the {LINE_LIMIT >> 20} MiB of a line", "usage")
    return line


def ok(answer: dict) -> dict:
    """The answer, or the error in it raised."""
    problem = answer.get("error")
    if problem is None:
        return answer
    raise error(str(problem.get("message", "")), problem.get("kind", "internal"), problem.get("hint") or "")


def _reap(pid: int) -> bool:
    """Whether a child has ended; then its pid is not ours any more and nothing may be sent to it."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] != 0
    except OSError:
        return True
