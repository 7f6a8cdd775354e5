"""The openai client: chat, streaming with and without usage, embeddings, models, tools, errors.
Arguments: host:port."""

import sys

import openai

client = openai.OpenAI(base_url=f"http://{sys.argv[1]}/v1", api_key="none", max_retries=0)
asked = {"model": "tiny", "messages": [{"role": "user", "content": "say three words"}]}
tools = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
print(client.chat.completions.create(**asked).choices[0].message.content)
for options in (None, {"include_usage": True}):
    more = {"stream_options": options} if options else {}
    print([chunk.model_dump_json() for chunk in client.chat.completions.create(
        **asked, stream=True, **more)])  # fmt: skip
print(client.chat.completions.create(**asked, tools=tools).choices[0].message.tool_calls)
print(client.completions.create(model="tiny", prompt="a").choices[0].text)
print(client.embeddings.create(model="tiny", input=["a", "b"]).data[1].embedding)
print([model.id for model in client.models.list()])
# ("broken" comes last: the client leaves at the error, so that its answer may end unread.)
for model in ("none", "broken"):
    try:
        print(list(client.chat.completions.create(**(asked | {"model": model}), stream=True)))
    except openai.APIError as error:
        print(type(error).__name__, error.code)
