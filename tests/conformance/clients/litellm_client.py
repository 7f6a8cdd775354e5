"""LiteLLM as a client: completion whole and streamed, tools, text completion, embedding, errors.
Arguments: host:port."""

import os
import sys

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
import litellm

litellm.telemetry = False
asked = {"api_base": f"http://{sys.argv[1]}/v1", "api_key": "none", "max_retries": 0}
chat = asked | {"messages": [{"role": "user", "content": "say three words"}]}
tools = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
told = litellm.completion(model="openai/tiny", **chat)
print(told.choices[0].message.content, told.usage.total_tokens)
for options in (None, {"include_usage": True}):
    stream = litellm.completion(model="openai/tiny", stream=True, stream_options=options, **chat)
    print([chunk.choices[0].delta.content if chunk.choices else None for chunk in stream])
print(litellm.completion(model="openai/tiny", tools=tools, **chat).choices[0].message.tool_calls)
print(
    litellm.text_completion(model="text-completion-openai/tiny", prompt="a", **asked)
    .choices[0]
    .text
)
told = litellm.embedding(model="openai/tiny", input=["a", "b"], **asked)
print([item["embedding"] for item in told.data])
try:
    litellm.completion(model="openai/none", **chat)
except litellm.exceptions.NotFoundError as error:
    print(type(error).__name__, error.status_code)
