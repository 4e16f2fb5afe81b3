"""Whatever is sent: the gateway answers in its shape, never blames itself, and nothing is held or lost."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.gateway.conftest import Stage
from tests.gateway.nothing_happened import ENDPOINT_PATHS, Victim, check_refusal

FUZZ = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
# What any of the endpoints reads. `sandbox` is left out: it may ask for any failure.
# fmt: off
FIELDS = [
    "model", "models", "messages", "prompt", "input", "instructions", "system", "max_tokens",
    "max_completion_tokens", "max_output_tokens", "n", "best_of", "temperature", "top_p", "top_k",
    "frequency_penalty", "presence_penalty", "top_logprobs", "logprobs", "logit_bias", "stream",
    "stream_options", "tools", "tool_choice", "stop", "stop_sequences", "seed", "user", "metadata",
    "response_format", "reasoning", "reasoning_effort", "thinking", "parallel_tool_calls", "dimensions",
    "encoding_format", "store", "previous_response_id", "text", "truncation", "include", "background",
]
# fmt: on
ODD_NUMBERS = [0, -1, 1, 2**31, 2**53 + 1, 2**63, 2**64, -(2**63) - 1, 10**30, 1e308, -0.0, 5e-324, 1.5]
ODD_TEXTS = ["", "\0", "\u2028", "😀", "a" * 300, "tg_live_x", "null", "user", "text"]
leaves = st.one_of(
    st.none(), st.booleans(), st.integers(), st.sampled_from(ODD_NUMBERS), st.sampled_from(ODD_TEXTS)
)
names = st.sampled_from(["role", "type", "content", "text", "name", "function", "image_url", "url", "x"])
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture
def victim(stage: Stage) -> Victim:
    return Victim(stage)


def valid(victim: Victim) -> dict[str, Any]:
    """A body that every endpoint takes."""
    return {
        "model": victim.model.slug,
        "messages": [{"role": "user", "content": "hi"}],
        "prompt": "hi",
        "input": "hi",
        "max_tokens": 2,
    }


@pytest.mark.parametrize("path", ENDPOINT_PATHS)
def test_any_bytes_are_refused_in_the_shape(victim: Victim, path: str) -> None:
    template = json.dumps(valid(victim)).encode()

    @FUZZ
    @given(
        st.one_of(
            st.binary(max_size=64),
            st.tuples(st.integers(0, len(template) - 1), st.integers(1, 9), st.binary(max_size=4)).map(
                # Without its last brace it is never valid, wherever the wound is.
                lambda wound: (template[: wound[0]] + wound[2] + template[wound[0] + wound[1] :])[:-1]
            ),
        )
    )
    def fuzz(body: bytes) -> None:
        check_refusal(victim.stage.post(victim.secret, body, path=path), path)

    with victim.unharmed():
        fuzz()


@pytest.mark.parametrize("path", ENDPOINT_PATHS)
def test_any_json_is_refused_in_the_shape(victim: Victim, path: str) -> None:
    fields = st.dictionaries(
        st.sampled_from([name for name in FIELDS if name not in ("model", "models")]), values
    )

    @FUZZ
    @given(st.one_of(values, fields))
    def fuzz(document: Any) -> None:
        body = json.dumps(document).encode()
        check_refusal(victim.stage.post(victim.secret, body, path=path), path)

    with victim.unharmed():
        fuzz()


@pytest.mark.parametrize("path", ENDPOINT_PATHS)
def test_any_value_of_any_field_is_refused_or_served(victim: Victim, path: str) -> None:
    """The upstream may take what we do not know; then it is served. It is never our own failure."""

    @FUZZ
    @given(st.sampled_from(FIELDS), values)
    def fuzz(name: str, value: Any) -> None:
        body = json.dumps(valid(victim) | {name: value}).encode()
        response = victim.stage.post(victim.secret, body, path=path)
        if response.status_code != 200:
            check_refusal(response, path)

    fuzz()
