"""rephase as a fixture: a server of its own for a test, with a clock that the test moves and faults that it chooses."""

import json
import os
import pathlib
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

import pytest

PROGRAM = os.environ.get("REPHASE", str(pathlib.Path(__file__).parents[3] / "target/debug/rephase"))


class Refused(Exception):
    def __init__(self, status, problem):
        super().__init__(f"{status}: {problem.get('error')}")
        self.status, self.problem = status, problem


class Rephase:
    """Talks to one server as one user."""

    def __init__(self, url, pid, user="teacher-7"):
        self.url, self.pid, self.user = url, pid, user

    def ask(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"X-User-ID": self.user}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise Refused(error.code, json.load(error)) from None

    def advance(self, ms=0):
        """Moves the server's time. Everything that is due has happened when this returns; so 0 lets work under way end."""
        return self.ask("POST", "/_test/clock/advance", {"ms": ms})["now"]

    def faults(self, rules):
        return self.ask("PUT", "/_test/faults", rules)

    def ready_batch(self, texts):
        prompt = {"references": {"student_prompt_text": {"storage_id": "prompt-1"}}}
        registration = {"expected_essay_count": len(texts), "course_code": "ENG5", "student_prompt_ref": prompt}
        batch = self.ask("POST", "/v1/batches/register", registration)["batch_id"]
        essays = [{"file_name": f"{number}.txt", "text": text} for number, text in enumerate(texts)]
        self.ask("POST", f"/v1/batches/{batch}/essays", {"essays": essays})
        return batch

    def status(self, batch):
        return self.ask("GET", f"/v1/batches/{batch}/status")

    def attempts(self, batch, phase):
        return self.ask("GET", f"/v1/batches/{batch}/phases/{phase}/attempts")["attempts"]


@pytest.fixture(scope="session")
def server():
    """One server for all tests, that is gone afterwards: it ends with its standard input, however this process ends."""
    with tempfile.TemporaryDirectory() as directory:
        ready = pathlib.Path(directory) / "ready"
        arguments = ["serve", "--listen", "127.0.0.1:0", "--ephemeral", "--test-api", "--end-with-stdin"]
        arguments += ["--latency-ms", "100", "--ready-file", str(ready)]
        process = subprocess.Popen([PROGRAM, *arguments], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        try:
            until = time.monotonic() + 30
            while not ready.exists():
                assert process.poll() is None and time.monotonic() < until, "rephase did not start"
                time.sleep(0.002)
            said = json.loads(ready.read_text())
            yield Rephase(said["url"], said["pid"])
        finally:
            process.stdin.close()
            assert process.wait(timeout=30) == 0
            assert not ready.exists()


@pytest.fixture
def rephase(server):
    """The server, empty."""
    server.ask("POST", "/_test/reset")
    return server
