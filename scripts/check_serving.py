#!/usr/bin/env python3
"""Asks a server of halfstep by tritonclient, over HTTP and gRPC: every datatype bit for bit, every route, every error; then by forty clients with the
largest bodies, and looks at its memory.

    cargo build -p halfstep-serve --example echo
    python3 scripts/check_serving.py target/debug/examples/echo [--record FILE]

The server is the example `echo`, which gives back what it is sent. tritonclient comes from PyPI into target/tritonclient, with the
versions of scripts/requirements/tritonclient.txt (190 MB). What cannot run here is skipped and named, and the exit code is then 0 all
the same; it is 1 where the two disagree. `--record` writes what was sent and answered, for the test `peer` of the crate `serve`.
"""

import http.client
import json
import pathlib
import subprocess
import sys

from environment import python

faults = []


def expect(what, agrees, found=""):
    if not agrees:
        print(f"NOT AS EXPECTED: {what}: {found}")
        faults.append(what)


def tensors():
    """An array of each datatype, with the values that are easily lost."""
    import ml_dtypes
    import numpy as np

    def bits(dtype, unsigned):
        return np.array([0, 1, 2**15, 2**15 - 1, 0x7C00, 0x7E01, 0xFF81, 0x3F80], unsigned).view(dtype)

    yield "BOOL", np.array([[True, False, True]])
    for width in [8, 16, 32, 64]:
        yield f"UINT{width}", np.array([[0, 1, 2**width - 1]], f"uint{width}")
        yield f"INT{width}", np.array([[-(2 ** (width - 1)), -1, 2 ** (width - 1) - 1]], f"int{width}")
    yield "FP16", bits(np.float16, np.uint16)
    yield "BF16", bits(ml_dtypes.bfloat16, np.uint16)
    yield "FP32", np.array([[0.1, -0.0, 1e-45], [3.4028235e38, 1 / 3, 16777217.0]], np.float32)
    yield "FP64", np.array([[0.1, -0.0, 5e-324], [1.7976931348623157e308, 1 / 3, 2.0**53]], np.float64)
    yield "BYTES", np.array([b"", b"a", "gr\u00fc\u00df".encode()], dtype=object)
    yield "FP32", np.array([np.nan, np.inf, -np.inf], np.float32)
    yield "FP64", np.array([np.nan, np.inf, -np.inf], np.float64)
    yield "BYTES", np.array([b"\xff\x00", bytes(range(256))], dtype=object)
    yield "INT32", np.zeros([0, 4], np.int32)
    yield "UINT8", np.arange(24, dtype=np.uint8).reshape(2, 3, 4)


def same(one, other):
    if one.dtype == object:
        return [bytes(x) for x in one.reshape(-1)] == [x if isinstance(x, bytes) else x.encode() for x in other.reshape(-1)]
    return one.dtype == other.dtype and one.tobytes() == other.tobytes()


def has_json(datatype, array):
    import numpy as np

    if datatype == "BYTES":
        return all(not x.startswith(b"\xff") and len(x) < 256 for x in array)
    return datatype not in ("FP16", "BF16") and (datatype[0] != "F" or bool(np.isfinite(array).all()))


def check_tensors(address, recorded):
    """Each datatype in each form, both ways. The bytes of each exchange are added to `recorded`."""
    import tritonclient.http as triton

    for number, (datatype, array) in enumerate(tensors()):
        for sent in [True, False]:
            for wanted in [True, False, None]:
                name = f"{datatype.lower()}_{number}"
                one = triton.InferInput(name, list(array.shape), datatype)
                what = f"{name}, {'binary' if sent else 'JSON'} to {dict([(True, 'binary'), (False, 'JSON'), (None, 'default')])[wanted]}"
                try:
                    one.set_data_from_numpy(array, binary_data=sent)
                except Exception as e:
                    print(f"tritonclient does not send {what}: {e}")
                    continue
                asked = None if wanted is None else [triton.InferRequestedOutput(name, binary_data=wanted)]
                body, length = triton.InferenceServerClient.generate_request_body([one], outputs=asked, request_id=f"id {number}")
                connection = http.client.HTTPConnection(*address)
                connection.request("POST", "/v2/models/echo/infer", body, {} if length is None else {"Inference-Header-Content-Length": length})
                reply = connection.getresponse()
                answer, header = reply.read(), reply.headers["Inference-Header-Content-Length"]
                exchange = {"what": what, "request": bytes(body).hex(), "request_header": length}
                exchange |= {"status": reply.status, "answer": answer.hex(), "answer_header": header and int(header)}
                recorded.append(exchange)
                possible = (sent or has_json(datatype, array)) and (wanted is not False or has_json(datatype, array))
                if not possible:
                    expect(what, reply.status == 400 and list(json.loads(answer)) == ["error"], answer)
                    continue
                expect(what, reply.status == 200, answer)
                if reply.status == 200:
                    result = triton.InferenceServerClient.parse_response_body(answer, header_length=header and int(header))
                    back = result.as_numpy(name)
                    expect(what, same(array, back), back)
                    expect(f"{what}: its id", result.get_response()["id"] == f"id {number}")


