"""Where calls to endpoints may go, and what an endpoint can do to us: nothing."""

import socket
import threading
import time

import pytest

from subscriptions.calling import call_once
from subscriptions.outgoing import (
    EndpointUnavailable,
    Outgoing,
    OutgoingRefused,
    check_header,
    is_public,
)
from tests.subscriptions.hook_listener import Listener, status


def resolving(*addresses: str) -> Outgoing:
    return Outgoing(resolve=lambda host, port: list(addresses))


@pytest.fixture
def listener():
    listener = Listener()
    yield listener
    listener.close()


class TestAddresses:
    @pytest.mark.parametrize("url", [
        "http://ehr.example.org/hook",  # plain http
        "ftp://ehr.example.org/", "file:///etc/passwd", "//ehr.example.org/", "ehr.example.org", "",
        "https://user:secret@ehr.example.org/", "https://user@ehr.example.org/",
        "https://", "https:///hook", "https://ehr.example.org:99999/", "https://ehr.example.org:0/",
        "https://ehr.example.org/a b", "https://ehr.example.org/\r\nX: y", "https://ehr.example.org\\@evil/",
        "https://bücher.example/", "https://[::1", "https://e%68r.example.org/",
        "https://ehr.example.org/" + "a" * 2048,
    ])  # fmt: skip
    def test_refuses_what_is_no_https_address(self, url):
        with pytest.raises(OutgoingRefused):
            resolving("93.184.216.34").check(url)

    @pytest.mark.parametrize("address", [
        "127.0.0.1", "127.8.9.10", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0",
        "100.64.0.1", "100.100.100.200", "168.63.129.16", "224.0.0.1", "255.255.255.255", "198.18.0.1", "240.0.0.1",
        "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1", "::ffff:127.0.0.1",
        "::ffff:169.254.169.254", "64:ff9b::7f00:1", "2002:7f00:1::", "2001:0:1::1",
    ])  # fmt: skip
    def test_refuses_every_address_that_is_not_public(self, address):
        assert not is_public(address)
        with pytest.raises(OutgoingRefused, match="public"):
            resolving(address).check("https://ehr.example.org/hook")

    def test_refuses_a_host_with_one_private_address_among_public_ones(self):
        with pytest.raises(OutgoingRefused):
            resolving("93.184.216.34", "10.0.0.1").check("https://ehr.example.org/hook")

    def test_allows_https_to_a_public_address(self):
        target = resolving("93.184.216.34").check("https://ehr.example.org/hook?x=1")
        assert (target.host, target.port, target.path) == ("ehr.example.org", 443, "/hook?x=1")
        assert target.addresses == ("93.184.216.34",)

    @pytest.mark.parametrize("allow", ["127.0.0.1/32", "127.0.0.0/8", "127.0.0.1", "localhost", "LOCALHOST"])
    def test_allows_listed_hosts_and_networks_by_http(self, allow):
        outgoing = Outgoing([allow], resolve=lambda host, port: ["127.0.0.1"])
        assert outgoing.check("http://localhost:8085/hook").port == 8085

    def test_a_listed_network_opens_no_other(self):
        with pytest.raises(OutgoingRefused):
            Outgoing(["10.0.0.0/8"], resolve=lambda host, port: ["127.0.0.1"]).check("https://localhost/")

    def test_an_unknown_host_is_unavailable(self):
        with pytest.raises(EndpointUnavailable):
            resolving().check("https://nowhere.example.org/")

    def test_the_check_is_made_again_at_the_connection(self, listener):
        answers = iter([["93.184.216.34"], ["127.0.0.1"]])
        rebinding = Outgoing(resolve=lambda host, port: next(answers))
        url = f"https://ehr.example.org:{listener.server.server_port}/"
        rebinding.check(url)
        with pytest.raises(OutgoingRefused):
            call_once(rebinding, "POST", url, b"{}", [], 5)
        assert listener.bodies == []


class TestPost:
    def test_posts_the_body_with_its_headers(self, listener):
        headers = [("Content-Type", "application/fhir+json"), ("X-A", "b")]
        answer = call_once(Outgoing(["127.0.0.1"]), "POST", listener.url, b"{}", headers, 5)
        assert answer.accepted
        assert listener.bodies == [b"{}"]
        assert listener.headers[0]["X-A"] == "b"
        assert listener.headers[0]["Host"] == f"127.0.0.1:{listener.server.server_port}"

    def test_does_not_follow_a_redirect(self, listener):
        other = Listener()
        listener.answer = status(307, Location=other.url)
        assert call_once(Outgoing(["127.0.0.1"]), "POST", listener.url, b"{}", [], 5).status == 307
        assert other.bodies == []
        other.close()

    def test_reads_four_kilobytes_of_an_endless_answer(self, listener):
        def endless(handler):
            handler.send_response(200)
            handler.end_headers()
            try:
                while True:
                    handler.wfile.write(b"x" * 1024)
            except OSError:
                pass

        listener.answer = endless
        answer = call_once(Outgoing(["127.0.0.1"]), "POST", listener.url, b"{}", [], 5)
        assert answer.accepted
        assert len(answer.body) == 4096

    def test_gives_up_on_huge_headers(self, listener):
        listener.answer = status(200, **{f"X-{n}": "y" * 1000 for n in range(80)})
        with pytest.raises(EndpointUnavailable):
            call_once(Outgoing(["127.0.0.1"]), "POST", listener.url, b"{}", [], 5)

    def test_an_answer_in_drops_ends_at_the_deadline(self):
        with socket.create_server(("127.0.0.1", 0)) as server:
            enough = threading.Event()

            def drip():
                connection, _ = server.accept()
                with connection:
                    while not enough.wait(0.05):
                        try:
                            connection.sendall(b"H")
                        except OSError:
                            return

            thread = threading.Thread(target=drip)
            thread.start()
            began = time.monotonic()
            with pytest.raises(EndpointUnavailable):
                call_once(
                    Outgoing(["127.0.0.1"]), "POST", f"http://127.0.0.1:{server.getsockname()[1]}/", b"{}", [], 0.4
                )
            assert time.monotonic() - began < 5
            enough.set()
            thread.join()

    def test_nobody_there_is_unavailable(self):
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        with pytest.raises(EndpointUnavailable, match="refused"):
            call_once(Outgoing(["127.0.0.1"]), "POST", f"http://127.0.0.1:{port}/", b"{}", [], 5)


class TestHeaders:
    def test_reads_name_and_value(self):
        assert check_header("Authorization: Bearer a:b") == ("Authorization", "Bearer a:b")

    @pytest.mark.parametrize("line", [
        "no colon", ": empty", "Bad Name: x", "X: a\r\nY: b", "X: a\nY: b", "X\r\n: a", "X: \x00", "X: caf\u0113",
        "Host: evil", "host: evil", "Content-Length: 3", "Transfer-Encoding: chunked", "Content-Type: text/html",
        "Connection: upgrade", "X: " + "a" * 5000,
    ])  # fmt: skip
    def test_refuses_what_could_change_the_request(self, line):
        with pytest.raises(OutgoingRefused):
            check_header(line)
