"""A collector of others: takes OTLP over HTTP in JSON, reads it by the messages of OpenTelemetry, and prints what it understood.

    otlp_judge.py

The first line is its port. Each further line is a log record, after it was taken.
"""

import base64
import hashlib
import json
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

from google.protobuf.json_format import Parse
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import SeverityNumber


def value(any_value):
    return getattr(any_value, any_value.WhichOneof("value"))


class Collector(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        assert self.headers["content-type"] == "application/json" and self.path == "/v1/logs", self.headers
        document = json.loads(body)
        # "traceId … hex-encoded", where the mapping of Protobuf has base64.
        for resource in document["resourceLogs"]:
            for scope in resource["scopeLogs"]:
                for record in scope["logRecords"]:
                    if "traceId" in record:
                        record["traceId"] = base64.b64encode(bytes.fromhex(record["traceId"])).decode()
        # What no message knows is an error.
        request = Parse(json.dumps(document), ExportLogsServiceRequest())
        for resource in request.resource_logs:
            whose = {one.key: value(one.value) for one in resource.resource.attributes}
            assert whose["service.name"] == "signet", whose
            for scope in resource.scope_logs:
                for record in scope.log_records:
                    self.show(record, whose)
        sys.stdout.flush()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def show(self, record, whose):
        attributes = {one.key: value(one.value) for one in record.attributes}
        line = record.body.string_value.encode()
        # RFC 6962, 2.1
        assert hashlib.sha256(b"\0" + line).hexdigest() == attributes["signet.leaf"], line
        shown = {
            "time": record.time_unix_nano,
            "severity": SeverityNumber.Name(record.severity_number),
            "event": record.event_name,
            "trace": record.trace_id.hex(),
            "record": json.loads(line),
            "attributes": attributes,
            "whose": whose,
            "authorization": self.headers["authorization"],
        }
        print(json.dumps(shown))

    def log_message(self, *_):
        pass


server = HTTPServer(("127.0.0.1", 0), Collector)
print(server.server_port, flush=True)
server.serve_forever()
