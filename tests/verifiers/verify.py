"""Would a receiver written in Python accept this callback?

Reads {"secret": …, "headers": {…}, "body": "…"} as JSON on standard input and asks the `standardwebhooks`
package of PyPI. Prints "verified" and exits 0, or prints why not and exits 1. Our own code takes no part in
the verdict. The package also refuses timestamps that are more than five minutes off.
"""

import json
import sys

from standardwebhooks import Webhook

callback = json.load(sys.stdin.buffer)  # As UTF-8, whatever the locale says.
try:
    Webhook(callback["secret"]).verify(callback["body"], callback["headers"])
except Exception as error:  # The package raises ValueError and others on malformed headers: refusals too.
    sys.exit(f"{type(error).__name__}: {error}")
print("verified")
