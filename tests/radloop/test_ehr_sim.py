"""`radloop ehr-sim`, as its user starts it."""

import os
import re
import signal
import subprocess
import sys

import requests


def test_shows_a_chart_that_opens_our_app_and_stops() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RADLOOP_")}
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "radloop", "ehr-sim", "--port", "0", "--styled"],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        found = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
        assert found
        chart = requests.get(f"{found[0]}/?width=320", timeout=10)
        assert chart.status_code == 200
        assert "http://127.0.0.1:8080/tracker/launch?iss=" in chart.text
        keys = requests.get(f"{found[0]}/jwks", timeout=10).json()["keys"]
        assert "d" not in keys[0]
    finally:
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=30)
    assert "stopped" in rest
    assert process.returncode == 0
