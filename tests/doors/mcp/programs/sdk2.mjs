// A client on the TypeScript SDK of both eras: `sdk2.mjs PLAN`.
import { Client } from "@modelcontextprotocol/client";
import { StdioClientTransport } from "@modelcontextprotocol/client/stdio";
import { play } from "./steps.mjs";

const { command, steps } = JSON.parse(process.argv[2]);
const transport = new StdioClientTransport({ command: command[0], args: command.slice(1), env: process.env });
const client = new Client({ name: "sdk2", version: "1" }, { versionNegotiation: { mode: "auto" } });
await play(client, transport, steps, (params, onprogress) => client.callTool(params, { onprogress }));
