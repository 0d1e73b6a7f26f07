"""Reads messages of RFC 5424 from standard input, one a line, by a parser of others, and prints what it understood.

    syslog_judge.py < messages
"""

import json
import sys

from syslog_rfc5424_parser import SyslogMessage

for line in sys.stdin.buffer.read().decode("ascii").splitlines():
    message = SyslogMessage.parse(line).as_dict()
    record = json.loads(message["msg"])
    assert message["facility"] == "audit" and message["appname"] == "signet", message
    assert message["timestamp"] == record["time"] and message["msgid"] == record["action"], message
    assert int(message["sd"]["meta"]["sequenceId"]) == record["index"] + 1, message
    print(json.dumps({"severity": message["severity"], "record": record}))
