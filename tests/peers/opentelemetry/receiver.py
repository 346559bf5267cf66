"""An OTLP/HTTP receiver of traces: receiver.py PORT

Decodes each POST /v1/traces with OpenTelemetry's own protobuf classes, JSON as well as binary, and refuses what the specification
does not allow. GET /spans returns the spans that were decoded and what was refused, for tests/peers/opentelemetry.rs.

Sources: opentelemetry-proto, trace_service.proto; OpenTelemetry Protocol, "JSON Protobuf Encoding".
"""

import base64
import gzip
import json
import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock

from google.protobuf import json_format, unknown_fields
from google.protobuf.descriptor import FieldDescriptor
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

IDS = {"traceId": 32, "spanId": 16, "parentSpanId": 16}
received = {"spans": [], "refused": []}
lock = Lock()


class Refused(Exception):
    """Why an export does not conform."""


def from_json(body):
    """Decodes OTLP/JSON, which differs from protobuf's JSON: ids are hex digits, enums are numbers."""
    request = ExportTraceServiceRequest()
    document = json.loads(body)
    prepared = prepare(document, ExportTraceServiceRequest.DESCRIPTOR, "")
    # Refuses unknown fields, and values of a wrong type.
    json_format.ParseDict(prepared, request, ignore_unknown_fields=False)
    return request


def prepare(value, message, path):
    """Returns an object of OTLP/JSON as protobuf's JSON."""
    if not isinstance(value, dict):
        raise Refused(f"{path} is no object")
    # protobuf's parser accepts names with underscores too, which OTLP/JSON does not allow.
    fields = {field.json_name: field for field in message.fields}
    prepared = {}
    for name, item in value.items():
        field = fields.get(name)
        if field is None:
            raise Refused(f"{path}.{name} is no field of {message.full_name}")
        items = item if field.is_repeated else [item]
        if not isinstance(items, list):
            raise Refused(f"{path}.{name} is no list")
        converted = [convert(item, field, f"{path}.{name}") for item in items]
        prepared[name] = converted if field.is_repeated else converted[0]
    return prepared


def convert(value, field, path):
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        return prepare(value, field.message_type, path)
    if field.type == FieldDescriptor.TYPE_ENUM:
        if type(value) is not int or value not in field.enum_type.values_by_number:
            raise Refused(f"{path} is no number of {field.enum_type.full_name}: {value!r}")
    if field.json_name in IDS:
        if not isinstance(value, str) or not re.fullmatch(f"[0-9a-f]{{{IDS[field.json_name]}}}", value):
            raise Refused(f"{path} is not {IDS[field.json_name]} hex digits: {value!r}")
        return base64.b64encode(bytes.fromhex(value)).decode()
    return value


def from_protobuf(body):
    request = ExportTraceServiceRequest.FromString(body)
    if len(unknown_fields.UnknownFieldSet(request)):
        raise Refused("unknown fields")
    return request


def of_value(value):
    kind = value.WhichOneof("value")
    if kind not in ("string_value", "int_value"):
        raise Refused(f"an attribute is a {kind}")
    return getattr(value, kind)


def attributes(of):
    names = [attribute.key for attribute in of]
    if len(set(names)) != len(names):
        raise Refused(f"attributes are repeated: {names}")
    return {attribute.key: of_value(attribute.value) for attribute in of}


def spans(request):
    for resource_spans in request.resource_spans:
        resource = attributes(resource_spans.resource.attributes)
        for scope_spans in resource_spans.scope_spans:
            scope = {"name": scope_spans.scope.name, "version": scope_spans.scope.version}
            for span in scope_spans.spans:
                if len(span.trace_id) != 16 or len(span.span_id) != 8 or not any(span.trace_id) or not any(span.span_id):
                    raise Refused(f"a span has no ids: {span}")
                if not 0 < span.start_time_unix_nano <= span.end_time_unix_nano:
                    raise Refused(f"a span ends before it starts: {span}")
                yield {
                    "resource": resource,
                    "scope": scope,
                    "trace": span.trace_id.hex(),
                    "id": span.span_id.hex(),
                    "parent": span.parent_span_id.hex() or None,
                    "state": span.trace_state,
                    "flags": span.flags,
                    "name": span.name,
                    "kind": Span.SpanKind.Name(span.kind),
                    "start": span.start_time_unix_nano,
                    "end": span.end_time_unix_nano,
                    "status": Status.StatusCode.Name(span.status.code),
                    "message": span.status.message,
                    "attributes": attributes(span.attributes),
                }


DECODERS = {"application/json": from_json, "application/x-protobuf": from_protobuf}


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers["content-encoding"] == "gzip":
            body = gzip.decompress(body)
        content_type = self.headers["content-type"]
        try:
            if self.path != "/v1/traces" or content_type not in DECODERS:
                raise Refused(f"POST {self.path} with {content_type}")
            decoded = list(spans(DECODERS[content_type](body)))
        except Exception as err:
            with lock:
                received["refused"].append(f"{type(err).__name__}: {err}")
            return self.answer(400, "application/json", json.dumps({"code": 3, "message": str(err)}).encode())
        with lock:
            received["spans"].extend(decoded)
        response = ExportTraceServiceResponse()
        if content_type == "application/json":
            return self.answer(200, content_type, json_format.MessageToJson(response).encode())
        return self.answer(200, content_type, response.SerializeToString())

    def do_GET(self):
        with lock:
            body = json.dumps(received).encode()
        self.answer(200, "application/json", body)

    def answer(self, status, content_type, body):
        # Without the headers Server and Date, which the tests do not know.
        self.send_response_only(status)
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Receiver).serve_forever()
