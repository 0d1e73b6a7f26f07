"""Verifies a message by the library of Standard Webhooks, and shows its content.

    webhook_judge.py SECRET < {"headers": {...}, "body": "..."}
"""

import json
import sys

from standardwebhooks.webhooks import Webhook

message = json.load(sys.stdin)
print(json.dumps(Webhook(sys.argv[1]).verify(message["body"], message["headers"])))
