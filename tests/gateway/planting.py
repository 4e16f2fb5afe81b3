"""Secrets sent to wherever they do not belong, and everything that came back."""

from tests.gateway.raw_http import RawConnection
from tests.gateway.raw_upstream import RawUpstream
from tests.instance import Instance

PREMIUM, BASIC = "claude-opus-4.8", "gpt-oss-120b"
ENDPOINTS = ("chat/completions", "completions", "embeddings", "responses", "messages")
# Issues a key on its page, as a member of the account does, and prints it.
PAGE = """
from django.test import Client
from django.test.utils import setup_test_environment
from accounts.models import User
setup_test_environment()
client = Client(headers={{"host": "localhost"}})
client.force_login(User.objects.get(email="{email}"))
token = client.get("/keys/create/").context["token"]
page = client.post("/keys/create/", {{"name": "paged", "environment": "production", "token": token}})
print(page.context["secret"])
"""
ANSWER = (
    b'{"id": "x", "object": "chat.completion", "choices": [{"index": 0, "message": {"role": "assistant", "content":'
    b' "ok"}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 1, "completion_tokens": %d}}'
)


class Planter:
    """An instance with customers, whose secrets are sent to wherever they do not belong."""

    def __init__(self, instance: Instance, upstream: RawUpstream) -> None:
        self.instance = instance
        self.upstream = upstream
        self.answers: list[bytes] = []
        self.leaks: list[str] = []
        self.rich = self._customer("rich@example.com", "--plan", "pay-as-you-go", "--credit", "5")
        self.poor = self._customer("poor@example.com", "--plan", "pay-as-you-go")
        self.free = self._customer("free@example.com", "--plan", "basic")
        page = instance.manage("shell", "-c", PAGE.format(email="rich@example.com"), check=True)
        self.paged = page.stdout.split()[-1]
        self.secrets = [self.rich, self.poor, self.free, self.paged]

    def _customer(self, email: str, *options: str) -> str:
        self.instance.manage("create_account", email, *options, check=True)
        return self.instance.manage("issue_key", email, "a key", check=True).stdout.strip()

    def send(self, line: str, *headers: str, body: str = "", key: str = "") -> bytes:
        """One request as it is; keeps and returns everything that comes back."""
        own = [f"Authorization: Bearer {key}"] if key else []
        length = [f"Content-Length: {len(body.encode())}"] if body else []
        lines = [line, "Host: localhost", "Connection: close", *own, *headers, *length, "", body]
        with RawConnection(self.instance.state.port) as connection:
            connection.send("\r\n".join(lines).encode())
            answer = connection.everything()
        self.answers.append(answer)
        return answer

    def keep_upstream_healthy(self) -> None:
        """An upstream that mostly fails is not asked any more."""
        self.upstream.answers(ANSWER % 1)
        for _ in range(4):
            assert self.chat(key=self.rich) == 200

    def visit(self, address: str) -> None:
        """A page of the console. It may lead back to the address that was asked for; logs may not say it."""
        self.send(f"GET {address} HTTP/1.1")
        self.answers.pop()

    def post(self, body: str, *headers: str, key: str, path: str = "chat/completions") -> int:
        answer = self.send(f"POST /v1/{path} HTTP/1.1", *headers, body=body, key=key)
        return int(answer.split(b" ")[1])

    def chat(self, *headers: str, key: str, model: str = PREMIUM, fields: str = "") -> int:
        body = f'{{"model": "{model}", "messages": [{{"role": "user", "content": "hi"}}]{fields}}}'
        return self.post(body, *headers, key=key)


def mistyped(secret: str) -> list[str]:
    """One character off, and other near misses."""
    return [
        secret[:-1] + ("a" if secret[-1] != "a" else "b"),
        secret[:-1],
        secret[1:],
        secret + "x",
        "tg-live-" + secret[8:],
        "tg_livf_" + secret[8:],
        "TG_LIVE_" + secret[8:],
        f"'{secret}'",
    ]


