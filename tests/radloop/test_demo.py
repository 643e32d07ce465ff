"""`radloop demo`: a referral from the EHR to images, report and every notice, and one whose patient does not come."""

from tests.server import Server

# What must be on the time line, in this order.
EXPECTED = (
    "EHR          has a token (client_credentials, private_key_jwt)",
    "EHR          subscribed to orders, referrals and appointments by rest-hook",
    "SMART app    subscribed to referrals by websocket",
    "path A: the patient comes",
    "EHR, app     <- received",
    "front desk   accepted it",
    "front desk   found, held and booked",
    "EHR, app     <- appointment set",
    "front desk   the patient arrived",
    "CT scanner   stored 3 slices by STOW-RS",
    "server       ImagingStudy: 1 series, 3 instances",
    "EHR, app     <- images available",
    "viewer       QIDO-RS: 1 study, 1 series, 3 instances",
    "viewer       WADO-RS metadata",
    "viewer       WADO-RS frame 1",
    "viewer       rendered: JPEG",
    "EHR, app     <- the report is there",
    "physician    answered the survey",
    "path B: the patient does not come",
    "EHR, app     <- missed: the patient did not come",
    "EHR          next step: The patient did not attend. Rebook",
    "EHR, app     <- kept: this time the patient is there",
    "EHR, app     <- the exam is done",
)


def test_the_demo_plays_and_proves_that_no_referral_is_silent(server: Server) -> None:
    played = server.command("demo")
    assert played.returncode == 0, played.stdout
    rest = played.stdout
    for line in EXPECTED:
        assert line in rest, f"not (or not in order): {line}\n{played.stdout}"
        rest = rest.partition(line)[2]
    assert server.command("check", "loop").returncode == 0
    checked = server.command("check", "dicom")
    assert (checked.returncode, "all images are in order" in checked.stdout) == (0, True), checked.stdout


def test_it_ends_with_status_1_where_no_server_runs(tmp_path: object, server: Server) -> None:
    environment = {**server.environment, "RADLOOP_DATA_DIR": str(tmp_path), "RADLOOP_PORT": "9"}
    elsewhere = Server(server.settings, environment, server.process, server.log)
    played = elsewhere.command("demo")
    assert played.returncode == 1
    assert "demo-credentials.json is not there" in played.stdout
