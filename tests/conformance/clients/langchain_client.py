"""LangChain's ChatOpenAI and OpenAIEmbeddings: whole, streamed, with tools, structured, batched,
errors. Arguments: host:port."""

import asyncio
import sys

import openai
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings

asked = {"base_url": f"http://{sys.argv[1]}/v1", "api_key": "none", "max_retries": 0}
model = ChatOpenAI(model="tiny", **asked)


@tool
def look(where: str) -> str:
    """Look there."""
    return where


told = model.invoke("say three words")
print(told.content, told.usage_metadata)
print([chunk.content for chunk in model.stream("say three words")])
print([chunk.content for chunk in ChatOpenAI(model="tiny", stream_usage=True, **asked).stream("a")])
print(model.bind_tools([look]).invoke("look").tool_calls)
print([item.content for item in model.batch(["a", "b"], config={"max_concurrency": 1})])


async def story():
    print([chunk.content async for chunk in model.astream("say three words")])
    print((await model.ainvoke("say three words")).content)


asyncio.run(story())
embeddings = OpenAIEmbeddings(model="tiny", check_embedding_ctx_length=False, **asked)
print(embeddings.embed_documents(["a", "b"]), embeddings.embed_query("c"))
try:
    ChatOpenAI(model="none", **asked).invoke("a")
except openai.APIError as error:
    print(type(error).__name__, error.code)