def refused(what, status, call):
    from tritonclient.utils import InferenceServerException

    try:
        call()
        expect(what, False, "it is accepted")
    except InferenceServerException as e:
        expect(what, status in str(e.status()) and e.message(), e)


def check_calls(address):
    """Every call of the client that is of the protocol, and what the others come to."""
    import numpy as np
    import tritonclient.http as triton

    client = triton.InferenceServerClient(f"{address[0]}:{address[1]}")
    expect("server live", client.is_server_live())
    expect("server ready", client.is_server_ready())
    expect("model ready", client.is_model_ready("echo"))
    expect("no model ready", not client.is_model_ready("other"))
    expect("binary tensors are announced", client.get_server_metadata()["extensions"] == ["binary_tensor_data"])
    model = client.get_model_metadata("echo")
    digest = model["versions"][0]
    expect("fourteen inputs", len(model["inputs"]) == len(model["outputs"]) == 14, model)
    expect("version by the beginning of its digest", client.get_model_metadata("echo", digest[:10]) == model)
    refused("unknown model", "404", lambda: client.get_model_metadata("other"))
    refused("unknown version", "404", lambda: client.get_model_metadata("echo", "0000"))

    array = np.arange(10000, dtype=np.int32)
    one = triton.InferInput("x", [10000], "INT32").set_data_from_numpy(array)
    for request in [None, "gzip", "deflate"]:
        for response in [None, "gzip", "deflate"]:
            result = client.infer("echo", [one], request_compression_algorithm=request, response_compression_algorithm=response)
            expect(f"compression {request}, {response}", same(array, result.as_numpy("x")))
            expect("the version is named", result.get_response()["model_version"] == digest)
    result = client.async_infer("echo", [one], model_version=digest[:8]).get_result()
    expect("asynchronous", same(array, result.as_numpy("x")))
    two = triton.InferInput("y", [10000], "INT32").set_data_from_numpy(array + 1, binary_data=False)
    asked = [triton.InferRequestedOutput("y", binary_data=True), triton.InferRequestedOutput("x", binary_data=False)]
    result = client.infer("echo", [one, two], outputs=asked)
    expect("two, in the order that is asked for", [o["name"] for o in result.get_response()["outputs"]] == ["y", "x"])
    expect("two, in both forms", same(array, result.as_numpy("x")) and same(array + 1, result.as_numpy("y")))

    refused("unknown output", "400", lambda: client.infer("echo", [one], outputs=[triton.InferRequestedOutput("z")]))
    refused("one output twice", "400", lambda: client.infer("echo", [one], outputs=[triton.InferRequestedOutput("x")] * 2))
    refused("one input twice", "400", lambda: client.infer("echo", [one, one]))
    refused("no inputs", "400", lambda: client.infer("echo", []))
    refused("a sequence", "400", lambda: client.infer("echo", [one], sequence_id=1))
    refused("a priority", "400", lambda: client.infer("echo", [one], priority=1))
    refused("a class count", "400", lambda: client.infer("echo", [one], outputs=[triton.InferRequestedOutput("x", class_count=1)]))
    shared = triton.InferInput("x", [10000], "INT32")
    shared.set_shared_memory("region", 40000)
    refused("shared memory", "400", lambda: client.infer("echo", [shared]))
    wrong = triton.InferInput("x", [10001], "INT32")
    wrong._raw_data, wrong._parameters = array.tobytes(), {"binary_data_size": 40000}
    refused("a shape of more elements", "400", lambda: client.infer("echo", [wrong]))
    large = triton.InferInput("x", [33 << 20], "UINT8").set_data_from_numpy(np.zeros(33 << 20, np.uint8))
    refused("33 MiB", "413", lambda: client.infer("echo", [large]))
    refused("33 MiB, compressed", "413", lambda: client.infer("echo", [large], request_compression_algorithm="gzip"))
    for name, call in [
        ("index", client.get_model_repository_index),
        ("load", lambda: client.load_model("echo")),
        ("configuration", lambda: client.get_model_config("echo")),
        ("statistics", client.get_inference_statistics),
        ("shared memory status", client.get_system_shared_memory_status),
    ]:
        refused(f"Triton's {name}", "404", call)
    client.close()


