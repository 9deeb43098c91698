"""LangChain's two packages over the same two clients."""

import ollama
import openai
import pytest
from conftest import INJECTION, MODEL, TOOL_PROMPT, URL, WEATHER_TOOL, secret
from langchain_ollama import ChatOllama, OllamaEmbeddings
from langchain_openai import ChatOpenAI, OpenAIEmbeddings


def chat_openai(key, **options):
    return ChatOpenAI(model=MODEL, base_url=f"{URL}/v1", api_key=key, timeout=60, **{"max_tokens": 8, **options})


def chat_ollama(key, **options):
    kwargs = {"headers": {"Authorization": f"Bearer {key}"}, "timeout": 60}
    return ChatOllama(model=MODEL, base_url=URL, client_kwargs=kwargs, **{"num_predict": 8, **options})


@pytest.fixture(params=[chat_openai, chat_ollama], ids=["openai", "ollama"])
def chat(request):
    return request.param


def test_invoke(chat, api_key):
    answer = chat(api_key).invoke("Say hello.")
    assert answer.content
    assert 0 < answer.usage_metadata["output_tokens"] <= 8


def test_stream(chat, api_key):
    pieces = list(chat(api_key).stream("Say hello."))
    assert len(pieces) > 1 and "".join(str(p.content) for p in pieces)


def test_batch(chat, api_key):
    assert all(answer.content for answer in chat(api_key).batch(["Say hello.", "Say goodbye."]))


def test_tools(chat, api_key):
    limit = {"max_tokens": 60} if chat is chat_openai else {"num_predict": 60}
    answer = chat(api_key, temperature=0, **limit).bind_tools([WEATHER_TOOL]).invoke(TOOL_PROMPT)
    assert answer.tool_calls[0]["name"] == "get_weather"
    assert answer.tool_calls[0]["args"] == {"city": "Paris"}


def test_openai_embeddings(api_key):
    # check_embedding_ctx_length off: else LangChain sends token numbers of OpenAI's own models instead of text.
    embed = OpenAIEmbeddings(model=MODEL, base_url=f"{URL}/v1", api_key=api_key, check_embedding_ctx_length=False)
    assert len(embed.embed_documents(["a cat", "a dog"])) == 2


def test_ollama_embeddings(api_key):
    embed = OllamaEmbeddings(model=MODEL, base_url=URL, client_kwargs={"headers": {"Authorization": f"Bearer {api_key}"}})
    assert len(embed.embed_query("a cat")) > 100


def test_llm_token(llm_token):
    client = ChatOllama(model=MODEL, base_url=URL, num_predict=8, client_kwargs={"headers": {"X-LLM-Token": llm_token}})
    assert client.invoke("Say hello.").content


def test_blocked_prompt_openai():
    with pytest.raises(openai.BadRequestError) as caught:
        chat_openai(secret("API_KEY")).invoke(INJECTION)
    assert caught.value.code == "content_filter"


def test_blocked_prompt_ollama():
    with pytest.raises(ollama.ResponseError) as caught:
        chat_ollama(secret("API_KEY")).invoke(INJECTION)
    assert caught.value.status_code == 400


def test_wrong_key_openai():
    secret("API_KEY")
    with pytest.raises(openai.AuthenticationError):
        chat_openai("sk_wrong").invoke("Say hello.")


def test_wrong_key_ollama():
    secret("API_KEY")
    with pytest.raises(ollama.ResponseError) as caught:
        chat_ollama("sk_wrong").invoke("Say hello.")
    assert caught.value.status_code == 401
