"""Tell by the exit code whether a model server has a version that answers: ready.py http://HOST:PORT/v1/models/NAME."""

import json
import sys
import urllib.request

direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy of the site does not know this host
try:
    with direct.open(sys.argv[1], timeout=4) as answer:
        states = [version["state"] for version in json.load(answer)["model_version_status"]]
except OSError as error:
    sys.exit(f"{sys.argv[1]}: {error}")
if "AVAILABLE" not in states:
    sys.exit(f"{sys.argv[1]}: no version is available: {', '.join(states) or 'there is none'}")
