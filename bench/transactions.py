"""Large transactions at once, and what small requests beside them take: `python -m bench.transactions`.

On a server of its own with a WiredTiger cache of 1 GB, 20 clients send a transaction of 1,600 entries each, while
four others read and two create, one request after the other.
"""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from bench.load import Connection
from radloop.commands.demo import server_of_its_own
from radloop.settings import Settings

CLIENTS = 20
ENTRIES = 1600
READERS, WRITERS = 4, 2
TIMEOUT_S = 600
HEADERS = {"Content-Type": "application/fhir+json"}
URN = "urn:uuid:0c3151bd-1cbf-4d64-b04d-cd9187a4c6e0"


def main() -> None:
    with server_of_its_own(OPEN="true", MONGODB_CACHE_GB="1") as settings:
        measure(settings)


def measure(settings: Settings) -> None:
    """Print what the transactions took, and the times of the small requests alone and beside them."""
    patient = json.loads(Connection(settings.host, settings.port).request("POST", "/fhir/Patient", small(), HEADERS))
    for name, seconds in (("alone", 5.0), ("beside", None)):
        stop = threading.Event()
        with ThreadPoolExecutor(READERS + WRITERS + CLIENTS) as pool:
            reads = [
                pool.submit(until, stop, settings, "GET", f"/fhir/Patient/{patient['id']}") for _ in range(READERS)
            ]
            writes = [pool.submit(until, stop, settings, "POST", "/fhir/Patient") for _ in range(WRITERS)]
            began = time.perf_counter()
            if seconds is not None:
                time.sleep(seconds)
            else:
                large = [pool.submit(transaction, settings, number) for number in range(CLIENTS)]
                took = sorted(done.result() for done in large)
                total = time.perf_counter() - began
                rate = CLIENTS * ENTRIES / total
                print(f"{CLIENTS} transactions of {ENTRIES} entries committed in {total:.1f} s, {rate:.0f} a second")
                print(f"  fastest {took[0]:.1f} s, slowest {took[-1]:.1f} s")
            stop.set()
            show(f"reads {name}", [ms for one in reads for ms in one.result()])
            show(f"creates {name}", [ms for one in writes for ms in one.result()])


def transaction(settings: Settings, number: int) -> float:
    """Send one; the seconds it took. Raises RuntimeError when it is refused."""
    patient = {"resourceType": "Patient", "identifier": [{"system": "urn:bench", "value": str(number)}]}
    order = {"resourceType": "ServiceRequest", "status": "draft", "intent": "plan", "subject": {"reference": URN}}
    entries = [{"fullUrl": URN, "resource": patient, "request": {"method": "POST", "url": "Patient"}}]
    entries += [{"resource": order, "request": {"method": "POST", "url": "ServiceRequest"}}] * (ENTRIES - 1)
    body = json.dumps({"resourceType": "Bundle", "type": "transaction", "entry": entries}).encode()
    began = time.perf_counter()
    Connection(settings.host, settings.port, TIMEOUT_S).request("POST", "/fhir", body, HEADERS)
    return time.perf_counter() - began


def until(stop: threading.Event, settings: Settings, method: str, path: str) -> list[float]:
    """Send small requests one after the other; the ms that each took."""
    connection, times = Connection(settings.host, settings.port, TIMEOUT_S), []
    while not stop.is_set():
        began = time.perf_counter()
        connection.request(method, path, small() if method == "POST" else None, HEADERS)
        times.append((time.perf_counter() - began) * 1000)
    return times


def small() -> bytes:
    return json.dumps({"resourceType": "Patient", "name": [{"family": "Small"}], "gender": "female"}).encode()


def show(name: str, times: list[float]) -> None:
    times.sort()
    at = {q: times[min(len(times) - 1, len(times) * q // 100)] for q in (50, 95, 99)}
    told = ", ".join(f"p{q} {ms:.1f}" for q, ms in at.items())
    print(f"  {name:<16}{len(times):>7} requests; ms {told}, max {times[-1]:.1f}")


if __name__ == "__main__":
    main()
