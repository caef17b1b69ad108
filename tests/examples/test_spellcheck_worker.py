#!/usr/bin/env python3
"""Two workers and a class: one is killed in the middle of its task, and the other brings it to its end.

    cargo build && python3 tests/examples/test_spellcheck_worker.py

REPHASE names another binary than target/debug/rephase.
"""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import unittest
import urllib.request

# Nothing is left beside the sources.
sys.dont_write_bytecode = True

from spellcheck_worker import Speller  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BINARY = os.environ.get("REPHASE", str(ROOT / "target/debug/rephase"))
WORDS = HERE / "words.txt"
CLASS = json.loads((ROOT / "data/sample_class.json").read_text(encoding="utf-8"))

# How long what has to come is waited for, in seconds.
PATIENCE = 60
LEASE_MS = 1_500


class Spelling(unittest.TestCase):
    def test_words_that_are_one_letter_away_are_put_right(self):
        speller = Speller(["# words", "receive 3", "it 9", "definitely 2", "define 1", "år 4"])
        text, corrections = speller.correct("Recieve it, definately or definitly: xyzzy åår 2!")
        self.assertEqual(text, "Receive it, definitely or definitely: xyzzy år 2!")
        self.assertEqual(corrections, 4)


class TwoWorkers(unittest.TestCase):
    def setUp(self):
        arguments = ["serve", "--ephemeral", "--listen", "127.0.0.1:0", "--workers", "spellcheck=remote,nlp=remote"]
        self.server = self.start([BINARY, *arguments], stdout=subprocess.PIPE)
        self.url = json.loads(self.server.stdout.readline())["url"]

    def start(self, command, **options):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, **options)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        if process.stdout:
            self.addCleanup(process.stdout.close)
        return process

    def start_worker(self, name):
        options = ["--name", name, "--lease-ms", str(LEASE_MS), "--seconds-per-essay", "0.4", "--wait-ms", "500"]
        command = [sys.executable, str(HERE / "spellcheck_worker.py"), self.url, str(WORDS), *options]
        return self.start(command, stdout=subprocess.DEVNULL)

    def call(self, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"X-User-ID": "teacher"})
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return json.loads(answer.read())

    def until(self, what, look):
        """Looks until there is something, and gives it."""
        ends_at = time.monotonic() + PATIENCE
        while time.monotonic() < ends_at:
            found = look()
            if found:
                return found
            time.sleep(0.02)
        self.fail(f"{what} did not come")

    def test_one_takes_over_from_the_other(self):
        workers = {name: self.start_worker(name) for name in ("first", "second")}
        essays = [{"file_name": essay["file_name"], "text": essay["text"]} for essay in CLASS["essays"]]
        prompt = {"references": {"student_prompt_text": {"storage_id": "the-prompt"}}}
        registration = {
            "expected_essay_count": len(essays),
            "course_code": CLASS["course_code"],
            "student_prompt_ref": prompt,
        }
        batch = self.call("/v1/batches/register", registration)["batch_id"]
        self.call(f"/v1/batches/{batch}/essays", {"essays": essays})
        self.call(f"/v1/batches/{batch}/pipelines", {"requested_pipeline": "nlp"})
        attempts = lambda: self.call(f"/v1/batches/{batch}/phases/spellcheck/attempts")["attempts"]
        state = lambda: self.call(f"/v1/batches/{batch}/status")["pipeline_state"]["spellcheck"]

        self.until("progress", lambda: 0 < state()["progress_percentage"] < 100)
        killed = attempts()[0]["worker_id"]
        workers[killed].send_signal(signal.SIGKILL)
        self.until("the other's work", lambda: state()["status"] == "completed_successfully")
        other = {"first": "second", "second": "first"}[killed]
        shown = [(one["worker_id"], one["trigger"], one["error_code"]) for one in attempts()]
        self.assertEqual(shown, [(killed, "pipeline", "TIMEOUT"), (other, "automatic", None)])
        self.check_texts()
        status = self.call(f"/v1/batches/{batch}/status?wait_ms=30000")
        self.assertEqual(status["status"], "completed_successfully", status)
        workers[other].terminate()
        self.assertEqual(workers[other].wait(PATIENCE), 0, "SIGTERM ends a worker cleanly")
        self.server.terminate()
        self.assertEqual(self.server.wait(PATIENCE), 0)

    def check_texts(self):
        """The next phase gets what the spellcheck made, and this test is who runs it."""
        ask = {"worker_id": "test", "phases": ["nlp"], "wait_ms": 30_000}
        task = self.call("/v1/workers/lease", ask)["tasks"][0]
        with open(WORDS, encoding="utf-8") as lines:
            speller = Speller(lines)
        for essay, arrived in zip(task["essays"], CLASS["essays"], strict=True):
            with urllib.request.urlopen(f"{self.url}/v1/content/{essay['text_storage_id']}", timeout=PATIENCE) as answer:
                text = answer.read().decode()
            corrected, corrections = speller.correct(arrived["text"])
            self.assertNotEqual(text, arrived["text"])
            self.assertEqual(text, corrected)
            self.assertEqual(essay["spellcheck_metrics"], {"corrections": corrections})
        essays = [{"essay_id": essay["essay_id"]} for essay in task["essays"]]
        done = {"lease_token": task["lease_token"], "essays": essays}
        self.call(f"/v1/workers/tasks/{task['task_id']}/complete", done)


if __name__ == "__main__":
    unittest.main()
