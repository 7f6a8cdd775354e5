"""A Triton-shaped server, written from its protocol documents. Arguments: HTTP port, gRPC port.

Model `echo` gives each input back as `OUT_<name>`, byte for byte, so that nothing about a tensor's
bytes may change on the way; model `sum` keeps a running sum by sequence. JSON, the binary tensor
extension, raw bodies and both codings, over HTTP; the same messages over gRPC.
"""

import asyncio
import gzip
import json
import struct
import sys
import zlib

import grpc
import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from tritonclient.grpc import service_pb2 as messages
from tritonclient.grpc.service_pb2_grpc import (
    GRPCInferenceServiceServicer,
    add_GRPCInferenceServiceServicer_to_server,
)

TYPES = {"BOOL": "?", "INT8": "<i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8", "UINT8": "<u1",
         "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8", "FP16": "<f2", "FP32": "<f4",
         "FP64": "<f8", "BF16": "<u2"}  # fmt: skip
EXTENSIONS = ["binary_tensor_data", "sequence", "model_repository", "statistics", "logging"]
LENGTH = "Inference-Header-Content-Length"
MODELS = ("echo", "sum")
sums = {}
regions = {}


class Wrong(Exception):
    pass


def flat(value):
    return [item for part in value for item in flat(part)] if isinstance(value, list) else [value]


def to_bytes(tensor):
    """A JSON tensor's elements as the binary extension has them."""
    values = flat(tensor["data"])
    if tensor["datatype"] == "BYTES":
        encoded = [value.encode() for value in values]
        return b"".join(struct.pack("<I", len(value)) + value for value in encoded)
    if tensor["datatype"] in ("FP16", "BF16"):
        raise Wrong(f"sending {tensor['datatype']} data via JSON is not supported")
    return np.array(values, TYPES[tensor["datatype"]]).tobytes()


def to_values(datatype, raw):
    if datatype == "BYTES":
        found = []
        while raw:
            (length,) = struct.unpack_from("<I", raw)
            found.append(raw[4 : 4 + length].decode())
            raw = raw[4 + length :]
        return found
    if datatype in ("FP16", "BF16"):
        raise Wrong(f"sending {datatype} data via JSON is not supported")
    return np.frombuffer(raw, TYPES[datatype]).tolist()


def answer_of(model, tensors, parameters):
    """Name, datatype, shape and bytes of each output."""
    if model == "echo":
        return [(f"OUT_{name}", kind, shape, raw) for name, kind, shape, raw in tensors]
    ((_, kind, shape, raw),) = tensors
    identity = parameters.get("sequence_id", 0)
    if not identity:
        raise Wrong("inference request to model 'sum' must specify a non-zero correlation ID")
    if parameters.get("sequence_start"):
        sums[identity] = 0
    if identity not in sums:
        raise Wrong(f"sequence {identity} must specify the START flag on its first request")
    sums[identity] += int(np.frombuffer(raw, TYPES[kind]).sum())
    total = sums.pop(identity) if parameters.get("sequence_end") else sums[identity]
    return [("TOTAL", "INT64", [1], struct.pack("<q", total))]


def read(body, length):
    """Tensors, the document, and whether a raw body asks for bytes."""
    if length == "0":
        document = {"parameters": {"binary_data_output": True}}
        return [("INPUT", "UINT8", [1, len(body)], body)], document
    end = len(body) if length is None else int(length)
    document, rest = json.loads(body[:end]), body[end:]
    tensors = []
    for item in document["inputs"]:
        size = item.get("parameters", {}).get("binary_data_size")
        raw = to_bytes(item) if size is None else rest[:size]
        rest = rest if size is None else rest[size:]
        tensors.append((item["name"], item["datatype"], item["shape"], raw))
    if rest:
        raise Wrong("unexpected additional input data")
    return tensors, document


def write(model, document, outputs):
    """The answer's bytes, and how many of them are JSON where others follow."""
    everything = document.get("parameters", {}).get("binary_data_output", False)
    asked = {item["name"]: item.get("parameters", {}) for item in document.get("outputs", ())}
    listed, pieces = [], []
    for name, kind, shape, raw in outputs:
        if asked and name not in asked:
            continue
        item = {"name": name, "datatype": kind, "shape": shape}
        if asked.get(name, {}).get("binary_data", everything):
            item["parameters"] = {"binary_data_size": len(raw)}
            pieces.append(raw)
        else:
            item["data"] = to_values(kind, raw)
        listed.append(item)
    told = {"id": document["id"]} if "id" in document else {}
    told |= {"model_name": model, "model_version": "1", "outputs": listed}
    head = json.dumps(told, separators=(",", ":")).encode()
    return head + b"".join(pieces), len(head) if pieces else None


async def infer(request):
    model = request.path_params["model"]
    body = await request.body()
    coding = request.headers.get("content-encoding")
    try:
        if model not in MODELS:
            raise Wrong(f"Request for unknown model: '{model}' is not found")
        body = {"gzip": gzip.decompress, "deflate": zlib.decompress}.get(coding, bytes)(body)
        tensors, document = read(body, request.headers.get(LENGTH))
        outputs = answer_of(model, tensors, document.get("parameters", {}))
        given, length = write(model, document, outputs)
    except (Wrong, ValueError, KeyError) as error:
        return JSONResponse({"error": str(error)}, 400)
    kind = "application/json" if length is None else "application/octet-stream"
    headers = {"Content-Type": kind} | ({} if length is None else {LENGTH: str(length)})
    for coding, pack in (("gzip", lambda data: gzip.compress(data, mtime=0)),
                         ("deflate", zlib.compress)):  # fmt: skip
        if coding in request.headers.get("accept-encoding", ""):
            return Response(pack(given), headers=headers | {"Content-Encoding": coding})
    return Response(given, headers=headers)


