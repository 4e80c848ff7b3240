"""Keeps a Spark server only as long as its owner lives. Run as a script; standard library only.

The owner holds the other end of this process's standard input. When it closes, by intent or because the
owner was killed, the server is asked to end, then made to; this process ends after it. Both have inherited
the lake's lock, so the lake stays locked until no one is left who could commit.

Usage: python supervisor.py GRACE_SECONDS COMMAND...
"""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import threading


def main(grace_seconds: float, command: list[str]) -> int:
    supervisor = os.getpid()

    def die_with_supervisor() -> None:
        """Linux: the server is killed when this process is (PR_SET_PDEATHSIG), also when it is already."""
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)
            if os.getppid() != supervisor:
                os._exit(1)

    server = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, close_fds=False, preexec_fn=die_with_supervisor
    )
    should_end = threading.Event()

    def end_with_owner() -> None:
        while os.read(0, 4096):
            pass
        should_end.set()

    threading.Thread(target=end_with_owner, daemon=True).start()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: should_end.set())
    while not should_end.is_set():
        if server.poll() is not None:
            return server.returncode
        should_end.wait(0.1)
    server.terminate()
    try:
        return server.wait(timeout=grace_seconds)
    except subprocess.TimeoutExpired:
        server.kill()
        return server.wait()


if __name__ == "__main__":
    code = main(float(sys.argv[1]), sys.argv[2:])
    if os.path.basename(os.getcwd()).startswith("gmv-spark-"):  # an owner that was killed can't remove it
        shutil.rmtree(os.getcwd(), ignore_errors=True)
    sys.exit(code)
