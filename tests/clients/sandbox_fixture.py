"""Starts a sandbox for a test suite, and stops it: copy this file into your project. It needs no package.

SIGNALR_GATEWAY names the program, which is otherwise searched in PATH. With pytest:

    @pytest.fixture(scope="session")
    def signalr():
        with sandbox() as ready:
            yield ready
"""

import contextlib
import json
import os
import pathlib
import subprocess
import tempfile
import time

START_TIMEOUT = 60.0


@contextlib.contextmanager
def sandbox(*arguments, program=None):
    """Yields the content of the ready file. `arguments` are further arguments, such as "--config", "sandbox.toml"."""
    program = program or os.environ.get("SIGNALR_GATEWAY", "signalr-gateway")
    with tempfile.TemporaryDirectory(prefix="sandbox-") as folder:
        ready, log = pathlib.Path(folder, "ready.json"), pathlib.Path(folder, "log")
        options = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--ready-file", ready, "--exit-with-stdin"]
        with log.open("wb") as stderr:
            process = subprocess.Popen(
                [program, "sandbox", *options, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
            )
        try:
            deadline = time.monotonic() + START_TIMEOUT
            # The file is complete as soon as it exists.
            while not ready.exists():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{program} sandbox did not start:\n{log.read_text()[-10000:]}")
                time.sleep(0.02)
            yield json.loads(ready.read_text())
        finally:
            process.stdin.close()
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
