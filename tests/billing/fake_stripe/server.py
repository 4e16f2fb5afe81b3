"""The fake Stripe's socket: its API, its payment page, and the webhooks it sends."""

import html
import http.client
import json
import threading
import time
import urllib.parse
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import stripe

from tests.billing.fake_stripe.accounts import GOOD, Accounts, Json, Refusal

_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Fake Stripe</title>
<h1>Pay {total}</h1><ul>{lines}</ul>{problem}
<form method="post"><label>Card number <input name="number" value="{good}"></label> <button>Pay</button></form>
<p><a href="{back}">Back</a></p></html>"""
_KINDS = {
    "checkout/sessions": "checkout.session",
    "customers": "customer",
    "disputes": "dispute",
    "payment_intents": "payment_intent",
    "payment_methods": "payment_method",
    "refunds": "refund",
}


class FakeStripe(Accounts):
    """A server on a port of its own. `requests` has what it was asked: method, path and headers."""

    def __init__(self) -> None:
        super().__init__()
        self.key, self.secret = "sk_test_fake", "whsec_fake"
        self.webhook_url = ""
        self.delivers_at_once = False
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self._delivered = 0
        self._answers: dict[str, tuple[str, int, Json]] = {}
        self._faults: list[tuple[str, str]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.fake = self  # type: ignore[attr-defined]  # how its handlers find it
        self.base_url = self.url = f"http://127.0.0.1:{self._server.server_port}"

    def start(self) -> "FakeStripe":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def fail_next(self, how: str, *, path: str = "/v1/", times: int = 1) -> None:
        """Break the next requests below `path`: a status (`500`, `429`), `drop-before` or `drop-after` doing it.

        The library asks twice more by itself where the connection was cut or the answer is 5xx.
        """
        self._faults.extend([(how, path)] * times)

    # --- Webhooks ------------------------------------------------------------------------------------------

    def signature(self, body: bytes, *, secret: str = "", at: float | None = None) -> str:
        moment = int(time.time() if at is None else at)
        return str(
            stripe.WebhookSignature.generate_signature_header(body.decode(), secret or self.secret, moment)
        )

    def deliver(self, event: Json, *, secret: str = "", at: float | None = None) -> int:
        """POST one event to `webhook_url`, signed; returns the status of the answer."""
        body = json.dumps(event).encode()
        return self.post(body, signature=self.signature(body, secret=secret, at=at))

    def deliver_all(self, *, is_reversed: bool = False, times: int = 1) -> list[int]:
        """Deliver what was not delivered yet, perhaps in the wrong order, each several times."""
        with self.lock:
            waiting, self._delivered = self.events[self._delivered :], len(self.events)
        ordered: Iterable[Json] = reversed(waiting) if is_reversed else waiting
        return [self.deliver(event) for event in ordered for _ in range(times)]

    def post(self, body: bytes, *, signature: str | None) -> int:
        """POST anything to `webhook_url`."""
        target = urllib.parse.urlsplit(self.webhook_url)
        assert target.hostname, "set webhook_url first"
        connection = http.client.HTTPConnection(target.hostname, target.port, timeout=30)
        headers = {"Content-Type": "application/json; charset=utf-8"}
        if signature is not None:
            headers["Stripe-Signature"] = signature
        try:
            connection.request("POST", target.path, body, headers)
            return connection.getresponse().status
        finally:
            connection.close()

    # --- Answers -------------------------------------------------------------------------------------------

    def fault_of(self, path: str) -> str:
        """How the request is to be broken; empty: not at all."""
        with self.lock:
            for fault in self._faults:
                if path.startswith(fault[1]):
                    self._faults.remove(fault)
                    return fault[0]
        return ""

    def answer(self, method: str, path: str, asked: Json, headers: dict[str, str]) -> tuple[int, Json]:
        """What the API says, once for each idempotency key."""
        if headers.get("authorization") != f"Bearer {self.key}":
            raise Refusal(401, "invalid_request_error", "Invalid API Key provided: sk_test_****fake")
        key, fingerprint = headers.get("idempotency-key", ""), json.dumps([path, asked], sort_keys=True)
        with self.lock:
            if method == "POST" and key in self._answers:
                first, status, body = self._answers[key]
                if first != fingerprint:
                    raise Refusal(400, "idempotency_error", "Keys can only be used with the same parameters")
                return status, body
            expand = asked.pop("expand", {}).values()
            try:
                status, body = 200, self.shown(self._act(method, path, asked), expand)
            except Refusal as refused:
                if refused.status != http.client.PAYMENT_REQUIRED:
                    raise
                status, body = refused.status, refused.body
            if method == "POST" and key:
                self._answers[key] = (fingerprint, status, body)
            return status, body

    def _act(self, method: str, path: str, asked: Json) -> Json:
        of_kind = path.removeprefix("/v1/")
        act = {
            ("POST", "checkout/sessions"): self.create_session,
            ("POST", "customers"): self.create_customer,
            ("POST", "payment_intents"): self.create_intent,
            ("POST", "refunds"): self.create_refund,
            ("GET", "payment_intents"): self.list_intents,
            ("GET", "refunds"): self.list_refunds,
            ("GET", "events"): self.list_events,
        }.get((method, of_kind))
        if act is not None:
            return act(asked)
        if method == "POST" and of_kind.endswith("/detach"):
            return self.detach(of_kind.split("/")[1])
        of_kind, _, name = of_kind.rpartition("/")
        if method == "GET" and of_kind in _KINDS:
            return self.known(name, _KINDS[of_kind])
        raise Refusal(404, "invalid_request_error", f"Unrecognized request URL ({method}: {path})")

    def page(self, session_id: str, problem: str = "") -> str:
        """The payment page, for browsers."""
        session = self.known(session_id, "checkout.session")
        return _PAGE.format(
            total=f"${session['amount_total'] / 100:,.2f}",
            lines="".join(
                f"<li>{html.escape(line['name'])}: ${line['amount'] / 100:,.2f}</li>"
                for line in session["lines"]
            ),
            problem=f'<p role="alert">{html.escape(problem)}</p>' if problem else "",
            good=GOOD,
            back=html.escape(session["cancel_url"]),
        )


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Nothing: pytest shows enough."""

    def do_GET(self) -> None:
        self._serve("GET", b"")

    def do_POST(self) -> None:
        self._serve("POST", self.rfile.read(int(self.headers.get("Content-Length") or 0)))

    def _serve(self, method: str, body: bytes) -> None:
        fake: FakeStripe = self.server.fake  # type: ignore[attr-defined]
        address = urllib.parse.urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        fake.requests.append((method, address.path, headers))
        if address.path == "/favicon.ico":
            self._send(204, b"", {})
            return
        if address.path.startswith("/pay/"):
            self._serve_page(fake, method, address.path.removeprefix("/pay/"), body.decode())
            return
        fault = fake.fault_of(address.path)
        if fault == "drop-before":
            self.close_connection = True
            return
        if fault.isdigit():
            kind = "rate_limit_error" if fault == "429" else "api_error"
            self._say(int(fault), {"error": {"type": kind, "message": "Something went wrong on our end"}})
            return
        try:
            status, told = fake.answer(method, address.path, parsed(body.decode() or address.query), headers)
        except Refusal as refused:
            status, told = refused.status, refused.body
        if fault == "drop-after":
            self.close_connection = True
            return
        self._say(status, told)

    def _serve_page(self, fake: FakeStripe, method: str, session_id: str, body: str) -> None:
        problem = ""
        if method == "POST":
            try:
                session = fake.pay(session_id, urllib.parse.parse_qs(body)["number"][0])
            except Refusal as refused:
                problem = str(refused)
            else:
                if fake.delivers_at_once:
                    threading.Thread(target=fake.deliver_all, daemon=True).start()
                self._send(303, b"", {"Location": session["success_url"]})
                return
        self._send(200, fake.page(session_id, problem).encode(), {"Content-Type": "text/html; charset=utf-8"})

    def _say(self, status: int, told: Json) -> None:
        headers = {"Content-Type": "application/json", "Request-Id": "req_fake"}
        self._send(status, json.dumps(told).encode(), headers)

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def parsed(encoded: str) -> Json:
    """Stripe's form encoding, `a[b][0]=c`, as nested dicts."""
    parsed_form: Json = {}
    for name, value in urllib.parse.parse_qsl(encoded, keep_blank_values=True):
        *path, last = name.replace("]", "").split("[")
        place = parsed_form
        for part in path:
            place = place.setdefault(part, {})
        place[last] = value
    return parsed_form
