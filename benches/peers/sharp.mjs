// sharp, as its users write it: `sharp(bytes).rotate().resize(…).jpeg(…)` for each picture that is wanted.
//
// Reads one job a line as JSON on standard input, and answers each with a line. `benches/images` is the other side.

import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { createInterface } from "node:readline";

// `import` looks beside this file alone; the package may be installed elsewhere.
const modules = process.env.BENCH_NODE_MODULES;
const require = createRequire(modules ? join(modules, "/") : import.meta.url);
const sharp = require("sharp");

// One picture at a time on one thread, as all contenders. The cache knows nothing of pictures given as bytes; without it
// less memory is held.
sharp.concurrency(1);
sharp.cache(false);

const QUALITY = 80;

// The exact size: else 16:9 pictures come out a pixel higher or lower than ours.
const sized = (bytes, [width, height]) => sharp(bytes).rotate().resize({ width, height, fit: "fill" });
const jpeg = (bytes, size) => sized(bytes, size).jpeg({ quality: QUALITY }).toBuffer();

async function variants(bytes, job) {
  return {
    "preview.jpg": await jpeg(bytes, job.preview),
    "thumbnail.jpg": await jpeg(bytes, job.thumbnail),
  };
}

async function full(bytes, job) {
  return {
    ...(await variants(bytes, job)),
    "original.jpg": await sharp(bytes).rotate().jpeg({ quality: QUALITY, mozjpeg: true }).toBuffer(),
  };
}

// The preview without loss, for its colours.
async function png(bytes, job) {
  return { "preview.png": await sized(bytes, job.preview).png().toBuffer() };
}

const jobs = { variants, full, png };

async function answer(job) {
  const [cpu, wall] = [process.cpuUsage(), process.hrtime.bigint()];
  const made = await jobs[job.kind](readFileSync(job.input), job);
  const used = process.cpuUsage(cpu);
  const wall_ms = Number(process.hrtime.bigint() - wall) / 1e6;
  const files = {};
  for (const [file, bytes] of Object.entries(made)) {
    const path = join(job.output, file);
    writeFileSync(path, bytes);
    files[file.split(".")[0]] = path;
  }
  return { cpu_ms: (used.user + used.system) / 1e3, wall_ms, files };
}

const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

say({ version: `sharp ${sharp.versions.sharp ?? require("sharp/package.json").version} (libvips ${sharp.versions.vips})` });
for await (const line of createInterface({ input: process.stdin })) {
  say(await answer(JSON.parse(line)).catch((error) => ({ error: String(error) })));
}
