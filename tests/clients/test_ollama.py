"""The official `ollama` package, unchanged but for host and key."""

import ollama
import pytest
from conftest import INJECTION, MODEL, TOOL_PROMPT, URL, WEATHER_TOOL, say, secret

SHORT = {"num_predict": 8}


@pytest.fixture
def client(api_key):
    return connect(api_key)


def connect(key):
    return ollama.Client(host=URL, headers={"Authorization": f"Bearer {key}"}, timeout=60)


def check_end(answer):
    assert answer.done and answer.done_reason in ("stop", "length")
    assert answer.prompt_eval_count > 0 and 0 < answer.eval_count <= 8
    assert answer.eval_duration > 0


def test_chat(client):
    answer = client.chat(model=MODEL, messages=say(), options=SHORT)
    assert answer.message.content
    check_end(answer)


def test_chat_stream(client):
    *pieces, last = client.chat(model=MODEL, messages=say(), options=SHORT, stream=True)
    assert "".join(p.message.content for p in pieces)
    assert not any(p.done for p in pieces)
    check_end(last)


def test_generate(client):
    answer = client.generate(model=MODEL, prompt="Say hello.", options=SHORT)
    assert answer.response
    check_end(answer)


def test_generate_stream(client):
    *pieces, last = client.generate(model=MODEL, prompt="Say hello.", system="Be brief.", options=SHORT, stream=True)
    assert "".join(p.response for p in pieces)
    check_end(last)


@pytest.mark.parametrize("stream", [False, True])
def test_tools(client, stream):
    options = {"num_predict": 60, "temperature": 0}
    answer = client.chat(model=MODEL, messages=say(TOOL_PROMPT), tools=[WEATHER_TOOL], options=options, stream=stream)
    calls = [c for part in (answer if stream else [answer]) for c in part.message.tool_calls or []]
    assert calls[0].function.name == "get_weather"
    assert calls[0].function.arguments == {"city": "Paris"}


def test_format_json(client):
    answer = client.chat(model=MODEL, messages=say("Give me a JSON object."), format="json", options={"num_predict": 32})
    assert answer.message.content.lstrip().startswith("{")


def test_embed(client):
    answer = client.embed(model=MODEL, input=["a cat", "a dog"])
    assert len(answer.embeddings) == 2 and len(answer.embeddings[0]) > 100


def test_embeddings(client):
    assert len(client.embeddings(model=MODEL, prompt="a cat").embedding) > 100


def test_list(client):
    assert MODEL in [model.model for model in client.list().models]


def test_list_is_filtered():
    names = [model.model for model in connect(secret("API_KEY")).list().models]
    assert not any(name.startswith("forbidden-model") for name in names)


def test_show(client):
    assert client.show(MODEL).details.format == "gguf"


def test_ps(client):
    client.generate(model=MODEL, prompt="Hi", options={"num_predict": 1})
    assert MODEL in [model.model for model in client.ps().models]


def test_llm_token(llm_token):
    client = ollama.Client(host=URL, headers={"X-LLM-Token": llm_token}, timeout=60)
    assert client.chat(model=MODEL, messages=say(), options=SHORT).message.content
    assert list(client.generate(model=MODEL, prompt="Hi", options=SHORT, stream=True))


def status(key, text="Say hello.", model=MODEL, stream=False):
    with pytest.raises(ollama.ResponseError) as caught:
        answer = connect(key).chat(model=model, messages=say(text), options=SHORT, stream=stream)
        list(answer)
    assert caught.value.error
    return caught.value.status_code


def test_wrong_key():
    secret("API_KEY")
    assert status("sk_wrong") == 401


def test_missing_scope():
    assert status(secret("MODELS_ONLY_KEY")) == 403


def test_forbidden_model():
    assert status(secret("API_KEY"), model="forbidden-model") == 403


@pytest.mark.parametrize("stream", [False, True])
def test_blocked_prompt(stream):
    assert status(secret("API_KEY"), INJECTION, stream=stream) == 400


def test_spent_quota():
    assert status(secret("SPENT_KEY")) == 429


@pytest.mark.parametrize("call", ["pull", "push", "delete"])
def test_management_is_refused(call):
    with pytest.raises(ollama.ResponseError) as caught:
        getattr(connect(secret("API_KEY")), call)(MODEL)
    assert caught.value.status_code in (403, 404)


def test_upstream_death_in_mid_stream():
    """The model `breaks` sends two pieces and then drops the connection."""
    pieces = []
    with pytest.raises(ollama.ResponseError):
        for piece in connect(secret("API_KEY")).chat(model="breaks", messages=say(), stream=True):
            pieces.append(piece)
    assert pieces and not any(p.done for p in pieces)
