"""Runs schemathesis against a server of its own: run.py PROGRAM DIRECTORY.

Twice: with ids that are drawn, and with those of a batch, a dead letter, a bulk retry and a task that are there, so that
what lies behind the first 404 is reached as well. The seed is fixed; each run takes about a minute.
"""

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

USER = "teacher-7"

# Streams do not end by themselves.
ENDLESS = "^/(ws|v1/notifications/stream|v1/events/stream)$"

# ignored_auth: on loopback whoever asks is whom they say they are, and some routes are for everybody.
# positive_data_acceptance: what a schema cannot say is refused with 400 too, such as a phase that no worker of this server
# runs, or one list as long as another number says.
NOT_CHECKED = "ignored_auth,positive_data_acceptance"


class Server:
    """A server that ends with this process."""

    def __init__(self, program: str) -> None:
        arguments = ["--ephemeral", "--test-api", "--listen", "127.0.0.1:0", "--end-with-stdin"]
        arguments += ["--workers", "cj_assessment=remote", "--latency-ms", "0"]
        self.process = subprocess.Popen(
            [program, "serve", *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self.url = json.loads(self.process.stdout.readline())["url"]

    def ask(self, method: str, path: str, body: object = None) -> dict:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"X-User-ID": USER}, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def stop(self) -> int:
        self.process.stdin.close()
        return self.process.wait(timeout=30)


def ids(server: Server) -> dict[str, str]:
    """A batch whose nlp has failed, a task, a dead letter, a bulk retry, and a text."""
    failed = {"phase": "nlp", "ends": "failed", "error_code": "NLP_SERVICE_ERROR", "category": "permanent"}
    history = [{"pipeline": "nlp"}, {"phase": "spellcheck"}, failed]
    batch = {"user_id": USER, "essays": 2, "history": history}
    batch, garbled, ranked = server.ask("POST", "/_test/seed", {"batches": [batch] * 3})["batch_ids"]
    server.ask("PUT", "/_test/faults", [{"phase": "nlp", "garbled": True}])
    server.ask("POST", f"/v1/batches/{garbled}/retry-phase", {"phase_name": "nlp"})
    server.ask("POST", "/_test/clock/advance", {"ms": 0})
    server.ask("PUT", "/_test/faults", [])
    letter = server.ask("GET", "/internal/v1/dead-letters")["dead_letters"][0]["id"]
    server.ask("POST", f"/v1/batches/{ranked}/pipelines", {"requested_pipeline": "cj_assessment"})
    lease = {"worker_id": "w", "phases": ["cj_assessment"], "wait_ms": 10000, "lease_ms": 3600000}
    task = server.ask("POST", "/v1/workers/lease", lease)["tasks"][0]["task_id"]
    job = server.ask("POST", "/v1/retry-jobs", {"filter": {"error_code": "TIMEOUT"}, "phase": "nlp"})["job_id"]
    text = server.ask("POST", "/v1/content", {"text": "Kept."})["storage_id"]
    return {"batch_id": batch, "letter_id": letter, "task_id": task, "job_id": job, "storage_id": text}


def run(program: str, directory: Path, name: str, phases: str, examples: int, *, with_ids: bool) -> bool:
    server = Server(program)
    place = directory / name
    place.mkdir(parents=True, exist_ok=True)
    known = ids(server) if with_ids else {}
    lines = [f'"path.{parameter}" = "{value}"' for parameter, value in known.items()]
    (place / "schemathesis.toml").write_text("\n".join(["[parameters]", *lines, ""]) if lines else "")
    arguments = ["--workers", "1", "--seed", "7", "--max-examples", str(examples), "--phases", phases]
    arguments += ["--exclude-path-regex", ENDLESS, "--exclude-checks", NOT_CHECKED, "--warnings", "off"]
    arguments += ["--request-timeout", "40", "--suppress-health-check", "all", "--continue-on-failure", "--no-shrink"]
    arguments += ["--header", f"X-User-ID: {USER}", "--url", server.url, f"{server.url}/openapi.json"]
    command = [Path(sys.executable).parent / "schemathesis", "run", *arguments]
    print(f"schemathesis: {name}", flush=True)
    ended = subprocess.run(command, cwd=place, check=False, env={**os.environ, "NO_COLOR": "1"})
    # One that is no more has crashed.
    is_sound = server.ask("GET", "/healthz")["status"] == "healthy"
    return server.stop() == 0 and is_sound and ended.returncode == 0


def is_openapi(program: str, directory: Path) -> bool:
    server = Server(program)
    with urllib.request.urlopen(f"{server.url}/openapi.json") as answer:
        (directory / "openapi.json").write_bytes(answer.read())
    server.stop()
    validator = Path(sys.executable).parent / "openapi-spec-validator"
    return subprocess.run([validator, directory / "openapi.json"], check=False).returncode == 0


def main() -> int:
    program, directory = sys.argv[1], Path(sys.argv[2])
    is_good = is_openapi(program, directory)
    is_good &= run(program, directory, "drawn", "examples,coverage,fuzzing,stateful", 15, with_ids=False)
    is_good &= run(program, directory, "known", "examples,coverage,fuzzing", 25, with_ids=True)
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
