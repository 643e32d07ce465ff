"""What callers from outside do while the server is away."""

import pytest
import requests

from radloop.demo.stage import StepFailed, patiently


@pytest.mark.parametrize("lost", [requests.ConnectionError, requests.ReadTimeout, requests.ConnectTimeout])
def test_a_request_whose_answer_was_lost_is_made_again(lost: type[Exception]) -> None:
    answers = iter([lost, None])

    def call() -> str:
        if trouble := next(answers):
            raise trouble
        return "answer"

    assert patiently(call) == "answer"


def test_a_request_that_was_refused_is_not() -> None:
    refusal = requests.Response()
    refusal.status_code = 422

    def call() -> None:
        raise requests.HTTPError("422", response=refusal)

    with pytest.raises(StepFailed):
        patiently(call)
