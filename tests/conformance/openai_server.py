"""A small server that speaks OpenAI's protocol, from its published reference. Argument: port.

It makes words, not sense: what matters is that every shape of answer goes over the wire."""

import json
import sys

import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

WORDS = ("one ", "two ", "three")
USAGE = {"prompt_tokens": 4, "completion_tokens": 3, "total_tokens": 7}


def refuse(model):
    words = f"The model `{model}` does not exist"
    error = {"message": words, "type": "invalid_request_error", "param": "model",
             "code": "model_not_found"}  # fmt: skip
    return JSONResponse({"error": error}, 404)


def piece(delta, finish=None, **more):
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    document = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "tiny",
                "choices": choices}  # fmt: skip
    return f"data: {json.dumps(document | more)}\n\n"


async def events(asked):
    yield piece({"role": "assistant", "content": ""})
    for word in WORDS:
        yield piece({"content": word})
        if asked["model"] == "broken":
            yield 'data: {"error": {"message": "overloaded", "code": "overloaded"}}\n\n'
            return
    yield piece({}, "stop")
    if (asked.get("stream_options") or {}).get("include_usage"):
        yield piece(None, usage=USAGE)
    yield "data: [DONE]\n\n"


async def chat(request):
    asked = await request.json()
    if asked["model"] not in ("tiny", "broken"):
        return refuse(asked["model"])
    if asked.get("stream"):
        return StreamingResponse(events(asked), media_type="text/event-stream")
    message = {"role": "assistant", "content": "".join(WORDS)}
    finish = "stop"
    if asked.get("tools"):
        call = {"id": "t1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
        message, finish = message | {"content": None, "tool_calls": [call]}, "tool_calls"
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return JSONResponse({"id": "c1", "object": "chat.completion", "created": 1, "model": "tiny",
                         "choices": [choice], "usage": USAGE})  # fmt: skip


async def completions(request):
    choice = {"index": 0, "text": "".join(WORDS), "finish_reason": "stop", "logprobs": None}
    return JSONResponse({"id": "c2", "object": "text_completion", "created": 1, "model": "tiny",
                         "choices": [choice], "usage": USAGE})  # fmt: skip


async def embeddings(request):
    asked = await request.json()
    data = [{"object": "embedding", "index": n, "embedding": [0.5, n]}
            for n, _ in enumerate(asked["input"])]  # fmt: skip
    usage = {"prompt_tokens": 2, "total_tokens": 2}
    return JSONResponse({"object": "list", "data": data, "model": "tiny", "usage": usage})


async def models(request):
    return JSONResponse({"object": "list", "data": [
        {"id": "tiny", "object": "model", "created": 1, "owned_by": "us"}]})  # fmt: skip


routes = [
    Route("/v1/chat/completions", chat, methods=["POST"]),
    Route("/v1/completions", completions, methods=["POST"]),
    Route("/v1/embeddings", embeddings, methods=["POST"]),
    Route("/v1/models", models),
]
if __name__ == "__main__":
    uvicorn.run(Starlette(routes=routes), host="127.0.0.1", port=int(sys.argv[1]),
                log_level="warning", date_header=False, server_header=False)  # fmt: skip
