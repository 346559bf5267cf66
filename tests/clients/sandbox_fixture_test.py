"""The fixture that test suites copy: it starts a sandbox, and leaves none behind."""

import pathlib
import subprocess
import sys
import time
import unittest
import urllib.error
import urllib.request

from sandbox_fixture import sandbox


def responds(url):
    try:
        urllib.request.urlopen(f"{url}/api/health", timeout=20).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


class FixtureTest(unittest.TestCase):
    def test_a_test_suite_starts_a_sandbox_sends_through_its_gateway_and_stops_it(self):
        with sandbox() as ready:
            self.assertEqual(ready["version"], 1)
            call = urllib.request.Request(
                f"{ready['gateway']}/api/hubs/chat/:send?api-version=2024-12-01",
                data=b'{"target":"hello","arguments":[]}',
                headers={"content-type": "application/json"},
            )
            with urllib.request.urlopen(call, timeout=20) as response:
                self.assertEqual(response.status, 202)
        self.assertFalse(responds(ready["gateway"]))
        self.assertFalse(pathlib.Path(ready["files"]).exists())

    def test_a_sandbox_ends_when_the_process_that_started_it_is_killed(self):
        script = "import time, sandbox_fixture\nwith sandbox_fixture.sandbox() as r:\n print(r['gateway'], flush=True)\n time.sleep(600)"
        here = pathlib.Path(__file__).parent
        with subprocess.Popen([sys.executable, "-c", script], cwd=here, stdout=subprocess.PIPE, text=True) as parent:
            gateway = parent.stdout.readline().strip()
            self.assertTrue(responds(gateway))
            parent.kill()
        deadline = time.monotonic() + 15
        while responds(gateway):
            self.assertLess(time.monotonic(), deadline, "the sandbox still runs")
            time.sleep(0.02)

    def test_a_sandbox_that_cannot_start_is_an_error_with_its_log(self):
        with self.assertRaisesRegex(RuntimeError, "nonexistent.toml"), sandbox("--config", "/nonexistent.toml"):
            pass


if __name__ == "__main__":
    unittest.main()
