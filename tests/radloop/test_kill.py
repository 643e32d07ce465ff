"""kill -9 of any process at any moment: nothing acknowledged is lost; every notice arrives, in order, none skipped.

The demonstration itself is the witness: it reads back what was acknowledged, waits for each notice, and fails when
the numbers of a Subscription have a gap.
"""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.server import Server, running

# A line of the time line -> the process that is killed when it is printed.
ONE_OF_EACH = {
    "sent referral": "worker",
    "accepted it": "mongod",
    "the patient arrived": "web",
    "stored 3 slices": "worker",
    "signed the final report": "mongod",
    "path B": "live",
}
MOMENTS = (
    "subscribed to orders",
    "sent referral",
    "accepted it",
    "found, held and booked",
    "the patient arrived",
    "stored 3 slices",
    "signed the final report",
    "answered the survey",
    "past the grace period",
    "back to the real time",
)


def play_while_killing(server: Server, deaths: dict[str, str]) -> str:
    """Run the demonstration; at each of these lines kill -9 that process, once. Returns what was printed."""
    process = subprocess.Popen(
        [sys.executable, "-m", "radloop", "demo"],
        env=server.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    clock = threading.Timer(300, process.kill)
    clock.start()
    waiting, printed = dict(deaths), []
    assert process.stdout is not None
    for line in process.stdout:
        printed.append(line)
        for moment in [moment for moment in waiting if moment in line]:
            server.kill(waiting.pop(moment))
    clock.cancel()
    text = "".join(printed)
    assert process.wait() == 0, f"{text}\n{server.log.read_text()}"
    assert waiting == {}, "not every process was killed"
    return text


def test_one_of_each_dies_in_the_middle_of_the_demo(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        play_while_killing(server, ONE_OF_EACH)
        checked = server.command("check", "loop", "--wait", "30")
        assert checked.returncode == 0, checked.stdout


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["web", "live", "worker", "mongod"])
def test_each_dies_at_every_step(tmp_path: Path, victim: str) -> None:
    with running(tmp_path) as server:
        play_while_killing(server, dict.fromkeys(MOMENTS, victim))
        checked = server.command("check", "loop", "--wait", "60")
        assert checked.returncode == 0, checked.stdout
