"""Reads malformed files in a process of its own, so that a hang, a crash or a huge allocation harms no test.

As a program it answers each line {"reader", "path"} by a line that says how it went; `Worker` is the other end.
"""

import json
import os
import re
import resource
import select
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

HANG_S, MEMORY_MB = 30, 2048
ROOM_MB = 6144  # of addresses: what is over the limit is seen, and never fills the machine. pydicom asks for 4 GB that
# a damaged length claims, and uses none of them


class Worker:
    """A process that reads files. It is started again after it had to be killed."""

    def __init__(self):
        self.process = None

    def ask(self, reader: str, path: Path) -> dict:
        """Return what came of reading `path`: outcome (read, refused, traceback, hang, crash), text, peak_mb."""
        if self.process is None:
            self._start()
        self.process.stdin.write(json.dumps({"reader": reader, "path": str(path)}) + "\n")
        self.process.stdin.flush()
        if not select.select([self.process.stdout], [], [], HANG_S)[0]:
            self.stop()
            return {"outcome": "hang", "text": f"no answer in {HANG_S} s", "peak_mb": 0}
        if line := self.process.stdout.readline():
            return json.loads(line)
        status = self.process.wait()
        self.stop()
        return {"outcome": "crash", "text": f"the process ended with {status}", "peak_mb": 0}

    def _start(self) -> None:
        code = "from corpus import worker; worker.serve()"
        path = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
        self.process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        self.process.stdout.readline()  # it has imported what it needs

    def stop(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process.stdin.close()
            self.process.stdout.close()
            self.process = None


def serve() -> None:
    """Answer until the other end closes."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # nothing that a library prints is an answer
    from corpus import readers

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    room = pages * resource.getpagesize() + (ROOM_MB << 20)
    resource.setrlimit(resource.RLIMIT_AS, (room, room))
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before = _peak_mb()
        answer = _answer(readers.READERS[asked["reader"]], Path(asked["path"]))
        print(json.dumps({**answer, "peak_mb": _peak_mb() - before}), file=answers, flush=True)


def _peak_mb() -> float:
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024


def _answer(read, path: Path) -> dict:
    from radprobe.files import RadprobeError

    try:
        with tempfile.TemporaryDirectory() as scratch:
            return {"outcome": "read", "text": str(read(path, Path(scratch)))}
    except RadprobeError as error:
        return {"outcome": "refused", "text": str(error)}
    except BaseException:
        return {"outcome": "traceback", "text": traceback.format_exc()}