def plant_in_addresses_and_headers(planter: Planter, secret: str) -> None:
    for written in [secret, secret.replace("_", "%5F"), *mistyped(secret)]:
        for path in (
            "/v1/{}",
            "/v1/models/{}",
            "/v1/generation?id={}",
            "/v1/models?api_key={}",
            "/v1/key?x={}",
        ):
            planter.send(f"GET {path.format(written)} HTTP/1.1", key=secret)
        planter.visit(f"/keys/{written}/")
        planter.visit(f"/accounts/login/?next=/{written}")
        planter.send("GET /v1/models HTTP/1.1", f"Authorization: Bearer {written}")
        planter.send("GET /v1/models HTTP/1.1", f"x-api-key: {written}")
    for headers in (
        f"{secret}: a",
        f"X-Anything: {secret}",
        f"User-Agent: {secret}",
        f"User-Agent: curl/{secret} x",
        f"X-Request-Id: {secret}",
        f"X-Request-Id: {secret[1:]}",
        f"Idempotency-Key: {secret}",
        f"Cookie: sessionid={secret}",
        f"X-Forwarded-For: {secret}",
        f"Content-Type: application/json; charset={secret}",
        f"Content-Encoding: {secret}",
        f"Expect: {secret}",
    ):
        planter.upstream.answers(ANSWER % 1)
        planter.chat(headers, key=secret)
    planter.send("GET /v1/models HTTP/1.1", f"Authorization: Basic {secret}")
    planter.send("GET /v1/models HTTP/1.1", f"Authorization: Bearer {secret}", f"X-Api-Key: {secret}")
    planter.send(f"{secret} /v1/models HTTP/1.1")
    planter.send("PUT /v1/models HTTP/1.1", key=secret)


def plant_in_bodies(planter: Planter, secret: str) -> None:
    messages = (
        '"messages": [{"role": "user", "content": "hi"}], "input": "hi", "prompt": "hi", "max_tokens": 5'
    )
    for path in ENDPOINTS:
        for written in (secret, *mistyped(secret)):
            planter.post(f'{{"model": "{written}", {messages}}}', key=secret, path=path)
        for body in (
            secret,
            f'{{"model": "{PREMIUM}", "{secret}": 1, "{secret}": 2}}',
            f'{{"model": "{PREMIUM}", {messages}, "{secret}": NaN}}',
            f'{{"model": ["{secret}"], {messages}}}',
            f'{{"model": "{PREMIUM}", {messages}, "stream": "{secret}"}}',
            f'{{"model": "{PREMIUM}", {messages}, "max_tokens": "{secret}"}}',
            f'{{"model": "{PREMIUM}", "messages": ["{secret}"], "input": {{"{secret}": 1}}, "prompt": 5}}',
            f'{{"models": ["{secret}", "{secret}"], {messages}}}',
        ):
            assert 400 <= planter.post(body, key=secret, path=path) < 500, (path, body[:40])


def plant_in_what_is_no_http(planter: Planter, secret: str) -> None:
    planter.send(secret)
    planter.send(f"GET /v1/models HTTP/1.1 {secret}")
    planter.send("GET /v1/models HTTP/1.1", secret)
    planter.send("GET /v1/models HTTP/1.1", f"X-A: a\n{secret}")
    planter.send("GET /v1/models HTTP/1.1", f"Transfer-Encoding: {secret}")
    planter.send("GET /v1/models HTTP/1.1", f"Content-Length: {secret}")
    planter.send(f"GET http://{secret}/v1/models HTTP/1.1")
    planter.send(f"CONNECT {secret}:443 HTTP/1.1")
    planter.send("POST /v1/chat/completions HTTP/1.1", "Transfer-Encoding: chunked", "", secret, key=secret)


def plant_in_what_the_upstream_says(planter: Planter, secret: str) -> None:
    """An upstream that was sent a key in a body may quote it in whatever it answers."""
    quoted = b'{"error": {"message": "you sent %s", "code": "%s", "param": "%s", "type": "x"}}'
    quoted %= (secret.encode(),) * 3
    fields = f', "max_tokens": 5, "user": "{secret}", "metadata": {{"a": "{secret}"}}'
    garbage = (secret.encode(), b'{"%s": 1}' % secret.encode(), quoted)
    for status in (400, 401, 413, 422, 429, 500, 302):
        head = b"HTTP/1.1 %d No\r\nconnection: close\r\nlocation: /%s\r\nx-a: %s\r\n\r\n"
        planter.upstream.says(head % (status, secret.encode(), secret.encode()), quoted)
        assert planter.chat(key=secret, fields=fields) >= 400
        planter.keep_upstream_healthy()
    for said in garbage:
        planter.upstream.says(said)
        assert planter.chat(key=secret, fields=fields) >= 400
        planter.upstream.answers(said)
        assert planter.chat(key=secret, fields=fields) >= 400
        planter.keep_upstream_healthy()
    # What an upstream streams as its answer is passed on; what it says of a failure is not.
    for said in (garbage[0], quoted):
        for event in (b"data: %s\n\n" % said, said, b"event: error\ndata: %s\n\n" % said):
            planter.upstream.streams(event)
            planter.chat(key=secret, fields=fields + ', "stream": true')
            planter.keep_upstream_healthy()