def check_grpc(address):
    """The same over gRPC: each datatype, each call of the protocol, and what the others come to."""
    import numpy as np
    import tritonclient.grpc as triton

    client = triton.InferenceServerClient("%s:%d" % address)
    for number, (datatype, array) in enumerate(tensors()):
        for compression in [None, "gzip"]:
            name = f"{datatype.lower()}_{number}"
            one = triton.InferInput(name, list(array.shape), datatype)
            one.set_data_from_numpy(array)
            asked = {"request_id": f"id {number}", "compression_algorithm": compression}
            result = client.infer("echo", [one], outputs=[triton.InferRequestedOutput(name)], **asked)
            back = result.as_numpy(name)
            expect(f"gRPC: {name}, compression {compression}", same(array, back), back)
            expect(f"gRPC: the id of {name}", result.get_response().id == f"id {number}")

    expect("gRPC: live", client.is_server_live())
    expect("gRPC: ready", client.is_server_ready())
    expect("gRPC: metadata", client.get_server_metadata().extensions == ["binary_tensor_data"])
    metadata = client.get_model_metadata("echo")
    version = metadata.versions[0]
    expect("gRPC: inputs", len(metadata.inputs) == 14 and metadata.inputs[0].shape == [-1], metadata)
    expect("gRPC: the model is ready", client.is_model_ready("echo") and client.is_model_ready("echo", version))
    one = triton.InferInput("x", [2], "UINT8")
    one.set_data_from_numpy(np.array([1, 2], np.uint8))
    missing = [triton.InferRequestedOutput("missing")]
    classes = [triton.InferRequestedOutput("x", class_count=2)]
    expect("gRPC: a beginning of the version", client.infer("echo", [one], version[:8]).get_response().model_version == version)
    for what, code, call in [
        ("another model", "NOT_FOUND", lambda: client.infer("other", [one])),
        ("another version", "NOT_FOUND", lambda: client.infer("echo", [one], "0")),
        ("metadata of another model", "NOT_FOUND", lambda: client.get_model_metadata("other")),
        ("an output that is missing", "INVALID_ARGUMENT", lambda: client.infer("echo", [one], outputs=missing)),
        ("classes", "INVALID_ARGUMENT", lambda: client.infer("echo", [one], outputs=classes)),
        ("an input twice", "INVALID_ARGUMENT", lambda: client.infer("echo", [one, one])),
        ("no input", "INVALID_ARGUMENT", lambda: client.infer("echo", [])),
        ("a sequence", "INVALID_ARGUMENT", lambda: client.infer("echo", [one], sequence_id=1)),
        ("the repository", "UNIMPLEMENTED", client.get_model_repository_index),
        ("loading", "UNIMPLEMENTED", lambda: client.load_model("echo")),
        ("configuration", "UNIMPLEMENTED", lambda: client.get_model_config("echo")),
        ("statistics", "UNIMPLEMENTED", client.get_inference_statistics),
        ("shared memory", "UNIMPLEMENTED", client.get_system_shared_memory_status),
    ]:
        refused(f"gRPC: {what}", code, call)
    large = triton.InferInput("x", [(32 << 20) + 1], "UINT8")
    large.set_data_from_numpy(np.zeros((32 << 20) + 1, np.uint8))
    refused("gRPC: too long", "RESOURCE_EXHAUSTED", lambda: client.infer("echo", [large]))
    refused("gRPC: a bomb", "RESOURCE_EXHAUSTED", lambda: client.infer("echo", [large], compression_algorithm="gzip"))


def resident(process, which):
    """Bytes of memory: VmRSS, those of now, or VmHWM, the most that there were."""
    status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    return int(status.split(f"{which}:")[1].split()[0]) << 10


