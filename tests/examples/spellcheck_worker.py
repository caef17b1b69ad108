#!/usr/bin/env python3
"""A spellcheck for rephase, as a service of its own. It needs Python 3.9 and nothing else.

    rephase serve --workers spellcheck=remote
    python3 spellcheck_worker.py http://127.0.0.1:8080 words.txt

It leases tasks, puts right what is one letter away from a word of the list, says how far it is while it works, and
brings the texts. SIGTERM lets it finish what it has. When the server says 409, the task is somebody else's by now.
"""

import argparse
import collections
import json
import os
import re
import signal
import socket
import sys
import threading
import time
import urllib.error
import urllib.request

WORD = re.compile(r"[^\W\d_]+")

# How often a request is sent that the server could not serve, and the first wait between two, in seconds. Each of them
# may be repeated: a lease that nobody heard of ends by itself, and the same work is answered as it was the first time.
TRIES = 6
FIRST_WAIT = 0.2


class LeaseOver(Exception):
    """What was leased is somebody else's, or nobody's."""


class Server:
    """The API, as far as a worker needs it."""

    def __init__(self, url):
        self.url = url.rstrip("/")

    def call(self, path, body=None, timeout=60):
        """The answer to a GET, or to a POST where there is a body; repeated while the server cannot serve it."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        for tried in range(1, TRIES + 1):
            try:
                with urllib.request.urlopen(request, timeout=timeout) as answer:
                    return answer.read()
            except urllib.error.HTTPError as error:
                if error.code == 409:
                    raise LeaseOver(error.read().decode(errors="replace")) from error
                if error.code != 503 or tried == TRIES:
                    raise
            except OSError:
                if tried == TRIES:
                    raise
            time.sleep(FIRST_WAIT * 2**tried)

    def lease(self, worker_id, wait_ms, lease_ms):
        body = {
            "worker_id": worker_id,
            "phases": ["spellcheck"],
            "wait_ms": wait_ms,
            "lease_ms": lease_ms,
        }
        return json.loads(self.call("/v1/workers/lease", body))["tasks"]

    def text(self, storage_id):
        return self.call(f"/v1/content/{storage_id}").decode()

    def say(self, task, what, **body):
        path = f"/v1/workers/tasks/{task['task_id']}/{what}"
        return json.loads(self.call(path, {"lease_token": task["lease_token"], **body}))


class Speller:
    """Knows words and how often they are used."""

    def __init__(self, lines):
        self.counts = collections.Counter()
        for line in lines:
            word, _, count = line.strip().partition(" ")
            if word and not word.startswith("#"):
                self.counts[word.lower()] += int(count or 1)
        self.letters = sorted({letter for word in self.counts for letter in word})

    def neighbours(self, word):
        """Everything that is one letter away: left out, swapped with the next, another, or one more."""
        for at in range(len(word) + 1):
            before, after = word[:at], word[at:]
            if after:
                yield before + after[1:]
                yield from (before + letter + after[1:] for letter in self.letters)
            if len(after) > 1:
                yield before + after[1] + after[0] + after[2:]
            yield from (before + letter + after for letter in self.letters)

    def right(self, word):
        lower = word.lower()
        if lower in self.counts or len(lower) < 3:
            return word
        known = [other for other in self.neighbours(lower) if other in self.counts]
        if not known:
            return word
        best = max(known, key=lambda other: (self.counts[other], other))
        return best.capitalize() if word[0].isupper() else best

    def correct(self, text):
        """The text put right, and how many words were wrong."""
        corrections = 0

        def replace(found):
            nonlocal corrections
            right = self.right(found.group())
            corrections += right != found.group()
            return right

        return WORD.sub(replace, text), corrections


class Heartbeat(threading.Thread):
    """Says that its worker lives, three times in each lease."""

    def __init__(self, server, task, lease_ms):
        super().__init__(daemon=True)
        self.server, self.task, self.every = server, task, lease_ms / 3_000
        self.done, self.is_over, self.ends = 0, False, threading.Event()

    def run(self):
        while not self.ends.wait(self.every):
            try:
                self.server.say(self.task, "heartbeat", progress=self.done)
            except LeaseOver:
                self.is_over = True
                return
            except (OSError, ValueError) as error:
                # The next one may get through; otherwise the lease ends, and the server says so.
                print(f"no heartbeat: {error}", file=sys.stderr)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.ends.set()
        self.join()


def spellcheck(server, speller, task, options):
    """Works on one task, and brings what came of it."""
    brought = []
    with Heartbeat(server, task, options.lease_ms) as heartbeat:
        for essay in task["essays"]:
            if heartbeat.is_over:
                raise LeaseOver("it was told so while it worked")
            time.sleep(options.seconds_per_essay)
            try:
                text = server.text(essay["text_storage_id"])
            except urllib.error.HTTPError as error:
                reason = {"error_code": "CONTENT_SERVICE_ERROR", "message": f"the text cannot be read: {error}"}
                brought.append({"essay_id": essay["essay_id"], "error": reason})
            else:
                text, corrections = speller.correct(text)
                metrics = {"corrections": corrections}
                brought.append({"essay_id": essay["essay_id"], "text": text, "metrics": metrics})
            heartbeat.done = len(brought)
    return server.say(task, "complete", essays=brought)


def main():
    parser = argparse.ArgumentParser(description="A spellcheck that works for a rephase server.")
    parser.add_argument("url", help="where the server is")
    parser.add_argument("words", help="file of known words: one a line, with how often it is used")
    parser.add_argument("--name", default=f"{socket.gethostname()}-{os.getpid()}", help="how the worker calls itself")
    parser.add_argument("--lease-ms", type=int, default=30_000, help="how long a lease lasts without a heartbeat")
    parser.add_argument("--wait-ms", type=int, default=2_000, help="how long to wait for a task before asking anew")
    parser.add_argument("--seconds-per-essay", type=float, default=0.0, help="how slow to be")
    options = parser.parse_args()
    with open(options.words, encoding="utf-8") as lines:
        speller = Speller(lines)
    server = Server(options.url)

    told_to_end = threading.Event()
    # A task may be on its way to this worker, so the question that is open is waited for.
    signal.signal(signal.SIGTERM, lambda *_: told_to_end.set())
    signal.signal(signal.SIGINT, lambda *_: told_to_end.set())
    while not told_to_end.is_set():
        for task in server.lease(options.name, options.wait_ms, options.lease_ms):
            try:
                answer = spellcheck(server, speller, task, options)
                print(f"{task['task_id']}: {answer['outcome']}", flush=True)
            except LeaseOver as over:
                print(f"{task['task_id']}: the lease is over: {over}", file=sys.stderr)


if __name__ == "__main__":
    main()