def tensor(name, kind):
    return {"name": name, "datatype": kind, "shape": [-1]}


async def metadata(request):
    model = request.path_params["model"]
    if model not in MODELS:
        return JSONResponse({"error": f"Request for unknown model: '{model}' is not found"}, 400)
    told = {"name": model, "versions": ["1"], "platform": "python"}
    inputs, outputs = [tensor("INPUT", "UINT8")], [tensor("TOTAL", "INT64")]
    return JSONResponse(told | {"inputs": inputs, "outputs": outputs})


async def ready(request):
    return Response(status_code=200 if request.path_params["model"] in MODELS else 400)


async def well(_):
    return Response()


async def server(_):
    return JSONResponse({"name": "triton", "version": "2.0.0", "extensions": EXTENSIONS})


async def index(_):
    return JSONResponse([{"name": m, "version": "1", "state": "READY"} for m in MODELS])


async def said(request):
    """Every other question: what was asked, so that a difference on the way shows."""
    body = await request.body()
    return JSONResponse({"asked": request.url.path, "with": body.decode()})


async def region(request):
    name, verb = request.path_params["region"], request.path_params["verb"]
    if verb == "register":
        regions[name] = json.loads(await request.body())
    elif verb == "unregister":
        regions.pop(name, None)
    else:
        return JSONResponse([{"name": name} | regions[name]] if name in regions else [])
    return Response()


async def generate(request):
    asked = await request.json()
    words = [f"{word} " for word in asked["text_input"].split()]
    if request.url.path.endswith("generate"):
        return JSONResponse({"model_name": "echo", "text_output": "".join(words)})

    async def events():
        for word in words:
            yield f"data: {json.dumps({'model_name': 'echo', 'text_output': word})}\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


MODEL = "/v2/models/{model}"
routes = [
    Route("/v2", server),
    Route("/v2/health/live", well),
    Route("/v2/health/ready", well),
    Route("/v2/repository/index", index, methods=["POST"]),
    Route("/v2/repository/models/{model}/load", well, methods=["POST"]),
    Route("/v2/repository/models/{model}/unload", well, methods=["POST"]),
    Route("/v2/systemsharedmemory/region/{region}/{verb}", region, methods=["GET", "POST"]),
    Route("/v2/systemsharedmemory/status", said),
    Route("/v2/models/stats", said),
    *(
        route
        for at in (MODEL, MODEL + "/versions/1")
        for route in (
            Route(at, metadata),
            Route(at + "/ready", ready),
            Route(at + "/infer", infer, methods=["POST"]),
            Route(at + "/config", said),
            Route(at + "/stats", said),
            Route(at + "/trace/setting", said, methods=["GET", "POST"]),
            Route(at + "/generate", generate, methods=["POST"]),
            Route(at + "/generate_stream", generate, methods=["POST"]),
        )
    ),
    Route("/v2/trace/setting", said, methods=["GET", "POST"]),
    Route("/v2/logging", said, methods=["GET", "POST"]),
]


class Service(GRPCInferenceServiceServicer):
    async def ServerLive(self, request, context):
        return messages.ServerLiveResponse(live=True)

    async def ServerReady(self, request, context):
        return messages.ServerReadyResponse(ready=True)

    async def ModelReady(self, request, context):
        return messages.ModelReadyResponse(ready=request.name in MODELS)

    async def ServerMetadata(self, request, context):
        return messages.ServerMetadataResponse(
            name="triton", version="2.0.0", extensions=EXTENSIONS
        )

    async def ModelMetadata(self, request, context):
        return messages.ModelMetadataResponse(name=request.name, versions=["1"], platform="python")

    async def RepositoryIndex(self, request, context):
        entries = [{"name": m, "version": "1", "state": "READY"} for m in MODELS]
        return messages.RepositoryIndexResponse(models=entries)

    async def ModelStatistics(self, request, context):
        return messages.ModelStatisticsResponse(
            model_stats=[{"name": request.name, "inference_count": 7}]
        )

    async def ModelInfer(self, request, context):
        parameters = {key: getattr(value, value.WhichOneof("parameter_choice"))
                      for key, value in request.parameters.items()}  # fmt: skip
        tensors = [
            (item.name, item.datatype, list(item.shape), raw)
            for item, raw in zip(request.inputs, request.raw_input_contents, strict=True)
        ]
        try:
            outputs = answer_of(request.model_name, tensors, parameters)
        except Wrong as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        answer = messages.ModelInferResponse(
            model_name=request.model_name, model_version="1", id=request.id
        )
        for name, kind, shape, raw in outputs:
            answer.outputs.add(name=name, datatype=kind, shape=shape)
            answer.raw_output_contents.append(raw)
        return answer


async def serve(http, called):
    largest = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    service = grpc.aio.server(options=largest)
    add_GRPCInferenceServiceServicer_to_server(Service(), service)
    service.add_insecure_port(f"127.0.0.1:{called}")
    await service.start()
    app = Starlette(routes=routes)
    config = uvicorn.Config(app, host="127.0.0.1", port=http, date_header=False,
                            log_level="warning", server_header=False)  # fmt: skip
    await uvicorn.Server(config).serve()
    await service.stop(1)


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2])))
