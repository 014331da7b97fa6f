// Makes the calls of a plan at once, by the library of Node, and prints what came of each.
import { readFileSync } from "node:fs";
import grpc from "@grpc/grpc-js";

const plan = JSON.parse(readFileSync(0, "utf8"));
const file = (path) => (path ? readFileSync(path) : null);
const credentials = plan.roots
  ? grpc.credentials.createSsl(file(plan.roots), file(plan.key), file(plan.certificate))
  : grpc.credentials.createInsecure();
const client = new grpc.Client(plan.target, credentials);
const bytes = (wire) => wire;

function made(call) {
  return new Promise((told) => {
    const metadata = new grpc.Metadata();
    for (const [name, value] of Object.entries(call.metadata)) metadata.set(name, value);
    const options = { deadline: Date.now() + call.milliseconds };
    const stream = client.makeBidiStreamRequest(call.path, bytes, bytes, metadata, options);
    const messages = [];
    stream.on("data", (wire) => {
      messages.push(wire.toString("base64"));
      if (messages.length === call.most) stream.cancel();
    });
    stream.on("error", () => {});
    stream.on("status", ({ code, details: text, metadata: trailers }) => {
      const [details = Buffer.of()] = trailers.get("grpc-status-details-bin");
      told({ messages, code, text, details: details.toString("base64") });
    });
    for (const message of call.messages) stream.write(Buffer.from(message, "base64"));
    stream.end();
  });
}

const answers = await Promise.all(plan.calls.map(made));
client.close();
process.stdout.write(JSON.stringify(answers));
