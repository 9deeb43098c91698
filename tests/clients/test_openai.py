"""The official `openai` package, unchanged but for base URL and key."""

import openai
import pytest
from conftest import INJECTION, MODEL, TOOL_PROMPT, URL, WEATHER_TOOL, say, secret


@pytest.fixture
def client(api_key):
    return connect(api_key)


def connect(key, **options):
    return openai.OpenAI(base_url=f"{URL}/v1", api_key=key, timeout=60, **options)


def connect_counting(key, **options):
    """A client, and the list of the requests that it sends, retries included."""
    sent = []
    http = openai.DefaultHttpx2Client(event_hooks={"request": [sent.append]})
    return connect(key, http_client=http, **options), sent


def ask(client, text="Say hello.", model=MODEL, max_tokens=8, **options):
    return client.chat.completions.create(model=model, messages=say(text), max_tokens=max_tokens, **options)


def test_chat(client):
    answer = ask(client)
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage.prompt_tokens > 0 and 0 < answer.usage.completion_tokens <= 8


def test_chat_stream_without_usage(client):
    chunks = list(ask(client, stream=True))
    assert "".join(c.choices[0].delta.content or "" for c in chunks)
    assert chunks[-1].choices[0].finish_reason in ("stop", "length")
    assert all(c.usage is None for c in chunks), "usage was not asked for"


def test_chat_stream_with_usage(client):
    *_, last = ask(client, stream=True, stream_options={"include_usage": True})
    assert last.choices == []
    assert 0 < last.usage.completion_tokens <= 8


def test_stream_arrives_piece_by_piece(client):
    pieces = [c for c in ask(client, "Count from one to twenty.", stream=True, max_tokens=24) if c.choices[0].delta.content]
    assert len(pieces) > 3


@pytest.mark.parametrize("stream", [False, True])
def test_tools(client, stream):
    answer = ask(client, TOOL_PROMPT, max_tokens=60, temperature=0, tools=[WEATHER_TOOL], stream=stream)
    if stream:
        deltas = [call for c in answer if c.choices for call in c.choices[0].delta.tool_calls or []]
        assert deltas[0].function.name == "get_weather"
        assert "Paris" in "".join(d.function.arguments or "" for d in deltas)
    else:
        call = answer.choices[0].message.tool_calls[0]
        assert call.function.name == "get_weather" and "Paris" in call.function.arguments


def test_json_mode(client):
    answer = ask(client, "Give me a JSON object.", max_tokens=32, response_format={"type": "json_object"})
    assert answer.choices[0].message.content.lstrip().startswith("{")


def test_completions(client):
    answer = client.completions.create(model=MODEL, prompt="The capital of France is", max_tokens=4)
    assert answer.choices[0].text


def test_completions_stream(client):
    chunks = client.completions.create(model=MODEL, prompt="One, two, three,", max_tokens=6, stream=True)
    assert "".join(c.choices[0].text for c in chunks if c.choices)


def test_responses(client):
    answer = client.responses.create(model=MODEL, input="Say hello.", max_output_tokens=8)
    assert answer.output_text and answer.usage.output_tokens <= 8


def test_responses_stream(client):
    events = list(client.responses.create(model=MODEL, input="Say hello.", max_output_tokens=8, stream=True))
    assert any(e.type == "response.output_text.delta" for e in events)
    assert events[-1].type in ("response.completed", "response.incomplete")


@pytest.mark.parametrize("form", ["float", "base64"])
def test_embeddings(client, form):
    answer = client.embeddings.create(model=MODEL, input=["a cat", "a dog"], encoding_format=form)
    assert [item.index for item in answer.data] == [0, 1]
    assert len(answer.data[0].embedding) > 100


def test_models(client):
    assert MODEL in [model.id for model in client.models.list()]


def test_models_are_filtered():
    names = [model.id for model in connect(secret("API_KEY")).models.list()]
    assert not any(name.startswith("forbidden-model") for name in names)


def test_llm_token(llm_token):
    """The scoped token travels in its own header; a request carries one credential, so the key's header is left out."""
    client = connect("unused", default_headers={"X-LLM-Token": llm_token})
    without_key = {"extra_headers": {"Authorization": openai.omit}}
    assert ask(client, **without_key).choices[0].message.content
    assert list(ask(client, stream=True, **without_key))


def test_llm_token_as_key(llm_token):
    assert ask(connect(llm_token)).choices[0].message.content


def test_llm_token_is_for_one_model(llm_token):
    with pytest.raises(openai.PermissionDeniedError):
        ask(connect(llm_token, max_retries=0), model="llama2")


def refused(error, key, text="Say hello.", **options):
    """The exception of a request that no retry can mend: the client must have sent it once."""
    client, sent = connect_counting(key, max_retries=3)
    with pytest.raises(error) as caught:
        ask(client, text, **options)
    assert len(sent) == 1, "a refusal that stays was retried"
    assert caught.value.response.headers["x-request-id"]
    return caught.value


def test_wrong_key():
    secret("API_KEY")
    assert refused(openai.AuthenticationError, "sk_wrong").status_code == 401


def test_missing_scope():
    assert refused(openai.PermissionDeniedError, secret("MODELS_ONLY_KEY")).code == "insufficient_scope"


def test_forbidden_model():
    error = refused(openai.PermissionDeniedError, secret("API_KEY"), model="forbidden-model")
    assert error.code == "model_not_allowed"


@pytest.mark.parametrize("stream", [False, True])
def test_blocked_prompt(stream):
    error = refused(openai.BadRequestError, secret("API_KEY"), INJECTION, stream=stream)
    assert error.code == "content_filter"
    assert "ignore all previous" not in str(error).lower()


def test_spent_quota_is_not_retried():
    assert refused(openai.RateLimitError, secret("SPENT_KEY")).code == "insufficient_quota"


def test_rate_limit_is_retried_after_the_wait_that_it_names():
    """RATE_LIMITED_KEY may ask once in 3 s: the second request is refused, and the client's own retry succeeds."""
    client, sent = connect_counting(secret("RATE_LIMITED_KEY"), max_retries=3)
    ask(client, max_tokens=1)
    ask(client, max_tokens=1)
    assert len(sent) == 3, "two requests and one retry"
    with pytest.raises(openai.RateLimitError) as caught:
        ask(client.with_options(max_retries=0), max_tokens=1)
    assert caught.value.code == "rate_limit_exceeded"
    assert 0 < int(caught.value.response.headers["retry-after"]) <= 60


def test_upstream_death_in_mid_stream():
    """The model `breaks` sends two pieces and then drops the connection."""
    stream = ask(connect(secret("API_KEY"), max_retries=0), model="breaks", stream=True)
    pieces = []
    with pytest.raises(openai.APIError):
        for chunk in stream:
            pieces.append(chunk)
    assert pieces, "what came before the failure is delivered"
    assert all(p.choices[0].finish_reason is None for p in pieces if p.choices), "no forged end"
