// A client on the TypeScript SDK of the era with a handshake: `sdk1.mjs PLAN`.
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { play } from "./steps.mjs";

const { command, steps } = JSON.parse(process.argv[2]);
const transport = new StdioClientTransport({ command: command[0], args: command.slice(1), env: process.env });
const client = new Client({ name: "sdk1", version: "1" });
await play(client, transport, steps, (params, onprogress) => client.callTool(params, undefined, { onprogress }));
