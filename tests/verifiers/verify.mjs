// Would a receiver written in JavaScript accept this callback?
//
// Reads {"secret": …, "headers": {…}, "body": "…"} as JSON on standard input and asks the `standardwebhooks`
// package of npm. Prints "verified" and exits 0, or prints why not and exits 1. Our own code takes no part in
// the verdict. The package also refuses timestamps that are more than five minutes off.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

// `import` looks beside this file alone; the package is installed outside the source tree.
const modules = process.env.DARKROOM_TEST_NODE_MODULES;
const require = createRequire(modules ? join(modules, "/") : import.meta.url);
const { Webhook } = require("standardwebhooks");

const callback = JSON.parse(readFileSync(0, "utf8"));
try {
  new Webhook(callback.secret).verify(callback.body, callback.headers);
} catch (error) {
  console.error(`${error.name}: ${error.message}`);
  process.exit(1);
}
console.log("verified");
