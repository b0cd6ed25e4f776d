// One caller of rate-limiter-flexible: its own queue in front of its DynamoDB store.
// Arguments: table, interval in seconds, number of calls, caller's number, recorder's port.
// Prints "ready", begins when a line comes in, prints one line of JSON, and ends.
"use strict";

const dgram = require("node:dgram");
const { DynamoDB } = require("@aws-sdk/client-dynamodb");
const { RateLimiterDynamo, RateLimiterQueue } = require("rate-limiter-flexible");

const [table, interval, calls, caller, port] = process.argv.slice(2);
const monotonic = () => Number(process.hrtime.bigint()) / 1e9; // CLOCK_MONOTONIC, as Python's

async function main() {
  const client = new DynamoDB({ endpoint: process.env.AWS_ENDPOINT_URL });
  let requests = 0;
  client.middlewareStack.add((next) => (args) => { requests += 1; return next(args); }, {
    step: "finalizeRequest", priority: "low", name: "count",
  });
  const limiter = new RateLimiterDynamo({
    storeClient: client, tableName: table, tableCreated: true, ttlSet: true,
    points: 1, duration: Number(interval),
  });
  const queue = new RateLimiterQueue(limiter);
  const socket = dgram.createSocket("udp4");
  await new Promise((resolve) => socket.connect(Number(port), "127.0.0.1", resolve));
  await client.getItem({ TableName: table, Key: { key: { S: "warm" } } });

  console.log("ready");
  await new Promise((resolve) => process.stdin.once("data", resolve));
  requests = 0;
  for (let i = 0; i < Number(calls); i += 1) {
    const asked = monotonic();
    await queue.removeTokens(1);
    const start = monotonic();
    const call = { caller: Number(caller), asked, start };
    await new Promise((resolve) => socket.send(JSON.stringify(call), resolve));
  }
  console.log(JSON.stringify({ requests }));
  process.exit(0);
}

process.stdin.on("end", () => process.exit(1)); // whoever started this is gone
main().catch((error) => { console.error(error); process.exit(1); });
