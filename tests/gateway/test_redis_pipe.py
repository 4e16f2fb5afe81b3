"""One connection for many commands: answers in order, and a clear word when Redis is away."""

import asyncio
import time
import uuid
from pathlib import Path

import hiredis
import pytest
import redis
from django.conf import settings

from gateway.redis_pipe import RedisAway, RedisPipe
from tests.gateway.conftest import wait_for

ECHO = "return {KEYS[1], ARGV[1]}"
BROKEN = "return redis.call('NOSUCHCOMMAND')"


def run(pipe: RedisPipe, *scripts: tuple[str, str, str]) -> list[object]:
    async def go() -> list[object]:
        try:
            return list(
                await asyncio.gather(*[pipe.run(*script) for script in scripts], return_exceptions=True)
            )
        finally:
            await pipe.close()

    return asyncio.run(go())


def test_many_commands_at_once_get_their_own_answers() -> None:
    answers = run(RedisPipe(settings.REDIS_URL, ECHO), *[(ECHO, f"key{n}", str(n)) for n in range(200)])

    assert answers == [[f"key{n}".encode(), str(n).encode()] for n in range(200)]


def test_a_script_that_redis_cannot_run_counts_as_away() -> None:
    (broken,) = run(RedisPipe(settings.REDIS_URL, BROKEN), (BROKEN, "key", "1"))

    assert isinstance(broken, RedisAway)


def test_what_nobody_waits_for_is_done_before_what_comes_after() -> None:
    count = "return redis.call('INCRBY', KEYS[1], ARGV[1])"
    key = f"test:{uuid.uuid4()}"

    async def go() -> object:
        pipe = RedisPipe(settings.REDIS_URL, count)
        with pytest.raises(RedisAway):
            pipe.tell(count, key, 1)  # nothing is connected yet
        await pipe.run(count, key, 1)
        pipe.tell(count, key, 10)
        answer = await pipe.run(count, key, 100)
        await pipe.close()
        return answer

    assert asyncio.run(go()) == 111


def test_whoever_may_not_have_been_heard_says_so_on_the_next_connection() -> None:
    greet, key = "redis.call('RPUSH', KEYS[1], ARGV[1])", f"test:{uuid.uuid4()}"

    async def go() -> None:
        pipe = RedisPipe(settings.REDIS_URL, ECHO, BROKEN, greeting=(greet, key))

        async def fail() -> None:
            with pytest.raises(RedisAway):
                await pipe.run(BROKEN, key, "1")

        await pipe.run(ECHO, key, "first")
        await fail()
        await pipe.run(ECHO, key, "nothing was told")
        await fail()
        with pytest.raises(RedisAway):
            pipe.tell(ECHO, key, "there is no connection")
        await pipe.run(ECHO, key, "1")
        pipe.tell(BROKEN, key, "refused")
        await asyncio.to_thread(wait_for, lambda: not pipe.is_connected)
        await pipe.run(ECHO, key, "1")
        await fail()
        await pipe.run(ECHO, key, "all of it was said before")
        await pipe.close()

    asyncio.run(go())

    assert redis.Redis.from_url(settings.REDIS_URL).lrange(key, 0, -1) == [b"0", b"0", b"1", b"1", b"0"]


def test_what_was_cut_off_before_its_answer_may_not_have_been_heard(tmp_path: Path) -> None:
    said: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        commands = hiredis.Reader()
        while piece := await reader.read(4096):
            commands.feed(piece)
            while command := commands.gets():
                if command[0] == b"EVAL":
                    said.append(command[-1])
                if command[-1] == b"cut":
                    writer.close()
                    return
                writer.write(b"+OK\r\n")

    async def go() -> None:
        server = await asyncio.start_unix_server(serve, tmp_path / "redis")
        pipe = RedisPipe(f"unix://{tmp_path}/redis", ECHO, greeting=("return 1", "key"))
        for _ in range(2):
            with pytest.raises(RedisAway):
                await pipe.run(ECHO, "key", "cut")  # it is who asked that learns of it
        await pipe.run(ECHO, "key", "1")
        pipe.tell(ECHO, "key", "cut")
        await asyncio.to_thread(wait_for, lambda: not pipe.is_connected)
        await pipe.run(ECHO, "key", "1")
        await pipe.close()
        server.close()

    asyncio.run(go())

    assert said == [b"0", b"0", b"0", b"1"]


def test_what_was_to_be_told_while_it_greeted_is_said_in_another_greeting(tmp_path: Path) -> None:
    said: list[bytes] = []
    is_greeting, may_answer = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        commands = hiredis.Reader()
        while piece := await reader.read(4096):
            commands.feed(piece)
            while command := commands.gets():
                if command[0] == b"EVAL":
                    said.append(command[-1])
                    is_greeting.set()
                    await may_answer.wait()
                writer.write(b"+OK\r\n")

    async def go() -> None:
        server = await asyncio.start_unix_server(serve, tmp_path / "redis")
        pipe = RedisPipe(f"unix://{tmp_path}/redis", ECHO, greeting=("return 1", "key"))
        asking = asyncio.ensure_future(pipe.run(ECHO, "key", "1"))
        await is_greeting.wait()
        with pytest.raises(RedisAway):
            pipe.tell(ECHO, "key", "2")
        may_answer.set()
        await asking
        await pipe.close()
        server.close()

    asyncio.run(go())

    assert said == [b"0", b"1"]


def test_after_a_failure_it_connects_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    async def go() -> object:
        pipe = RedisPipe(settings.REDIS_URL, ECHO, BROKEN)
        with pytest.raises(RedisAway):
            await pipe.run(BROKEN, "key", "1")
        return await pipe.run(ECHO, "key", "1")

    assert asyncio.run(go()) == [b"key", b"1"]


@pytest.mark.parametrize(
    "url", ["unix:///nowhere/redis.sock", "redis://127.0.0.1:1/0", "rediss://127.0.0.1:1/0"]
)
def test_nobody_there_is_told_at_once(url: str) -> None:
    (answer,) = run(RedisPipe(url, ECHO), (ECHO, "key", "1"))

    assert isinstance(answer, RedisAway)


def test_silence_is_given_up_after_a_tenth_of_a_second(tmp_path: Path) -> None:
    async def go() -> float:
        server = await asyncio.start_unix_server(
            lambda _reader, _writer: asyncio.sleep(5), tmp_path / "silent"
        )
        started = time.monotonic()
        with pytest.raises(RedisAway):
            await RedisPipe(f"unix://{tmp_path}/silent?db=1", ECHO).run(ECHO, "key", "1")
        took = time.monotonic() - started
        server.close()
        return took

    assert 0.05 < asyncio.run(go()) < 1


def test_an_event_loop_that_is_late_itself_does_not_blame_redis() -> None:
    async def go() -> object:
        pipe = RedisPipe(settings.REDIS_URL, ECHO)
        await pipe.run(ECHO, "key", "0")
        asking = asyncio.get_running_loop().create_task(pipe.run(ECHO, "key", "1"))
        await asyncio.sleep(0)
        time.sleep(0.3)  # noqa: ASYNC251 - the event loop is late, which is the point
        return await asking

    assert asyncio.run(go()) == [b"key", b"1"]
