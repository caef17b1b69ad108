import pytest
from conftest import Refused


def test_a_failed_phase_is_retried_alone(rephase):
    rephase.faults([{"phase": "nlp", "attempts": [1], "error_code": "NLP_SERVICE_ERROR", "category": "permanent"}])
    batch = rephase.ready_batch(["I recieve letters.", "Me too."])
    rephase.ask("POST", f"/v1/batches/{batch}/pipelines", {"requested_pipeline": "ai_feedback"})
    rephase.advance(60_000)
    failed = rephase.status(batch)["pipeline_state"]["nlp"]
    assert (failed["status"], failed["error_info"]["error_code"]) == ("failed", "NLP_SERVICE_ERROR")

    retried = rephase.ask("POST", f"/v1/batches/{batch}/retry-phase", {"phase_name": "nlp"})
    assert retried["attempt"] == 2
    rephase.advance(60_000)
    assert rephase.status(batch)["status"] == "completed_successfully"
    assert [attempt["trigger"] for attempt in rephase.attempts(batch, "nlp")] == ["pipeline", "user"]
    assert len(rephase.attempts(batch, "spellcheck")) == 1


def test_a_transient_failure_is_tried_again_in_its_time(rephase):
    rephase.faults([{"phase": "nlp", "attempts": [1], "error_code": "TIMEOUT", "retry_after_ms": 3_600_000}])
    batch = rephase.ready_batch(["One."])
    rephase.ask("POST", f"/v1/batches/{batch}/pipelines", {"requested_pipeline": "nlp"})
    rephase.advance(3_000_000)
    assert rephase.status(batch)["status"] == "processing"
    rephase.advance(700_000)
    assert rephase.status(batch)["status"] == "completed_successfully"


def test_nothing_is_left_of_the_test_before(rephase):
    assert rephase.ask("GET", "/v1/batches")["batches"] == []
    assert rephase.ask("GET", "/_test/faults") == []
    with pytest.raises(Refused) as refused:
        rephase.status("01a20b9b-6bc0-7113-af41-d19ebbd8cbcb")
    assert refused.value.status == 404
