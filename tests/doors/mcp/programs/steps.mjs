// The steps of a plan, for both generations of the TypeScript SDK: what a client gets of each is printed as JSON.
const step = {
  "tools/list": (client, params) => client.listTools(params),
  "resources/list": (client, params) => client.listResources(params),
  "resources/read": (client, params) => client.readResource(params),
  "prompts/list": (client, params) => client.listPrompts(params),
  "prompts/get": (client, params) => client.getPrompt(params),
  "completion/complete": (client, params) => client.complete(params),
  ping: (client) => client.ping(),
};

export async function play(client, transport, steps, call) {
  const seen = [];
  await client.connect(transport);
  seen.push({ server: client.getServerVersion(), capabilities: client.getServerCapabilities(), instructions: client.getInstructions() ?? null });
  for (const [method, params] of steps) {
    try {
      // Whether a client still hears of progress when the answer is there is chance; the lines are compared.
      const onprogress = () => {};
      seen.push({ result: method === "tools/call" ? await call(params, onprogress) : await step[method](client, params) });
    } catch (error) {
      seen.push({ error: error.message, code: error.code ?? null });
    }
  }
  await client.close();
  console.log(JSON.stringify(seen));
}
