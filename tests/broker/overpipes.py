"""A server over pipes that asks an API with a key, both from its variables; it knows nothing of the broker."""

import json
import os
import sys
import urllib.error
import urllib.request

for line in sys.stdin:
    message = json.loads(line)
    if "id" not in message:
        continue
    answer = {"jsonrpc": "2.0", "id": message["id"]}
    if message["method"] == "tools/call":
        path = message["params"]["arguments"]["path"]
        key = os.environ["NOTES_KEY"]
        asked = urllib.request.Request(  # noqa: S310 - of this machine
            f"{os.environ['NOTES_URL']}/{path}", headers={"Authorization": f"Bearer {key}"}
        )
        try:
            with urllib.request.urlopen(asked, timeout=60) as response:  # noqa: S310 - the same
                text = response.read().decode()
        except urllib.error.HTTPError as error:
            text = f"{error.code} {error.read().decode()}"
        answer["result"] = {"content": [{"type": "text", "text": text}], "key": key, "meta": message["params"]["_meta"]}
    else:
        answer["result"] = {"seen": sorted(name for name in os.environ if name.startswith("PDP_"))}
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