def check_memory(server, address):
    """Forty clients at a time with the largest bodies of each kind: memory stays within what is stated."""
    import gzip
    import os
    import threading

    limit = 32 << 20
    count = (limit - 200) // 2
    head = '{"inputs":[{"name":"x","shape":[%d],"datatype":"%s","%s":%s}],"parameters":{"binary_data_output":%s}}'
    text = (head % (count, "UINT8", "data", "[" + "1," * (count - 1) + "1]", "true")).encode()
    wide = (head % (count, "FP64", "data", "[" + "1," * (count - 1) + "1]", "true")).encode()
    raw_head = (head % (limit - 300, "UINT8", "parameters", '{"binary_data_size":%d}' % (limit - 300), "true")).encode()
    raw = raw_head + bytes(limit - 300)
    bomb, zeros = gzip.compress(bytes(1 << 30), 6), gzip.compress(text, 1)
    kinds = [
        ("JSON", text, {}, 200),
        ("JSON that would be four times as long", wide, {}, 400),
        ("binary", raw, {"Inference-Header-Content-Length": len(raw_head)}, 200),
        ("JSON, compressed", zeros, {"Content-Encoding": "gzip"}, 200),
        ("1 GiB, compressed", bomb, {"Content-Encoding": "gzip"}, 413),
        ("nesting", b"[" * (limit - 1), {}, 400),
    ]
    idle = resident(server, "VmRSS")
    codes = {}

    def client(number):
        what, body, headers, _ = kinds[number % len(kinds)]
        try:
            connection = http.client.HTTPConnection(*address, timeout=60)
            connection.request("POST", "/v2/models/echo/infer", body, headers)
            reply = connection.getresponse()
            reply.read()
            code = reply.status
        except OSError as e:
            code = type(e).__name__
        codes.setdefault(what, []).append(code)

    clients = [threading.Thread(target=client, args=[n]) for n in range(42)]
    for one in clients:
        one.start()
    for one in clients:
        one.join()
    for what, _, _, code in kinds:
        # 429 where memory was not there in time, 408 where the machine was too slow for all.
        expect(f"largest body, {what}", set(codes[what]) <= {code, 429, 408}, codes[what])
    print({what: dict((c, found.count(c)) for c in set(found)) for what, found in codes.items()})
    most, stated = resident(server, "VmHWM"), idle + 4 * limit * len(os.sched_getaffinity(0))
    print(f"memory: {idle >> 20} MiB idle, {most >> 20} MiB at most, {stated >> 20} MiB stated")
    expect("memory", most <= stated, most)


def check_files(program):
    """A server that may open forty files has a hundred clients; when they are gone it answers."""
    import resource
    import socket
    import time

    few = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))}
    server = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **few)
    host, port = server.stdout.readline().strip().split(":")
    clients = [socket.create_connection((host, int(port))) for _ in range(100)]
    time.sleep(0.5)
    for client in clients:
        client.close()
    connection = http.client.HTTPConnection(host, int(port), timeout=10)
    connection.request("GET", "/v2/health/live")
    expect("an answer after too many open files", connection.getresponse().status == 200)
    said = server.communicate()[1]
    expect("too many open files are reported", "Too many open files" in said and server.returncode == 0, said)


def main():
    if "--here" not in sys.argv:
        if len(sys.argv) not in (2, 4):
            sys.exit(__doc__)
        sys.exit(subprocess.run([python("tritonclient"), __file__, *sys.argv[1:], "--here"]).returncode)
    program = pathlib.Path(sys.argv[1]).resolve()
    check_files(program)
    server = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        host, port = server.stdout.readline().strip().split(":")
        recorded = []
        check_tensors((host, int(port)), recorded)
        check_calls((host, int(port)))
        check_grpc((host, int(port)))
        check_memory(server, (host, int(port)))
    finally:
        server.stdin.close()
        server.wait()
    expect("the server ends with code 0", server.returncode == 0, server.returncode)
    if "--record" in sys.argv and not faults:
        lines = ",\n".join(json.dumps(case) for case in recorded)
        pathlib.Path(sys.argv[sys.argv.index("--record") + 1]).write_text(f"[\n{lines}\n]\n")
    print(f"{len(recorded)} exchanges of tensors and all calls: {len(faults)} not as expected")
    sys.exit(1 if faults else 0)


main()
